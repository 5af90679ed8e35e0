"""Automatic integrations as a whole: a program that imports every framework, and the function that names the user."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python
from ts_autotrack.integrations._resolver import NamedUser, with_argument, with_argument_later, without_argument

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys, wrapt
from ts_autotrack.integrations import _automatic

assert not {"ua_parser", "flask", "celery", "click"} & set(sys.modules)
results = {}

def activate_at_import(name, module):
    wrapt.register_post_import_hook(lambda _: results.update({name: _automatic.activate(name, FEATURES)}), module)

FEATURES = {"GET /reports": {"feature": "report_view"}, "tasks.export": {"feature": "export"}}
for name, module in _automatic.FRAMEWORKS.items():
    if name != "threads":
        activate_at_import(name, module)

import celery  # as `python -m celery` does, before gevent patches what kombu imports
assert not {"kombu", "threading"} & set(results) and "kombu" not in sys.modules
from celery import shared_task
from flask import Flask
import aiohttp.web, click, django.core.wsgi, dramatiq, fastapi, faststream, grpc, litestar, mcp.server, quart, rq
import strawberry, taskiq, typer
if sys.version_info >= (3, 11):
    from fastmcp import FastMCP

missing = set(_automatic.FRAMEWORKS) - set(results) - {"threads"}
assert missing <= ({"fastmcp"} if sys.version_info < (3, 11) else set()), missing
print({name: why for name, why in results.items() if why is not None})
"""


@pytest.mark.slow
def test_each_framework_is_tracked_when_it_is_imported() -> None:
    """No integration meets a half-imported framework, and none is imported before its framework."""
    done = run_python(PROGRAM)
    assert (done.stdout, done.stderr) == ("{}\n", "")


def test_function_is_found_by_the_first_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is imported when the first event asks, and once; the argument is given to a function that needs it."""
    (tmp_path / "own_auth.py").write_text(
        "class Users:\n    @staticmethod\n    def of(request): return request\n"
        "def nobody(): return 'constant'\n"
        "async def coming(): return 'awaited'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    later = with_argument_later(NamedUser("own_auth:Users.of"))
    assert "own_auth" not in sys.modules
    assert later is not None
    assert later("ann") == "ann"
    plain = NamedUser("own_auth:nobody")
    given = with_argument(plain)
    assert given is not None
    assert given("ann") == plain() == "constant"
    assert without_argument(NamedUser("own_auth:Users.of")) is None
    assert without_argument(NamedUser("own_auth:coming")) is None


@pytest.mark.parametrize("target", ["missing_module:function", "sys:missing", "sys:maxsize"])
def test_function_that_cannot_be_loaded_is_nobody(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the setting raises nothing into the application, and is told once."""
    user = NamedUser(target)
    ask = with_argument(user)
    assert ask is not None
    assert [ask("request"), user(), user()] == [None, None, None]
    assert caplog.text.count("TS_AUTOTRACK_USER") == 1
