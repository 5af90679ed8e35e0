"""`ts-autotrack run`, `install` and `uninstall`, up to the start of a process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from ts_autotrack.cli import main
from ts_autotrack.launcher import _install
from ts_autotrack.launcher._run import BOOTSTRAP, LaunchError, environment_of, read_environment_file

if TYPE_CHECKING:
    from pathlib import Path


def test_environment_file_has_lines_of_keys_and_values(tmp_path: Path) -> None:
    """Comments, empty lines, `export` and one pair of quotes are understood; nothing else in a value is interpreted."""
    file = tmp_path / ".env"
    file.write_text(
        "\ufeff# key of staging\n\nPLAIN=value\n  SPACED = a b  \nexport EXPORTED=1\nQUOTED=\"a # b\"\nSINGLE='x'\n"
        'KEPT=a#b=c$HOME\\n\nHALF="x\nEMPTY=\r\n',
        encoding="utf-8",
    )
    assert read_environment_file(str(file)) == {
        "PLAIN": "value",
        "SPACED": "a b",
        "EXPORTED": "1",
        "QUOTED": "a # b",
        "SINGLE": "x",
        "KEPT": "a#b=c$HOME\\n",
        "HALF": '"x',
        "EMPTY": "",
    }


@pytest.mark.parametrize("line", ["secret", "=secret", "2NAME=secret", "A NAME=secret", "NAME=secret\0"])
def test_bad_line_of_an_environment_file_is_named_without_its_value(tmp_path: Path, line: str) -> None:
    """The message names file and line. It shows no value: the file holds credentials."""
    file = tmp_path / ".env"
    file.write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(LaunchError, match="line 2: write KEY=value") as caught:
        read_environment_file(str(file))
    assert caught.value.status == 2
    assert "secret" not in str(caught.value)


def test_variables_that_are_set_win_over_files(tmp_path: Path) -> None:
    """A deployment's variable wins over each file, and a later file wins over an earlier one."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("A=first\nB=first\nC=first\n")
    second.write_text("B=second\nC=second\n")
    variables = environment_of({"C": "set"}, [str(first), str(second)], "/srv/app")
    assert (variables["A"], variables["B"], variables["C"]) == ("first", "second", "set")
    assert variables["TS_AUTOTRACK_LAUNCHED_FROM"] == "/srv/app"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, []),
        ("", []),  # an empty entry would be the working directory
        ("/a:/b", ["/a", "/b"]),
        (f"/a:{BOOTSTRAP}", ["/a"]),
        (":/a", ["", "/a"]),
    ],
)
def test_launcher_comes_first_on_the_path(before: str | None, after: list[str]) -> None:
    """The launcher's folder is the first entry of PYTHONPATH, once; other entries stay as they are."""
    current = {} if before is None else {"PYTHONPATH": before}
    variables = environment_of(current, [], "/srv/app")
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(BOOTSTRAP), *after]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "name a command"),
        (["--"], 2, "name a command"),
        (["--", "no-such-command"], 127, "no-such-command: there is no such command"),
        (["/"], 126, "/ cannot be started: Permission denied"),
        (["--env-file", "absent.env", "true"], 2, "--env-file absent.env cannot be read: No such file or directory"),
    ],
)
def test_command_that_cannot_start_is_explained(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    """The exit status is a shell's, with one line that says why."""
    assert main(["run", *arguments]) == status
    assert message in capsys.readouterr().err


def test_install_is_undone_by_uninstall(tmp_path: Path) -> None:
    """Installing twice is the same as once; the second settings file counts. Uninstalling leaves nothing."""
    prefix = os.path.realpath(sys.prefix)
    _install.install(tmp_path, f"{prefix}/first/pyproject.toml")
    written = _install.install(tmp_path, f"{prefix}/it's/pyproject.toml")
    assert sorted(tmp_path.iterdir()) == sorted(written)
    module = (tmp_path / "_ts_autotrack_start.py").read_text()
    assert 'SETTINGS_FILE = "it\'s/pyproject.toml"' in module
    compile(module, "start", "exec")
    assert sorted(_install.uninstall(tmp_path)) == sorted(written)
    assert _install.uninstall(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_install_asks_for_a_virtual_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All programs of a machine are tracked only if the command says so."""
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert main(["install"]) == 1
    error = capsys.readouterr().err
    assert "is no virtual environment" in error
    assert "--system" in error
