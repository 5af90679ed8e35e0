"""Whole programs whose code is left alone, as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import ts_autotrack

pytestmark = pytest.mark.slow

ACTIVATION = "import ts_autotrack.auto\n"
APP = """
import functools, sys
from ts_autotrack import user_context
def plain(function):
    @functools.wraps(function)
    def inner(): return function()
    return inner
def buy(): return 1
@plain
def pay(): return 2
class Order:
    def send(self): return 3
def main():
    import store.views
    with user_context("user_1", group_id="account_1"):
        print(buy(), pay(), Order().send(), store.views.show(), flush=True)
if __name__ == "__main__":
    main()
"""
FEATURES = "__main__:buy=buy;__main__:pay=pay;__main__:Order.send=send;store.views:show=show"


class Project:
    """A folder with a program, and a folder whose sitecustomize activates the library as the launcher does.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("site/sitecustomize.py", ACTIVATION)
        self.write("store/__init__.py", "")
        self.write("store/views.py", "def show(): return 4\n")

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(self, *arguments: str, launched: bool = True, **settings: str) -> tuple[list[str], str, str]:
        """Run Python, and return the names of the features used, the output and the error output."""
        sent = self.folder / "events.jsonl"
        sent.unlink(missing_ok=True)
        own = ("TS_AUTOTRACK", "THRIVESTACK")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        paths = [str(Path(ts_autotrack.__file__).parent.parent), str(self.folder)]
        environment["PYTHONPATH"] = os.pathsep.join(([str(self.folder / "site")] if launched else []) + paths)
        values = {"EXPORTER": "jsonl", "JSONL_PATH": str(sent), "FEATURES": FEATURES, "INTEGRATIONS": "off", **settings}
        environment.update({f"TS_AUTOTRACK_{name}": value for name, value in values.items()})
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = sent.read_text().splitlines() if sent.exists() else []
        items: list[dict[str, Any]] = [json.loads(line)["item"] for line in lines]
        assert all(item["user_id"] == "user_1" for item in items)
        return [item["properties"]["feature_name"] for item in items], done.stdout, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A program, and the launcher's folder."""
    return Project(tmp_path)


USED = (["buy", "pay", "send", "show"], "1 2 3 4\n", "")


def test_program_is_tracked_in_every_form(project: Project) -> None:
    """A script, a module, a package, a text: functions of `__main__` and of modules count, and nothing is said."""
    project.write("app.py", APP)
    project.write("store/app.py", APP)
    project.write("store/__main__.py", APP)
    for command in (["app.py"], ["-m", "app"], ["-m", "store.app"], ["-m", "store"], ["-c", APP]):
        assert project.run(*command) == USED, command


WORKERS = """
import multiprocessing, sys
from ts_autotrack import user_context
def buy(): return 1
def work(number):
    with user_context("user_1"):
        return buy()
def main():
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(sum(pool.map(work, range(5))))
        pool.close()
        pool.join()
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("start_method", ["spawn", "forkserver", "fork"])
def test_main_is_tracked_in_children_of_multiprocessing(project: Project, start_method: str) -> None:
    """Functions of `__main__` that run in a pool's workers count, and the helpers of multiprocessing say nothing."""
    project.write("app.py", WORKERS)
    assert project.run("app.py", start_method, FEATURES="__main__:buy=buy") == (["buy"] * 5, "5\n", "")


def test_first_line_of_a_program_is_enough(project: Project) -> None:
    """`import ts_autotrack.auto` as the first line of a script, or of its package, tracks the functions below it."""
    project.write("app.py", ACTIVATION + ACTIVATION + APP)
    assert project.run("app.py", launched=False) == USED
    assert project.run("app.py") == USED, "the launcher and the line together"
    project.write("store/__init__.py", ACTIVATION + "def look(): return 5\n")
    project.write(
        "late.py", "import store, ts_autotrack\nwith ts_autotrack.user_context('user_1'): print(store.look())\n"
    )
    assert project.run("late.py", launched=False, FEATURES="store:look=look") == (["look"], "5\n", "")


def test_program_with_mistakes_runs_as_without_the_launcher(project: Project) -> None:
    """Wrong names are one warning for each module, an exception of the program ends it as ever."""
    project.write("app.py", APP.replace("if __name__", "print(len(sys.argv)); 1 / 0\nif __name__"))
    features = "__main__:bye=a;store.views:show=b;store.wiews:show=c;elsewhere:x=d;bad=;store.views:buy"
    used, output, errors = project.run("app.py", FEATURES=features)
    assert (used, output) == ([], "1\n")
    assert "TS_AUTOTRACK_FEATURES: 'bad': expected the name of the feature" in errors
    assert "TS_AUTOTRACK_FEATURES: 'store.views:buy': expected \"name=feature\"" in errors
    assert errors.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "elsewhere" not in errors
    project.write("app.py", APP)
    used, output, errors = project.run("app.py", FEATURES=features.partition(";bad")[0])
    assert (used, output) == (["b"], USED[1])
    assert [line.rpartition("ts_autotrack: ")[2] for line in errors.splitlines()] == [
        (
            "the setting features has names without effect: "
            "'__main__:bye': the module __main__ has no 'bye': did you mean 'buy'?"
        ),
        "the setting features names modules that do not exist: store.wiews:show",
    ]


def test_program_that_another_tool_runs_is_a_warning(project: Project) -> None:
    """Functions of a program that coverage or a profiler runs are not seen, which a warning says once, at the end."""
    project.write("app.py", APP)
    profiler = ["cProfile", "-o", os.devnull]
    for tool in (
        ["coverage", "run", "app.py"],
        [*profiler, "app.py"],
        [*profiler, "-m", "app"],
        ["pdb", "-c", "continue", "app.py"],
    ):
        used, output, errors = project.run("-m", *tool)
        assert (used, USED[1] in output) == (["show"], True), tool
        assert errors.count("functions of the program itself were not tracked") == 1, tool
        assert "__main__:buy; __main__:pay; __main__:Order.send" in errors, tool
    project.write("app.py", "print(1)\n")
    assert project.run("-m", "cProfile", "-o", os.devnull, "app.py") == ([], "1\n", ""), "defines none of them"


def test_inactive_library_hooks_nothing(project: Project) -> None:
    """With the exporter "none", or disabled, no import hook is installed, and no function is touched."""
    show = (
        "import sys; from store.views import show; from ts_autotrack import is_tracked; "
        "print(is_tracked(show), 'ImportHooks' in [type(finder).__name__ for finder in sys.meta_path], "
        "'ts_autotrack.integrations' in sys.modules)"
    )
    assert project.run("-c", show, EXPORTER="none") == ([], "False False False\n", "")
    assert project.run("-c", show, DISABLED="1") == ([], "False False False\n", "")
    assert project.run("-c", show)[1] == "True True False\n"


def test_foreign_program_is_left_alone(project: Project) -> None:
    """A program that imports nothing of the application, such as pip, runs under the launcher without a word."""
    assert project.run("-m", "pip", "--version")[2] == ""
    assert project.run("-c", "pass", FEATURES="store.wiews:x=x;nowhere:y=y") == ([], "", "")
    tools = (
        "import sys; print(sys.gettrace(), *map(getattr(sys, 'monitoring', sys).__dict__.get('get_tool', str), (3, 5)))"
    )
    shown = project.run("-c", tools, FEATURES="__main__:other=x", EXPORTER="console")[1]
    assert shown in ("None None None\n", "None 3 5\n"), "no tool watches a program that defines nothing awaited"


def test_broken_module_fails_as_ever(project: Project) -> None:
    """A module that raises at its import raises the same under the launcher, with the same traceback."""
    project.write("store/views.py", "def show(): return missing\nshow()\n")
    launched, bare = (project.run("-c", "import store.views", launched=flag)[2] for flag in (True, False))
    assert "NameError: name 'missing' is not defined" in bare
    assert launched == bare


def test_frameworks_and_users_need_no_code(project: Project) -> None:
    """The launcher activates the framework that the program imports, with the named routes and the named user.

    A user that cannot be found is one warning, and nobody acts.
    """
    project.write("store/auth.py", "def user(): return ('user_1', 'account_1')\n")
    project.write(
        "app.py",
        """
        import flask
        app = flask.Flask("app")
        @app.get("/items/<int:number>")
        def item(number): return str(number)
        @app.get("/show")
        def show():
            import store.views
            return str(store.views.show())
        client = app.test_client()
        print(client.get("/items/7").text, client.get("/items/x").status_code, client.get("/show").text)
        """,
    )
    features = "GET /items/<int:number>=item_view;store.views:show=show"
    found = project.run("app.py", FEATURES=features, INTEGRATIONS="all,threads", USER="store.auth:user")
    assert found == (["item_view", "show"], "7 404 4\n", "")
    used, output, errors = project.run("app.py", FEATURES=features, INTEGRATIONS="Flask", USER="store.auth:usr")
    assert (used, output) == ([], "7 404 4\n")
    assert errors.count("TS_AUTOTRACK_USER='store.auth:usr' could not be loaded") == 1
