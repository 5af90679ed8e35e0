"""The ASGI middleware with Litestar and Quart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import litestar
import quart
from litestar.middleware import DefineMiddleware

from tests.integrations.asgi_requests import (
    USERS,
    account_of,
    async_rows,
    async_work,
    events,
    expected,
    get,
    sync_rows,
    sync_work,
    user_of,
)
from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from tests.conftest import Inspector

FEATURES = {"GET /v1/pages/{number:int}": "page", "GET /v1/pages/<int:number>": "page"}
PATHS = ("/sync", "/async", "/sync-stream", "/async-stream")
WORK = ("sync_work", "async_work", "sync_rows", "async_rows")


def bound(request: litestar.Request[Any, Any, Any]) -> None:
    """Bind the user in a hook of Litestar."""
    if user := request.headers.get("x-user"):
        bind_user(user, group_id=account_of(user))


@litestar.get("/sync", sync_to_thread=True)
def litestar_sync() -> None:
    """Work on a thread of the pool."""
    sync_work()


@litestar.get("/async")
async def litestar_async() -> None:
    """Work on the event loop."""
    await async_work()


@litestar.get("/sync-stream")
async def litestar_sync_stream() -> litestar.response.Stream:
    """Stream from a thread pool."""
    return litestar.response.Stream(sync_rows())


@litestar.get("/async-stream")
async def litestar_async_stream() -> litestar.response.Stream:
    """Stream from the event loop."""
    return litestar.response.Stream(async_rows())


@litestar.get("/v1/pages/{number:int}")
@track_feature("page_view")
async def litestar_page(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
    """Answer with the status in the path."""
    return litestar.Response("", status_code=request.path_params["number"])


def litestar_app(**middleware: Any) -> Any:
    """Return a Litestar application with the middleware among its own."""
    return litestar.Litestar(
        [litestar_sync, litestar_async, litestar_sync_stream, litestar_async_stream, litestar_page],
        before_request=bound,
        logging_config=None,
        middleware=[DefineMiddleware(TrackingMiddleware, **middleware)],
    )


def test_user_bound_before_a_request_of_litestar(inspector: Inspector) -> None:
    """`before_request` binds the user for handlers and streams of its request only."""
    get(litestar_app(), *PATHS, users=USERS)
    get(litestar_app(), *PATHS)
    assert events(inspector) == expected(*WORK)


def test_features_and_responses_of_litestar(inspector: Inspector) -> None:
    """A named route is used by a response below 400, and a tracked handler with an error response has failed."""
    app = litestar_app(user=user_of, features=FEATURES)
    for application in (app, TrackingMiddleware(litestar_app(), user_of, features=FEATURES)):
        get(application, "/v1/pages/200", "/v1/pages/404", "/v1/pages/500", users=["jane"])
        get(application, "/v1/pages/none", "/v1/pages/200")
    account = account_of("jane")
    assert events(inspector) == [("page", "jane", account)] * 2 + [("page_view", "jane", account)] * 2


def quart_app(**middleware: Any) -> Any:
    """Return a Quart application within the middleware."""
    app, pages = quart.Quart("shop"), quart.Blueprint("pages", "pages", url_prefix="/v1")

    @app.before_request
    async def bound_by_quart() -> None:
        if user := quart.request.headers.get("x-user"):
            bind_user(user, group_id=account_of(user))

    @app.get("/sync")
    def sync() -> str:
        sync_work()
        return ""

    @app.get("/async")
    async def asynchronous() -> str:
        await async_work()
        return ""

    @app.get("/sync-stream")
    async def sync_stream() -> Any:
        return sync_rows()

    @app.get("/async-stream")
    async def async_stream() -> Any:
        return async_rows()

    @pages.get("/pages/<int:number>")
    @track_feature("page_view")
    async def page(number: int) -> quart.Response:
        return quart.Response("", number)

    app.register_blueprint(pages)
    app.asgi_app = TrackingMiddleware(app.asgi_app, **middleware)  # type: ignore[method-assign]
    return app


def test_user_bound_before_a_request_of_quart(inspector: Inspector) -> None:
    """`before_request` binds the user for views and streams of its request only."""
    get(quart_app(), *PATHS, users=USERS)
    get(quart_app(), *PATHS)
    assert events(inspector) == expected(*WORK)


def test_features_and_responses_of_quart(inspector: Inspector) -> None:
    """A named route is used by a response below 400, and a tracked view with an error response has failed."""
    app = quart_app(features=FEATURES)
    get(app, "/v1/pages/200", "/v1/pages/404", "/v1/pages/500", users=["jane"])
    get(app, "/v1/pages/none", "/v1/pages/200")
    account = account_of("jane")
    assert events(inspector) == [("page", "jane", account), ("page_view", "jane", account)]
