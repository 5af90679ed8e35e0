"""A shop of reports in Django, in one module: the middleware and one setting name the user of every event."""

import os

import django
from django.conf import settings
from django.contrib.auth import login
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import path

from ts_autotrack import track_feature

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "an example"),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "example.db")}},
    INSTALLED_APPS=[
        *("django.contrib.auth", "django.contrib.contenttypes"),
        "ts_autotrack.integrations.django.TrackingConfig",
    ],
    MIDDLEWARE=[
        "ts_autotrack.integrations.django.TrackingMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TS_AUTOTRACK={"group": "user.last_name", "features": {"POST /reports/<int:number>/export": "report_export"}},
)
django.setup()
from django.contrib.auth.models import User  # noqa: E402 - needs the settings


@track_feature("sign_in")
def sign_in(request: HttpRequest, name: str) -> JsonResponse:
    """Sign in, without a password: the event belongs to the user who has signed in."""
    user, _ = User.objects.get_or_create(username=name, last_name="acme")
    login(request, user)
    return JsonResponse({"welcome": name})


@track_feature("report_view")
def report(_request: HttpRequest, number: int) -> JsonResponse:
    """Show a report; an answer of 404 is no use of the feature."""
    if number > 2:  # noqa: PLR2004 - there are two
        raise Http404
    return JsonResponse({"report": number})


urlpatterns = [
    path("sign-in/<name>", sign_in),
    path("reports/<int:number>", report),
    path("reports/<int:number>/export", lambda _request, number: JsonResponse({"exported": number})),
]
application = get_wsgi_application()
if __name__ == "__main__":
    execute_from_command_line()
