"""A shop of reports in GraphQL, with FastAPI: fields and operations are features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from ts_autotrack.integrations.asgi import TrackingMiddleware
from ts_autotrack.integrations.strawberry import tracking_extension

if TYPE_CHECKING:
    from collections.abc import MutableMapping

USERS = {b"ann-token": ("ann", "acme"), b"bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""


def user_of(scope: MutableMapping[str, Any]) -> tuple[str, str] | None:
    """Return the user and the account of a request."""
    return USERS.get(dict(scope["headers"]).get(b"authorization", b""))


@strawberry.type
class Query:
    """Reads."""

    @strawberry.field
    def report(self, number: int) -> str:
        """Show a report: an event of the feature `report_view`, but not after an error."""
        if number not in {1, 2}:
            message = "No such report"
            raise LookupError(message)
        return f"Report {number}"


@strawberry.type
class Mutation:
    """Changes."""

    @strawberry.mutation
    async def export_report(self, number: int) -> str:
        """Export a report: an event of the feature `report_export`."""
        return f"report,{number}"


features = {"Query.report": "report_view", "Mutation.exportReport": "report_export"}
extension = tracking_extension(features=features, operations={"Dashboard": "analytics_dashboard"})
app = FastAPI()
app.include_router(GraphQLRouter(strawberry.Schema(Query, Mutation, extensions=[extension])), prefix="/graphql")
app.add_middleware(TrackingMiddleware, user=user_of)
