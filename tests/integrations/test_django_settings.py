"""Django: the setting TS_AUTOTRACK, its system checks, and projects of other kinds."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import override_settings

from tests.conftest import run_python
from tests.integrations.apps.django_app import AUTHENTICATION, SESSION, TRACKING
from tests.integrations.django_requests import tracking
from ts_autotrack.integrations.django import TrackingMiddleware


class Own(TrackingMiddleware):
    """A project's own middleware."""


OWN = f"{__name__}.Own"


def respond(_request: Any) -> HttpResponse:
    """Answer."""
    return HttpResponse("done")


async def aperson(_request: Any) -> str:
    """Name a user."""
    return "user"


def found() -> list[Any]:
    """Return what the system checks say."""
    return checks.run_checks(tags=["ts_autotrack"])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("setting", "id", "message"),
    [
        ([], "E001", 'TS_AUTOTRACK is a list. Use a dict, such as {"group": "user.account_id"}.'),
        ({"grop": "a.b"}, "E002", "TS_AUTOTRACK has the unknown key 'grop'. Did you mean \"group\"?"),
        ({1: "a"}, "E002", "TS_AUTOTRACK has the unknown key 1. The keys are user, group, features, trust_baggage."),
        ({"user": 3}, "E003", 'TS_AUTOTRACK["user"] is 3. Use a path of attributes of the request, such as "user.pk"'),
        ({"group": "a..b"}, "E003", "TS_AUTOTRACK[\"group\"] is 'a..b'."),
        ({"group": "tenant.get()"}, "E003", "TS_AUTOTRACK[\"group\"] is 'tenant.get()'."),
        ({"features": ["x"]}, "E004", 'TS_AUTOTRACK["features"]'),
        ({"features": {"reports": "x"}}, "E004", "TS_AUTOTRACK[\"features\"]: features={'reports': ...}"),
        ({"features": {"GET x": ""}}, "E004", "TS_AUTOTRACK[\"features\"]: features={'GET /x': ''}"),
        ({"trust_baggage": "yes"}, "E005", "TS_AUTOTRACK[\"trust_baggage\"] is 'yes'. Use True or False."),
    ],
)
def test_a_mistake_in_the_setting(setting: object, id: str, message: str) -> None:  # noqa: A002 - Django's word
    """`manage.py check` names the mistake and what to do; a server does not start with it."""
    with override_settings(TS_AUTOTRACK=setting):
        (error,) = found()
        assert error.id == f"ts_autotrack.{id}"
        assert error.level == checks.ERROR
        assert f"{error.msg} {error.hint}".startswith(message)
        with pytest.raises(ImproperlyConfigured) as raised:
            TrackingMiddleware(respond)
        assert str(raised.value) == f"{error.msg} {error.hint}"


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"user": None, "group": None, "features": None},
        {"user": "user.username", "group": "tenant.slug"},
        {"user": respond, "group": aperson, "features": {"* /": "home"}, "trust_baggage": True},
    ],
)
def test_a_setting_without_mistakes(setting: dict[str, object]) -> None:
    """All keys are optional; paths and callables are right."""
    with tracking(**setting):
        assert found() == []
        assert TrackingMiddleware(respond) is not None


@pytest.mark.parametrize(
    ("middleware", "id", "hint"),
    [
        ([TRACKING], None, ""),
        ([SESSION, OWN, AUTHENTICATION], None, ""),
        ([SESSION], "W001", f'Add "{TRACKING}" to MIDDLEWARE, as its first entry.'),
        (["absent.module"], "W001", f'Add "{TRACKING}" to MIDDLEWARE, as its first entry.'),
        ([TRACKING, SESSION, TRACKING], "E006", "Keep the first entry."),
        ([TRACKING, OWN], "E006", "Keep the first entry."),
    ],
)
def test_the_middleware_is_there_once(middleware: list[str], id: str | None, hint: str) -> None:  # noqa: A002
    """The middleware, or a subclass, is listed once; `manage.py check` says if it is missing or listed twice."""
    with override_settings(MIDDLEWARE=middleware):
        assert [(each.id, each.hint) for each in found()] == ([(f"ts_autotrack.{id}", hint)] if id else [])


PROJECT = """
import asyncio, os, sys
from django.conf import settings
import django
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", MIDDLEWARE={middleware!r}, INSTALLED_APPS={apps!r},
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}, **{settings!r},
)
django.setup()
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path
from ts_autotrack import flush, stats, track
urlpatterns = []
{code}
"""

APP = "ts_autotrack.integrations.django.TrackingConfig"


def run_project(code: str, middleware: list[str], apps: list[str], **settings: object) -> str:
    """Run code in a project of its own; return standard output."""
    source = PROJECT.format(middleware=middleware, apps=apps, settings=settings, code=code)
    done = run_python(source, TS_AUTOTRACK_EXPORTER="console")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("app", [APP, "ts_autotrack.integrations.django"])
def test_manage_py_check_reaches_the_checks(app: str) -> None:
    """`manage.py check` fails on a mistake if the app is installed, by its configuration or by its module."""
    code = """
try:
    call_command("check")
except SystemExit as end:
    sys.exit(f"ended with {end.code}")
except django.core.management.CommandError as error:
    print(error)
"""
    output = run_project(code, [TRACKING], [app], TS_AUTOTRACK={"usr": "user.pk"})
    assert "(ts_autotrack.E002) TS_AUTOTRACK has the unknown key 'usr'" in output
    assert 'HINT: Did you mean "user"?' in output
    assert "no issues" in run_project(code, [TRACKING], [app], TS_AUTOTRACK={"user": "user.pk"})


def test_a_project_without_authentication() -> None:
    """Without django.contrib.auth nobody acts unless the project names the user."""
    code = """
from django.test import AsyncClient, Client
def view(request):
    track("used")
    return HttpResponse("done")
async def aview(request):
    return view(request)
urlpatterns += [path("s", view), path("a", aview)]
for name in ("s", "a"):
    assert Client().get("/" + name).content == b"done"
    assert asyncio.run(AsyncClient().get("/" + name)).content == b"done"
flush()
print("unattributed", stats().dropped.get("unattributed", 0))
"""
    assert "unattributed 4" in run_project(code, [TRACKING], [])
    output = run_project(code, [TRACKING], [], TS_AUTOTRACK={"user": "method", "group": "scheme"})
    assert "unattributed 0" in output
    assert output.count("used user=GET group=http") == 4


def test_a_custom_user_model() -> None:
    """A user model of the project's own acts by its primary key, whatever that is."""
    code = """
import types
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import connection, models
import uuid
class Member(AbstractBaseUser):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.TextField(unique=True)
    account_id = models.IntegerField(default=456)
    USERNAME_FIELD = "email"
    objects = BaseUserManager()
    class Meta:
        app_label = "members"
from django.test import AsyncClient, Client
def view(request):
    track("used")
    return HttpResponse("done")
async def aview(request):
    return view(request)
urlpatterns += [path("s", view), path("a", aview)]
member = Member(email="a@example.com", key=uuid.UUID(int=7))
def sign_in(get_response):
    def middleware(request):
        request.user = member
        return get_response(request)
    return middleware
for name in ("s", "a"):
    assert Client().get("/" + name).content == b"done"
    assert asyncio.run(AsyncClient().get("/" + name)).content == b"done"
flush()
"""
    output = run_project(
        code,
        [TRACKING, "__main__.sign_in"],
        ["django.contrib.contenttypes"],
        TS_AUTOTRACK={"group": "user.account_id"},
    )
    assert output.count("used user=00000000-0000-0000-0000-000000000007 group=456") == 4
