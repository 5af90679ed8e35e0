"""`ts-autotrack doctor -- COMMAND`: the interpreter, the modules and the launcher in a command, without running it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ts_autotrack.cli.doctor.application import check_command
from ts_autotrack.cli.doctor.checkup import checkup
from ts_autotrack.cli.doctor.command import Command, parse

if TYPE_CHECKING:
    from pathlib import Path


def executable(path: Path, head: str) -> str:
    """Write a program."""
    path.write_text(head)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("head", "python", "options"),
    [
        ("#!/opt/app/bin/python3.12\n", "/opt/app/bin/python3.12", ()),
        ("#!/opt/app/bin/python3 -sE\n", "/opt/app/bin/python3", ("-sE",)),
        ("#!/bin/sh\n'''exec' \"/opt/long path/bin/python\" \"$0\" \"$@\"\n' '''\n", "/opt/long path/bin/python", ()),
        ("#!/bin/sh\necho\n", "", ()),
        ("\x7fELF", "", ()),
    ],
)
def test_interpreter_of_a_program(head: str, python: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """The first lines of a program name its interpreter; a binary and a shell script have none."""
    command = parse([executable(tmp_path / "gunicorn", head), "app:make()"])
    assert (command.python, command.options, command.modules) == (python, options, ("app",))
    assert {finding.level for finding in check_command(command)} == (
        {"note"} if not python else {"warning"} if options else set()
    )


def test_env_finds_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env python3` is the first one on PATH, as a shell finds it."""
    executable(tmp_path / "python3", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert parse([executable(tmp_path / "tool", "#!/usr/bin/env python3\n")]).python == str(tmp_path / "python3")


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        ("gunicorn -k uvicorn.workers.UvicornWorker -b localhost:8000 myapp", ("myapp",)),
        ("gunicorn -w 2 myapp.wsgi:application", ("myapp.wsgi",)),
        ("gunicorn --preload myapp", ("myapp",)),
        ("gunicorn -c gunicorn.conf.py", ()),
        ("dramatiq myapp.broker myapp.tasks --processes 2 --watch src", ("myapp.broker", "myapp.tasks")),
        ("uvicorn --host 127.0.0.1 --factory myapp.main:make", ("myapp.main",)),
        ("celery -A proj worker", ("proj",)),
        ("celery --app=proj.celery worker", ("proj.celery",)),
        ("flask --app hello.py run", ("hello",)),
        ("flask run", ()),
    ],
)
def test_modules(arguments: str, modules: tuple[str, ...], tmp_path: Path) -> None:
    """The module of the application is found in the arguments of servers and workers."""
    name, *rest = arguments.split()
    command = parse([executable(tmp_path / name, f"#!{sys.executable}\n"), *rest])
    assert command.modules == modules
    assert parse([sys.executable, "-m", name, *rest]).modules == modules


def test_options_of_python(tmp_path: Path) -> None:
    """Options of the interpreter end at the script; the options that ignore the launcher are a warning."""
    script = tmp_path / "app.py"
    script.touch()
    command = parse([sys.executable, "-X", "dev", "-W", "error", "-E", str(script), "-I"])
    assert command.options == ("-X", "dev", "-W", "error", "-E")
    assert (command.script, command.folder) == (str(script), str(tmp_path))
    assert "option -E" in next(check_command(command)).seen
    assert parse([sys.executable, "-Im", "gunicorn", "app:app"])[2:5] == (("-I",), "", ("app",))
    assert list(check_command(parse([sys.executable, "-X", "importtime", str(script)]))) == []


def test_launcher_and_django(tmp_path: Path) -> None:
    """`ts-autotrack run` in front is seen and left out; manage.py names Django's settings."""
    manage = tmp_path / "manage.py"
    manage.write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n")
    rest = [sys.executable, str(manage), "runserver"]
    plain = parse(rest)
    assert (plain.django, plain.launched) == ("shop.settings", False)
    for launcher, files in (
        (["run"], ()),
        (["run", "--"], ()),
        (["run", "--env-file", "x", "--"], ("x",)),
        (["run", "--env-file=x", "--env-file", "y"], ("x", "y")),
    ):
        command = parse(["/opt/ts-autotrack", *launcher, *rest])
        assert command == plain._replace(launched=True, env_files=files)
    assert parse(["no-such-program"]) == Command(name="no-such-program")


@pytest.mark.parametrize(
    "runner",
    [
        "poetry run",
        "uv run",
        "uv run --with rich -p 3.12 --no-sync --",
        "/usr/bin/uv --project . run --group=web",
        "pipenv run",
        "pdm run -p .",
        "ts-autotrack run -- poetry run",
        "poetry run ts-autotrack run",
    ],
)
def test_runners(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in the project's environment is looked for in `.venv`, from the working directory upwards."""
    commands, below = tmp_path / ".venv" / "bin", tmp_path / "src"
    commands.mkdir(parents=True)
    below.mkdir()
    gunicorn = executable(commands / "gunicorn", "#!/opt/app/bin/python3\n")
    executable(commands / "python", "")
    monkeypatch.chdir(below)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    command = parse([*runner.split(), "gunicorn", "--preload", "app:make()"])
    assert command[:2] == (gunicorn, "/opt/app/bin/python3")
    assert (command.modules, command.launched) == (("app",), "ts-autotrack" in runner)
    (below / "app.py").touch()
    for rest in (["-m", "flask", "--app", "app", "run"], ["app.py"]):
        found = parse(["uv", "run", *rest])
        assert found.python == str(commands / "python")
        assert (found.modules, found.script) == ((), str(below / "app.py")) if rest == ["app.py"] else (("app",), "")
    assert parse(["uv", "run", "--env-file", "x", "flask"]).env_files == ("x",)
    missing = checkup([*runner.split(), "no-such-program"])
    assert [finding.seen for finding in missing] == ["there is no program no-such-program"]


def test_folder_of_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of servers, workers and runners name the folder of the application; one that is missing is an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    tool = executable(tmp_path / "gunicorn", f"#!{sys.executable}\n")
    for arguments in (
        [tool, "--chdir", "src", "app:app"],
        [tool, f"--chdir={tmp_path}/src", "app:app"],
        [sys.executable, "-m", "uvicorn", "--app-dir", "src", "app:app"],
        ["uv", "run", "--directory", "src", tool, "app:app"],
    ):
        assert (parse(arguments).folder, parse(arguments).modules) == (str(tmp_path / "src"), ("app",)), arguments
    assert [finding.level for finding in checkup([tool, "--chdir", "elsewhere", "app:app"])] == ["error"]
