"""The settings file of a program, of a launched program, and variables that are no settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.core.test_project import run
from ts_autotrack._core.config import SETTINGS, read

SHOW = "import ts_autotrack as ts; found = ts.settings(); print(found['max_queue'], found['user'], found['endpoint'])\n"
DEFAULT_ENDPOINT = SETTINGS["endpoint"].default


def test_own_file_wins_over_pyproject(caplog: pytest.LogCaptureFixture) -> None:
    """ts_autotrack.toml has the settings at top level, wins in its folder, and its mistakes name file and key."""
    Path("pyproject.toml").write_text("[tool.ts_autotrack]\nmax_queue = 10\nmax_queue_bytes = 20\n", "utf-8")
    text = (
        "max_queue = 30\nmax_queue_byte = 5\nexporter = 'kafka'\n[features]\n'a:b' = {feature = 'x', onn = 'error'}\n"
    )
    Path("ts_autotrack.toml").write_text(text, "utf-8")
    values = read({}, str(Path.cwd()))
    assert values["max_queue"] == 30
    assert values["max_queue_bytes"] == SETTINGS["max_queue_bytes"].default
    path = Path("ts_autotrack.toml").absolute()
    assert f"{path} has no setting 'max_queue_byte': did you mean 'max_queue_bytes'?" in caplog.text
    assert "ts_autotrack.toml: exporter='kafka' is ignored: expected one of" in caplog.text
    assert "ts_autotrack.toml: features: 'a:b': there is no option 'onn': did you mean 'on'?" in caplog.text


def test_folder_without_settings_is_passed_by_neither_file(caplog: pytest.LogCaptureFixture) -> None:
    """The nearest folder with a file counts, whatever the folders above have. The file may have a byte order mark."""
    Path("ts_autotrack.toml").write_text("max_queue = 30\r\n", "utf-8-sig")
    Path("inner").mkdir()
    Path("inner/pyproject.toml").write_text("[tool.other]\n", "utf-8")
    assert read({}, str(Path("inner").absolute()))["max_queue"] == SETTINGS["max_queue"].default
    Path("inner/pyproject.toml").unlink()
    assert read({}, str(Path("inner").absolute()))["max_queue"] == 30
    assert caplog.text == ""


def test_launched_program_reads_features_and_user_only(tmp_path: Path) -> None:
    """Before its code is loaded, a launched program knows features, integrations and user of the launch folder.

    Neither the endpoint nor any other setting comes from there; the program's own file wins.
    """
    folder = tmp_path / "project"
    (folder / "deep").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        "[tool.ts_autotrack]\nuser = 'myapp:user'\nmax_queue = 5\nendpoint = 'http://127.0.0.1:9'\n", "utf-8"
    )
    expected = f"100000 myapp:user {DEFAULT_ENDPOINT}\n"
    assert run(tmp_path, "-c", SHOW, TS_AUTOTRACK_LAUNCHED_FROM=str(folder / "deep")) == expected
    other = tmp_path / "other"
    other.mkdir()
    (other / "app.py").write_text(SHOW)
    (other / "ts_autotrack.toml").write_text("max_queue = 7\n")
    launched_from = {"TS_AUTOTRACK_LAUNCHED_FROM": str(folder)}
    assert run(tmp_path, other / "app.py", **launched_from) == f"7 None {DEFAULT_ENDPOINT}\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_launch_folder_of_a_stranger_does_not_count(tmp_path: Path) -> None:
    """A file of another user in the launch folder has no effect."""
    (tmp_path / "ts_autotrack.toml").write_text("user = 'myapp:user'\n")
    os.chown(tmp_path / "ts_autotrack.toml", 12_345, 12_345)
    shown = run(Path("/"), "-c", SHOW, TS_AUTOTRACK_LAUNCHED_FROM=str(tmp_path))
    assert shown == f"100000 None {DEFAULT_ENDPOINT}\n"


def test_unknown_variables_warn(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt variable is one warning with the nearest name; the launcher's own variable is none."""
    monkeypatch.setenv("TS_AUTOTRACK_EXPORTERS", "console")
    monkeypatch.setenv("TS_AUTOTRACK_LAUNCHED_FROM", "/")
    for _ in range(2):
        read({})
    (record,) = caplog.records
    assert record.getMessage() == (
        "ts_autotrack: the variable TS_AUTOTRACK_EXPORTERS is ignored: there is no such setting: did you mean "
        "'TS_AUTOTRACK_EXPORTER'?"
    )
