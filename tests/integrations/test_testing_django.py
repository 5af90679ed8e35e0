"""capture_events in tests of a Django project, which have a process of their own: settings count once."""

from __future__ import annotations

from tests.conftest import run_python

TESTS = """
import sys, unittest
import django
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=__name__, SECRET_KEY="made up",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=["ts_autotrack.integrations.django.TrackingMiddleware"],
)
django.setup()
from django.http import HttpResponse
from django.test import TestCase
from django.test.utils import setup_databases, setup_test_environment
from django.urls import path
from ts_autotrack import bind_user, current_user, stats, track_feature
from ts_autotrack.testing import capture_events

@track_feature("report_view")
def report(request):
    bind_user("ann", group_id="acme")
    return HttpResponse("report")

@track_feature("report_view")
async def report_async(request):
    bind_user("bob", group_id="acme")
    return HttpResponse("report")

urlpatterns = [path("report", report), path("async", report_async)]

class BlockTests(TestCase):
    def setUp(self):
        capture = capture_events()
        self.events = capture.__enter__()
        self.addCleanup(capture.__exit__, None, None, None)

    def test_sync(self):
        self.client.get("/report")
        self.assertEqual(self.events.one("report_view").user_id, "ann")

    async def test_async(self):
        await self.async_client.get("/async")
        self.assertEqual(self.events.one("report_view").user_id, "bob")

@capture_events()
class DecoratedTests(TestCase):
    def test_events(self, events):
        self.client.get("/report")
        self.assertEqual([event.group_id for event in events.for_user("ann")], ["acme"])

    async def test_async_events(self, events):
        await self.async_client.get("/async")
        self.assertEqual(len(events), 1)

setup_test_environment()
setup_databases(verbosity=0, interactive=False)
result = unittest.main(exit=False, argv=["tests"]).result
print(result.testsRun, result.wasSuccessful(), stats().accepted, current_user().user_id)
"""


def test_test_cases_of_django() -> None:
    """Django's TestCase captures by setUp and as a decorated class, sync and async; nothing is left afterwards."""
    done = run_python(TESTS, THRIVESTACK_API_KEY="a-key-of-a-developer")
    assert done.stdout == "4 True 0 None\n", done.stderr
