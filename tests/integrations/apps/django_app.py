"""A Django project in one module, for tests in process and for real servers: sync and async views, REST, streams.

`python -m tests.integrations.apps.django_app` makes the database: 50 users, and a session of each, signed in. The
header `X-User` chooses the session.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TRACKING = "ts_autotrack.integrations.django.TrackingMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
BACKEND = f"{__name__}.TrackedBackend"
CHOSEN = f"{__name__}.ChosenSession"
DATABASE = os.environ.get("DJANGO_APP_DATABASE") or f"{tempfile.mkdtemp()}/app.db"


class ChosenSession:
    """Middleware: the header `X-User` stands for the cookie of a signed-in user's session."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Choose the session of the user named by the header; read the body, or gunicorn closes the connection."""
        bytes(request.body)
        if user := request.headers.get("X-User"):
            request.META["HTTP_COOKIE"] = f"{settings.SESSION_COOKIE_NAME}={session_of(user)}"
        return self.get_response(request)


def session_of(user: str) -> str:
    """Return the key of a user's session."""
    return f"session{user}".replace("-", "")


def person(request: Any) -> dict[str, str] | None:
    """Return who acts, with account and plan; asks the database, if need be without `await`."""
    name = request.user.username
    return {"user_id": name, "group_id": f"account-{name}", "plan": f"plan-{name}"} if name else None


async def aperson(request: Any) -> dict[str, str] | None:
    """Return who acts, with account and plan; awaits the database."""
    name = (await request.auser()).username
    return {"user_id": name, "group_id": f"account-{name}", "plan": f"plan-{name}"} if name else None


settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE, "OPTIONS": {"timeout": 30}}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework.authtoken",
        "ts_autotrack.integrations.django.TrackingConfig",
    ],
    MIDDLEWARE=[TRACKING, CHOSEN, SESSION, AUTHENTICATION],
    TS_AUTOTRACK={"user": {"sync": person, "async": aperson, None: None}[os.environ.get("DJANGO_APP_USER")]},
)
django.setup()

from django.contrib.auth import aauthenticate, alogin, authenticate, login, logout  # noqa: E402
from django.contrib.auth.backends import ModelBackend  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.signals import request_finished  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections  # noqa: E402
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework.authentication import SessionAuthentication, TokenAuthentication  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from tests.integrations.load import USERS  # noqa: E402
from ts_autotrack import add_properties, track, track_feature  # noqa: E402


def close_connections(**_: object) -> None:
    """Close the thread's connections to the database after each request, as in a server's threads."""
    connections.close_all()


request_finished.connect(close_connections)


class TrackedBackend(ModelBackend):  # type: ignore[misc]  # Django has no types
    """Authentication backend that uses a feature to load a user."""

    @track_feature("load_user")
    def get_user(self, user_id: object) -> Any:
        """Load a user."""
        return super().get_user(user_id)

    @track_feature("load_user")
    async def aget_user(self, user_id: object) -> Any:
        """Load a user without a thread, as Django does from 5.2 on."""
        return await super().aget_user(user_id)


@track_feature("work")
def work(number: int) -> None:
    """Use the feature."""
    add_properties(number=number)


@track_feature("view")
def view(_request: Any, number: int) -> HttpResponse:
    """Answer with the status given by the number, from 400."""
    work(number)
    return HttpResponse("done", status=number if number >= 400 else 200)


async def aview(_request: Any, number: int) -> HttpResponse:
    """Do the same without a thread."""
    work(number)
    await asyncio.sleep(0.001)
    return HttpResponse("done")


def served(_request: Any, number: int) -> HttpResponse:
    """Answer with one event."""
    work(number)
    return HttpResponse("done")


def touch(request: Any, number: int) -> HttpResponse:
    """Load the user, before the first event."""
    request.user.get_username()
    return served(request, number)


async def loaded(request: Any, number: int) -> HttpResponse:
    """Load the user first."""
    await request.auser()
    return await aview(request, number)


def plain(_request: Any, number: int) -> HttpResponse:
    """Answer without an event."""
    return HttpResponse(str(number))


@track_feature("invalid")
def invalid(_request: Any) -> JsonResponse:
    """Answer that the input is invalid."""
    return JsonResponse({}, status=422)


def sign_in(request: Any) -> HttpResponse:
    """Sign in; the first event is earlier."""
    work(1)
    login(request, authenticate(request, username="user-1", password="pass"))
    work(2)
    return HttpResponse("welcome")


async def asign_in(request: Any) -> HttpResponse:
    """Sign in without a thread."""
    await request.auser()
    work(1)
    await alogin(request, await aauthenticate(request, username="user-1", password="pass"))
    work(2)
    return HttpResponse("welcome")


def sign_out(request: Any) -> HttpResponse:
    """Sign out; the first event is earlier."""
    work(1)
    logout(request)
    work(2)
    return HttpResponse("bye")


def delete(request: Any) -> HttpResponse:
    """Delete the user before the first event."""
    request.user.delete()
    work(1)
    return HttpResponse("bye")


def stream(_request: Any, number: int) -> StreamingHttpResponse:
    """Answer in parts, each with an event."""

    def parts() -> Iterator[str]:
        try:
            for _ in range(2):
                work(number)
                yield "part"
        finally:
            work(number)

    return StreamingHttpResponse(parts())


async def astream(_request: Any, number: int) -> StreamingHttpResponse:
    """Answer in parts, each with an event."""

    async def parts() -> AsyncIterator[str]:
        try:
            for _ in range(2):
                work(number)
                await asyncio.sleep(0)
                yield "part"
        finally:
            work(number)

    return StreamingHttpResponse(parts())


async def once(_request: Any, number: int) -> StreamingHttpResponse:
    """Answer in parts, with an event after the first."""

    async def parts() -> AsyncIterator[str]:
        yield "part"
        work(number)
        yield "part"

    return StreamingHttpResponse(parts())


def once_sync(_request: Any, number: int) -> StreamingHttpResponse:
    """Answer in parts, with an event after the first."""

    def parts() -> Iterator[str]:
        yield "part"
        work(number)
        yield "part"

    return StreamingHttpResponse(parts())


def file(_request: Any) -> FileResponse:
    """Answer with a file."""
    work(1)
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 - Django closes the file


async def cleanup(_request: Any) -> StreamingHttpResponse:
    """Answer in parts without an event; the events are at the end."""

    @track_feature("parts")
    async def parts() -> AsyncIterator[str]:
        try:
            for _ in range(2):
                yield "part"
        finally:
            await asyncio.sleep(0)
            track("feature_used", {"feature_name": "cleanup"})

    return StreamingHttpResponse(parts())


WAITS = asyncio.Event()


async def wait(_request: Any) -> HttpResponse:
    """Wait for the client to disconnect, after an event."""
    work(1)
    WAITS.set()
    await asyncio.Event().wait()
    return HttpResponse()


@track_feature("rest")
def rest(_request: Any, number: int) -> Response:
    """Answer with the status given by the number, from 400."""
    work(number)
    return Response({}, status=number if number >= 400 else 200)


def api(_request: Any, number: int) -> Response:
    """Answer with one event."""
    work(number)
    return Response({})


api_rest = api_view()(authentication_classes([SessionAuthentication])(api))
rest_view = api_view()(authentication_classes([TokenAuthentication, SessionAuthentication])(rest))

urlpatterns = [
    path("work/<int:number>", view),
    path("touch/<int:number>", touch),
    path("served/<int:number>", served),
    path("api/<int:number>", api_rest),
    path("async/<int:number>", aview),
    path("loaded/<int:number>", loaded),
    path("plain/<int:number>", plain),
    path("rest/<int:number>", rest_view),
    path("stream/<int:number>", stream),
    path("astream/<int:number>", astream),
    path("once/<int:number>", once),
    path("once-sync/<int:number>", once_sync),
    path("invalid", invalid),
    path("file", file),
    path("cleanup", cleanup),
    path("wait", wait),
    path("sign-in", sign_in),
    path("asign-in", asign_in),
    path("sign-out", sign_out),
    path("delete", delete),
]


def create_user(name: str) -> None:
    """Create a user of the password "pass", and the session of the user, signed in."""
    User.objects.create_user(name, password="pass", last_name=f"account-{name}")
    create_session(name)


def user_of(name: str) -> Any:
    """Return a user."""
    return User.objects.get(username=name)


def create_session(name: str, backend: str = "django.contrib.auth.backends.ModelBackend") -> None:
    """Create the session of a user, signed in by a backend."""
    user = user_of(name)
    data = {
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": backend,
        "_auth_user_hash": user.get_session_auth_hash(),
    }
    values = {"session_data": SessionStore().encode(data), "expire_date": timezone.now() + timedelta(days=1)}
    Session.objects.update_or_create(session_key=session_of(name), defaults=values)


@functools.cache
def prepare() -> None:
    """Make the database, once."""
    call_command("migrate", verbosity=0)
    for number in range(USERS):
        create_user(f"user-{number}")
    connections.close_all()


if __name__ == "__main__":
    prepare()


wsgi = get_wsgi_application()
asgi = get_asgi_application()
