"""A GraphQL application under load: the user is named by the schema's extension."""

from __future__ import annotations

import asyncio
from typing import Any

import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from tests.integrations.apps.fastapi_app import identity
from ts_autotrack import track_feature
from ts_autotrack.integrations.strawberry import tracking_extension


def user_of(context: Any) -> dict[str, str] | None:
    """Return the identity that the header names."""
    user = context["request"].headers.get("x-user")
    return None if user is None else identity(user)


@strawberry.type
class Query:
    """One field of each kind."""

    @strawberry.field
    @track_feature("work", capture=["number"])
    def work(self, number: int) -> int:
        """Do the work."""
        return number

    @strawberry.field
    @track_feature("work", capture=["number"])
    async def slow_work(self, number: int) -> int:
        """Do the work after a while."""
        await asyncio.sleep(0.001)
        return number


schema = strawberry.Schema(Query, extensions=[tracking_extension(user_of)])
app = FastAPI()
app.include_router(GraphQLRouter(schema), prefix="/graphql")
