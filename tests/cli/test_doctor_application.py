"""`ts-autotrack doctor` and the application's code: real small applications, imported in a child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ScriptedServer, wait_until
from ts_autotrack.cli import main
from ts_autotrack.cli.doctor.application import check_application
from ts_autotrack.cli.doctor.command import Command, parse

if TYPE_CHECKING:
    from ts_autotrack.cli.doctor.findings import Finding

pytestmark = pytest.mark.slow

FASTAPI = """
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from ts_autotrack import track_feature
from ts_autotrack.integrations.asgi import TrackingMiddleware

app = FastAPI()
app.add_middleware(TrackingMiddleware)
app.add_middleware(GZipMiddleware)

@track_feature("above", capture=["x"])
@app.get("/above")
def above(x: int = 1): ...

@app.get("/below")
@track_feature("below", capture=["x"])
def below(x: int = 1): ...

async def export(): ...

class Reports:
    def show(self): ...

@app.post("/named")
async def named(): ...

here = 1
print("noise on standard output", flush=True)
"""
FEATURES = """
user = "myapp:export"
[features]
"myapp:export" = "report_export"
"myapp:Reports.show" = "report_view"
"myapp:exprot" = "typo"
"myapp:here" = "no_function"
"myapp:named" = "named"
"GET /below" = "below_view"
"task.of.nobody" = "task"
"nowhere:function" = "no_module"
"__main__:job" = "main_job"
"""
DJANGO = """
SECRET_KEY = "x"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "ts_autotrack.integrations.django.TrackingMiddleware"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of an application."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(findings: list[Finding], check: str) -> dict[str, str]:
    """Return the facts of a check by level."""
    found = [finding for finding in findings if finding.check == check]
    return {finding.level: "\n".join(f.seen for f in found if f.level == finding.level) for finding in found}


def test_command_of_a_runner_with_variables_and_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uv run`, files with variables and `--chdir` count as in the application: its settings, imports and folder."""
    monkeypatch.setenv("VIRTUAL_ENV", "")
    commands, source = folder / ".venv" / "bin", folder / "src"
    commands.mkdir(parents=True)
    source.mkdir()
    (commands / "gunicorn").write_text(f"#!{sys.executable}\n")
    (commands / "gunicorn").chmod(0o755)
    (source / "data").touch()
    (source / "served.py").write_text("open('data')\ndef app(): ...\n")
    (folder / "a.env").write_text("TS_AUTOTRACK_FEATURES=served:app=of_a\nTS_AUTOTRACK_EXPORTER=memory\n")
    (folder / "b.env").write_text("TS_AUTOTRACK_FEATURES=served:app=of_b\n")
    server = ["uv", "run", "gunicorn", "--chdir", "src", "served:app"]
    run = ["ts-autotrack", "run", "--env-file", "b.env", "--"]
    assert main(["doctor", "--json", "--env-file", "a.env", "--", *run, *server]) == 0
    found = [row["seen"] for row in json.loads(capsys.readouterr().out)["findings"]]
    assert "the import of served works" in found
    assert any(seen.startswith("served:app = of_b: function") for seen in found), found
    assert main(["doctor", "--env-file", "missing.env"]) == 1
    assert "--env-file missing.env cannot be read" in capsys.readouterr().out


def test_application_of_fastapi(folder: Path) -> None:
    """Named functions, the place of the middleware and a decorator above a route are checked in one application."""
    (folder / "myapp.py").write_text(FASTAPI)
    (folder / "ts_autotrack.toml").write_text(FEATURES)
    (folder / "main.py").write_text("raise SystemExit('a script is not run')\n")
    found = check_application(parse([sys.executable, "main.py", "myapp:app"]), sys.executable)
    mechanism = "watched in place" if sys.version_info >= (3, 12) else "wrapped"
    targets = texts(found, "target")
    assert f"myapp:export = report_export: coroutine function, {mechanism}" in targets["ok"]
    assert f"myapp:Reports.show = report_view: function, {mechanism}" in targets["ok"]
    assert "did you mean 'export'" in targets["error"]
    assert "myapp:here = no_function: not callable" in targets["error"]
    assert "nowhere:function = no_module: waiting" in targets["error"]
    assert "__main__:job" in targets["note"]
    assert "is inside GZipMiddleware" in texts(found, "middleware")["note"]
    assert "myapp:above is decorated above" in texts(found, "decorators")["error"]
    assert "myapp:below" not in texts(found, "decorators")["error"]
    assert ("myapp:named is named" in texts(found, "decorators")["error"]) is (sys.version_info < (3, 12))
    assert "task.of.nobody = task: no integration" in targets["warning"]
    assert "GET /below" not in targets["warning"]
    assert "the integration fastapi is active" in texts(found, "integrations")["ok"]
    assert "user = myapp:export gets no argument, not even an optional one" in texts(found, "user")["ok"]
    assert "count only in a program that activates them" in texts(found, "launcher")["warning"]
    assert "the import of nowhere failed: ModuleNotFoundError" in texts(found, "application")["error"]
    assert "main is the program itself" not in str(found)


def test_applications_that_break(folder: Path) -> None:
    """A crash, an exit and an endless import are a finding each; earlier findings stay."""
    (folder / "crash.py").write_text("import os; os._exit(3)\n")
    (folder / "leave.py").write_text("import sys; sys.exit('needs a database')\n")
    (folder / "server.py").write_text("import threading; threading.Event().wait()\n")
    crashed = check_application(Command(modules=("leave", "crash")), sys.executable)
    errors = texts(crashed, "application")["error"]
    assert "the import of leave failed: SystemExit: needs a database" in errors
    assert "the import of crash ended the process with status 3" in errors
    hung = check_application(Command(modules=("server",)), sys.executable, 4)
    assert "the import of server did not end within 4 s" in texts(hung, "application")["error"]
    assert texts(hung, "installation")


def test_project_of_django(folder: Path) -> None:
    """MIDDLEWARE and named routes are checked with the settings that manage.py names."""
    (folder / "shop").mkdir()
    (folder / "ts_autotrack.toml").write_text('[features]\n"GET /admin/" = "admin"\n"a.task" = "task"\n')
    (folder / "shop" / "settings.py").write_text(DJANGO)
    (folder / "manage.py").write_text('setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n')
    found = check_application(parse([sys.executable, "manage.py", "runserver"]), sys.executable)
    assert "TrackingMiddleware is number 2" in texts(found, "middleware")["note"]
    assert "django.setup() works" in texts(found, "application")["ok"]
    assert "the integration django is active" in texts(found, "integrations")["ok"]
    assert texts(found, "target") == {"warning": "a.task = task: no integration is active here that knows such a name"}


def test_script_whose_imports_are_unknown(folder: Path) -> None:
    """A script is not run, so nothing is said against the routes, tasks and commands that only its imports tell."""
    (folder / "ts_autotrack.toml").write_text('user = "resolvers:who"\n[features]\n"nightly" = "nightly"\n')
    (folder / "resolvers.py").write_text("def who(request): ...\n")
    (folder / "cron.py").write_text("import click\n")
    found = check_application(parse([sys.executable, "cron.py", "nightly"]), sys.executable)
    assert texts(found, "target") == {"note": "nightly = nightly: not checked, because cron.py is not run here"}
    assert "user = resolvers:who gets what the integration has, such as the request" in texts(found, "user")["ok"]


def test_integrations_that_the_code_adds(folder: Path) -> None:
    """An integration that the application's own code adds needs no further lines."""
    (folder / "shop").mkdir()
    (folder / "shop" / "settings.py").write_text(DJANGO)
    (folder / "manage.py").write_text('setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n')
    (folder / "tasks.py").write_text(
        "import typer\nfrom ts_autotrack.integrations import asgi, celery\nfrom celery import Celery\nimport fastapi\n"
    )
    found = check_application(
        parse([sys.executable, "manage.py", "runserver"])._replace(modules=("tasks",)), sys.executable
    )
    named = texts(found, "integrations")
    for name, module in (("django", "django"), ("celery", "celery"), ("fastapi", "asgi")):
        assert f"the application's code names ts_autotrack.integrations.{module} for {name}" in named["ok"]
    assert "typer is imported; its integration needs its lines of code" in named["note"]


def test_application_of_flask(folder: Path) -> None:
    """Below the launcher an application without the extension is tracked; a thread of an import holds nothing up."""
    (folder / "shop.py").write_text(
        "import threading, flask\napp = flask.Flask('shop')\nthreading.Thread(target=threading.Event().wait).start()\n"
    )
    command = Command(sys.executable, sys.executable, modules=("shop",))
    assert "has no extension" in texts(check_application(command, sys.executable), "middleware")["note"]
    found = check_application(command._replace(launched=True), sys.executable)
    assert "requests of shop:app are tracked" in texts(found, "middleware")["ok"]
    assert "`ts-autotrack run` activates" in texts(found, "launcher")["ok"]


def test_python_without_the_library(folder: Path) -> None:
    """An interpreter without this library is named."""
    plain = folder / "python3"
    plain.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ts_autotrack'\" >&2; exit 1\n")
    plain.chmod(0o755)
    (found,) = check_application(parse([str(plain), "-m", "myapp"]), str(plain))
    assert (found.level, "has no ts_autotrack" in found.seen) == ("error", True)


def test_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints aligned text or one JSON document, tells by its exit status, and changes no file."""
    (folder / "myapp.py").write_text(
        "import os\nfrom ts_autotrack import track, configure\n"
        "track('at_import', user_id='user_123')\n"
        "if os.environ.get('BREAK'): raise ValueError('caf\\u00e9 \\033[31m')\n"
    )
    with closing(ScriptedServer()) as server:
        monkeypatch.setenv("THRIVESTACK_ENDPOINT", server.endpoint)
        monkeypatch.setenv("TS_AUTOTRACK_OUTBOX", str(folder / "outbox"))
        assert main(["doctor", "--", sys.executable, "-m", "uvicorn", "myapp:app"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {line[:8].strip() for line in lines[:-1]} <= {"ok", "note", "warning", ""}
        monkeypatch.setenv("BREAK", "1")
        assert main(["doctor", "--json", "--", sys.executable, "-m", "uvicorn", "myapp:app"]) == 1
        output = capsys.readouterr().out
        assert output.isascii()
        document = json.loads(output)
        assert document.keys() == {"version", "findings", "ok"}
        assert document["ok"] is False
        (broken,) = (finding for finding in document["findings"] if finding["level"] == "error")
        assert broken["check"] == "application"
        assert "ValueError: caf\u00e9 \\x1b[31m" in broken["seen"]
        assert [request.items for request in server.requests] == [[], []]
    assert [path.name for path in folder.iterdir()] == ["myapp.py"]


def test_wrong_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option or process id has the status 2; a missing program is an error that names it."""
    for arguments in (["--pid", "x"], ["--pid", "0"], ["--unknown"]):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        assert ended.value.code == 2
    assert main(["doctor", "--", "no-such-program"]) == 1
    assert "there is no program no-such-program" in capsys.readouterr().out


STARTED = """
import os, pathlib, subprocess, sys, time
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(os.environ["STARTED"]).write_text(f"{os.getpid()} {own.pid}")
time.sleep(600)
"""


def has_ended(process: int) -> bool:
    """Return True if a process has ended, or is only waited for by its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_nothing_goes_on_after_a_signal(tmp_path: Path) -> None:
    """SIGTERM ends the command, the child that imports, and a process that the import has put into its own session."""
    (tmp_path / "endless.py").write_text(STARTED)
    started = tmp_path / "started"
    variables = {"STARTED": str(started), "TS_AUTOTRACK_EXPORTER": "none", "TS_AUTOTRACK_USER": "endless:f"}
    command = [sys.executable, "-m", "ts_autotrack.cli", "doctor"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **variables}, stdout=subprocess.DEVNULL) as doctor:
        wait_until(lambda: started.exists() and started.read_text(), "the import")
        doctor.terminate()
    assert doctor.returncode == 128 + signal.SIGTERM
    wait_until(lambda: all(has_ended(int(process)) for process in started.read_text().split()), "their ends")


def test_removed_interpreter() -> None:
    """A program whose first line names a Python that was removed is an error that names this Python."""
    (found,) = check_application(Command(program="gunicorn"), "/nonexistent/bin/python3")
    assert (found.level, found.seen) == (
        "error",
        "/nonexistent/bin/python3 cannot be started: No such file or directory",
    )


STARTS_OTHERS = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", "import ts_autotrack; ts_autotrack.track('e', user_id='u')"], check=True)
if not (child := os.fork()):
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""


def test_processes_of_an_import(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that an import starts or forks write no events into the application's file, and report nothing."""
    (folder / "starter.py").write_text(STARTS_OTHERS)
    monkeypatch.setenv("TS_AUTOTRACK_JSONL_PATH", str(folder / "events.jsonl"))
    found = check_application(parse([sys.executable, "-m", "uvicorn", "starter:app"]), sys.executable)
    assert [finding.seen for finding in found if finding.check == "application"] == ["the import of starter works"]
    assert not (folder / "events.jsonl").exists()
