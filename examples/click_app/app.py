"""A command line for reports: each command is a feature of the user whose token the tool knows."""

from __future__ import annotations

import os

import click

from ts_autotrack.integrations.click import instrument_click

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your tool reads its profile, or asks its server."""


@click.group()
def reports() -> None:
    """Work with reports."""


@reports.group()
def report() -> None:
    """Work with one report."""


@report.command()
@click.argument("number", type=int)
@click.option("--format", "kind", default="csv")
def export(number: int, kind: str) -> None:
    """Export a report: an event of the feature `csv_export`, by `features=` below."""
    if number > 2:  # noqa: PLR2004 - there are two
        message = "No such report"
        raise click.ClickException(message)  # exit status 1: no event
    click.echo(f"report-{number}.{kind}")


@reports.command("ls")
def list_reports() -> None:
    """List the reports: an event of the feature `list_reports`."""
    click.echo("1\n2")


@reports.command()
def whoami() -> None:
    """Show the user: no feature."""
    click.echo(acting_user())


def acting_user() -> tuple[str, str] | None:
    """Return the user and the account of the token; None without one."""
    return USERS.get(os.environ.get("REPORTS_TOKEN", ""))


instrument_click(
    reports, user=acting_user, features={"report export": "csv_export", "ls": "list_reports", "whoami": None}
)

if __name__ == "__main__":
    reports()
