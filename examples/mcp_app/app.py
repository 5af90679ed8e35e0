"""An MCP server for reports: each tool is a feature of the user for whom the agent acts."""

from __future__ import annotations

import os
from typing import Any

from mcp.server.mcpserver import MCPServer

from ts_autotrack.integrations.mcp import instrument_mcp

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your server asks its database."""


def acting_user(token: Any) -> tuple[str, str] | None:
    """Return the user and the account: over HTTP of the verified token, over stdio of the environment."""
    return USERS.get(token.token if token else os.environ.get("REPORTS_TOKEN", ""))


mcp = MCPServer("reports")
instrument_mcp(mcp, user=acting_user, features={"export": "report_export", "whoami": None})


@mcp.tool()
def export(number: int) -> str:
    """Export a report: an event of the feature `report_export`."""
    if number > 2:  # noqa: PLR2004 - there are two
        message = "No such report"
        raise ValueError(message)  # the result has `isError`: no event
    return f"report,{number}"


@mcp.tool()
def list_reports() -> list[int]:
    """List the reports: an event of the feature `list_reports`."""
    return [1, 2]


@mcp.tool()
def whoami() -> str:
    """Show the token's user: no feature."""
    return str(acting_user(None))


if __name__ == "__main__":
    mcp.run()
