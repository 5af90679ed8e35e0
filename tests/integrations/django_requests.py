"""Requests to the Django project of the tests, in process, through Django's own WSGI and ASGI handlers."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import override_settings

import ts_autotrack
from tests.integrations.apps import django_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from tests.conftest import Inspector

    Get: TypeAlias = Callable[..., "Answer"]


class Answer(NamedTuple):
    """Answer to a request, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


def get(path: str, user: str | None = None, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request through the WSGI handler."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ.update({"PATH_INFO": path, "REQUEST_METHOD": method, "wsgi.input": io.BytesIO()})
    for name, value in _headers(user, headers).items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    begun: list[Any] = []
    response = WSGIHandler()(environ, lambda *start: begun.append(start))
    body = b"".join(response)
    response.close()
    ((status, fields),) = begun
    return Answer(int(status.split()[0]), {name.lower(): value for name, value in fields}, body)


async def asend(handler: ASGIHandler, path: str, headers: Mapping[str, str], method: str = "GET") -> Answer:
    """Send a request through the ASGI handler."""
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": fields}
    received = iter([{"type": "http.request"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, str]:
        for message in received:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await handler(scope, receive, send)
    answered = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))


def aget(path: str, user: str | None = None, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request through the ASGI handler, in an event loop of its own."""
    return asyncio.run(asend(ASGIHandler(), path, _headers(user, headers), method))


both_handlers = pytest.mark.parametrize("get", [get, aget], ids=["wsgi", "asgi"])


def _headers(user: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    return {**({} if user is None else {"X-User": user}), **(headers or {})}


def tracking(*middleware: str, **setting: object) -> Any:
    """Return a block with the setting TS_AUTOTRACK, and with this MIDDLEWARE if it is given."""
    return override_settings(TS_AUTOTRACK=setting, **({"MIDDLEWARE": list(middleware)} if middleware else {}))


def events(inspector: Inspector) -> list[tuple[str, Any, Any]]:
    """Return the feature, the user and the account of all events that arrived, in order."""
    assert ts_autotrack.flush()
    return [
        (item["properties"]["feature_name"], item["user_id"], item["context"].get("group_id"))
        for item in inspector.items()
    ]


@pytest.fixture(scope="session")
def database() -> None:
    """The project's database, with 50 users."""
    django_app.prepare()


@pytest.fixture
def project(database: None, inspector: Inspector) -> Iterator[Inspector]:
    """The project, its users named by name and account, and an empty inspector."""
    del database
    with tracking(user="user.username", group="user.last_name"):
        yield inspector
    connections.close_all()
