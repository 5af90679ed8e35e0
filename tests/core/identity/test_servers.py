"""The warning for bind_user on the reused thread of a server or pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python

if TYPE_CHECKING:
    from tests.conftest import Inspector

PROGRAMS = {
    "pool": """
from concurrent.futures import ThreadPoolExecutor
from ts_autotrack import bind_user
with ThreadPoolExecutor(1) as pool:
    for user in "ab": pool.submit(bind_user, user).result()
""",
    "flask": """
import flask, io
from concurrent.futures import ThreadPoolExecutor
from ts_autotrack import bind_user
app = flask.Flask("app")
app.before_request(lambda: bind_user("u"))
def call(): app.test_client().get("/")
with ThreadPoolExecutor(1) as pool: pool.submit(call).result()
""",
    "alone": """
from ts_autotrack import bind_user
bind_user("u")
""",
    "inside": """
from concurrent.futures import ThreadPoolExecutor
from ts_autotrack import bind_user, request_scope, user_context
def scope():
    with request_scope(): bind_user("u")
def block():
    with user_context("u"): bind_user("v")
with ThreadPoolExecutor(1) as pool:
    pool.submit(scope).result()
    pool.submit(block).result()
""",
}


@pytest.mark.parametrize(
    ("program", "remedy"),
    [
        ("pool", "Add a `with request_scope():` block"),
        ("flask", "Add ts_autotrack.integrations.flask.Tracking(app)"),
        ("alone", ""),
        ("inside", ""),
    ],
)
def test_a_binding_that_outlives_its_request(inspector: Inspector, program: str, remedy: str) -> None:
    """A binding on a thread that serves other requests is explained once, with the integration to use."""
    code = PROGRAMS[program] + "\nimport ts_autotrack; ts_autotrack.flush()"
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("serves other requests") == bool(remedy), done.stderr
    assert remedy in done.stderr
