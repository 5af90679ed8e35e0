"""Command lines of Typer, whose apps make their commands anew for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from tests.integrations.test_click import features, used
from ts_autotrack import track_feature
from ts_autotrack.integrations.click import instrument_click, uninstrument_click

if TYPE_CHECKING:
    from tests.conftest import Inspector


def run(app: typer.Typer, *lines: str) -> list[int]:
    """Run an app with each command line; return the exit statuses."""
    return [CliRunner().invoke(app, line.split()).exit_code for line in lines]


@pytest.mark.parametrize("early", [True, False])
def test_commands_of_an_app(inspector: Inspector, *, early: bool) -> None:
    """Commands, sub-apps and single commands count, whether the app is instrumented before or after they are added."""
    app, reports = typer.Typer(), typer.Typer()
    if early:
        instrument_click(app, lambda: "ann")

    @app.command()
    def status() -> None: ...

    if not early:
        instrument_click(app, lambda: "ann")
    assert run(app, "", "--help") == [0, 0]

    @reports.command("export-all")
    def export(fail: int = 0) -> None:
        if fail:
            raise typer.Exit(fail)

    @reports.command("exit")
    def leave() -> None:
        raise typer.Exit

    app.add_typer(reports, name="report")
    lines = "status", "report export-all --fail 3", "report export-all", "report exit", "report exit --help", "wrong"
    assert run(app, *lines) == [0, 3, 0, 0, 0, 2]
    assert used(inspector) == [
        ("status", "status", "ann"),
        ("status", "status", "ann"),
        ("report_export_all", "report export-all", "ann"),
        ("report_exit", "report exit", "ann"),
    ]


def test_callback_and_decorated_commands(inspector: Inspector) -> None:
    """An app's callback is a command if it runs alone; a decorated command sends its own event only."""
    app = typer.Typer()
    instrument_click(app, lambda: "ann")
    instrument_click(app, lambda: "other")

    @app.callback(invoke_without_command=True)
    def main() -> None: ...

    @app.command()
    @track_feature("own")
    def decorated() -> None: ...

    assert run(app, "decorated") == [0]
    assert features(inspector) == ["own"]


def test_click_command_of_an_app(inspector: Inspector) -> None:
    """The click command made from an app is instrumented like every click command."""
    app = typer.Typer()

    @app.command()
    def first() -> None: ...

    @app.command()
    def second() -> None: ...

    command = typer.main.get_command(app)
    instrument_click(command, lambda: "ann")
    for name in ("first", "second"):
        command.main([name], standalone_mode=False)
    assert run(app, "first") == [0]
    assert features(inspector) == ["first", "second"]


def test_app_is_undone(inspector: Inspector) -> None:
    """After `uninstrument_click` an app makes no events, and can be instrumented again."""
    app = typer.Typer()
    app.command("run")(lambda: None)
    instrument_click(app, lambda: "ann")
    uninstrument_click(app)
    assert run(app, "") == [0]
    instrument_click(app, lambda: "bob")
    assert run(app, "") == [0]
    assert used(inspector) == [("run", "run", "bob")]
