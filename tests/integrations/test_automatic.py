"""Automatic integrations as a whole: a program that imports every framework, and the function that names the user."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from ts_autotrack.integrations._named_user import NamedUser, with_argument, with_argument_later, without_argument

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


def test_module_that_asks_during_its_import_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event while the function's module is being imported has no user from there; later events have."""
    (tmp_path / "busy_auth.py").write_text(
        "import sys\nearly = [ask('request') for ask in sys.asks]\ndef who(request): return 'ann'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    user = NamedUser("busy_auth:who")
    later = with_argument_later(user)
    early: list[Any] = []

    def from_the_start(argument: str) -> Any:
        early.append(with_argument(user))
        return early[0](argument)

    monkeypatch.setattr(sys, "asks", [lambda _: user(), later, from_the_start], raising=False)
    last = with_argument(user)
    assert sys.modules["busy_auth"].early == [None, None, None]
    assert later is not None
    assert last is not None
    assert user.load()("request") == last("request") == later("request") == early[0]("request") == "ann"


MEETING = """
import sys, threading
from ts_autotrack.integrations._named_user import NamedUser

user = NamedUser("own_auth:who")
importing, asking = threading.Event(), threading.Event()
sys.meeting = importing, asking, user
importer = threading.Thread(target=__import__, args=("own_auth",))
importer.start()
importing.wait()
asker = threading.Thread(target=lambda: (asking.set(), print(user())))
asker.start()
importer.join()
asker.join()
"""


def test_threads_that_import_and_ask_never_wait_for_each_other(tmp_path: Path) -> None:
    """One thread imports the module, whose code asks for the user; another one asks, and so waits for the import."""
    (tmp_path / "own_auth.py").write_text(
        "import sys\nimporting, asking, user = sys.meeting\nimporting.set(); asking.wait()\n"
        "for _ in range(20_000): user()\ndef who(): return 'ann'\n"
    )
    done = run_python(MEETING, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) in [("ann\n", ""), ("None\n", "")]


def test_script_is_not_run_a_second_time(tmp_path: Path) -> None:
    """The function may be in the file that Python was started with: the file does not run a second time."""
    script = tmp_path / "own_script.py"
    script.write_text(
        "from ts_autotrack.integrations._named_user import NamedUser\nprint('started')\n"
        "user = 'nobody'\ndef who(): return user\nuser = 'ann'\nprint(NamedUser('own_script:who')())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("started\nann\n", "")


def test_module_that_exits_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A script that ends by `sys.exit` does not end the request that asks."""
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert NamedUser("exits:who")() is None
    assert "could not be loaded (SystemExit: 3)" in caplog.text


def test_function_of_two_arguments_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No integration has two arguments to give: the warning names the function and says so."""
    (tmp_path / "two_arguments.py").write_text("def who(session, request): return 'ann'\n")
    monkeypatch.syspath_prepend(tmp_path)
    ask = with_argument(NamedUser("two_arguments:who"))
    assert ask is not None
    assert ask("request") is None
    assert "'two_arguments:who' could not be loaded (it needs other arguments than one or none)" in caplog.text


@pytest.mark.parametrize("target", ["missing_module:function", "sys:missing", "sys:maxsize"])
def test_function_that_cannot_be_loaded_is_nobody(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the setting raises nothing into the application, and is told once."""
    user = NamedUser(target)
    ask = with_argument(user)
    assert ask is not None
    assert [ask("request"), user(), user()] == [None, None, None]
    assert caplog.text.count("TS_AUTOTRACK_USER") == 1
