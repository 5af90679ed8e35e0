"""MCP servers for tests with real processes: `python -m tests.integrations.apps.mcp_app PACKAGE TRANSPORT [PORT]`.

PACKAGE is "mcp" or "fastmcp"; TRANSPORT is "stdio", "stateful" or "stateless". Over HTTP the token of a user is
`token-<user>`; `token-` belongs to nobody.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ts_autotrack import track_feature
from ts_autotrack.integrations.mcp import instrument_mcp


def identity(token: Any) -> dict[str, str] | None:
    """Return the user, the account and a property of the token; over stdio those of the environment."""
    user = os.environ.get("APP_USER") if token is None else token.subject
    return {"user_id": user, "group_id": f"account-{user}", "plan": f"plan-{user}"} if user else None


def official() -> Any:
    """Return a server of the package mcp."""
    from mcp.server.auth.provider import AccessToken  # noqa: PLC0415
    from mcp.server.auth.settings import AuthSettings  # noqa: PLC0415
    from mcp.server.mcpserver import MCPServer  # noqa: PLC0415

    class Verifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            scheme, _, user = token.partition("-")
            if scheme != "token":
                return None
            return AccessToken(token=token, client_id=f"agent-{user}", scopes=[], subject=user or None)

    url: Any = "http://127.0.0.1:8000"
    settings = AuthSettings(issuer_url=url, resource_server_url=url, validate_token_resource=False)
    is_http = sys.argv[2] != "stdio"
    return MCPServer(
        "app", log_level="ERROR", auth=settings if is_http else None, token_verifier=Verifier() if is_http else None
    )


def fast() -> Any:
    """Return a server of the package fastmcp."""
    from fastmcp import FastMCP  # noqa: PLC0415
    from fastmcp.server.auth.providers.jwt import StaticTokenVerifier  # noqa: PLC0415

    users = ["", *(f"user-{number}" for number in range(50))]
    tokens: dict[str, dict[str, Any]] = {
        f"token-{user}": {"client_id": f"agent-{user}", "scopes": [], "sub": user or None} for user in users
    }
    return FastMCP("app", auth=StaticTokenVerifier(tokens) if sys.argv[2] != "stdio" else None)


def application(server: Any, transport: str) -> Any:
    """Return the ASGI application of a server."""
    if hasattr(server, "http_app"):
        kind = {"stateful": "http", "stateless": "http"}.get(transport, transport)
        return server.http_app(transport=kind, stateless_http=transport == "stateless")
    return server.streamable_http_app(stateless_http=transport == "stateless")


def main() -> None:
    """Serve."""
    server = official() if sys.argv[1] == "mcp" else fast()
    instrument_mcp(server, identity)

    @track_feature("worked", capture=["number"])
    def work(number: int) -> int:
        """Track an event of its own in a thread."""
        return number

    @track_feature("worked", capture=["number"])
    async def work_async(number: int) -> int:
        """Track an event of its own in a task."""
        return number

    def fail(number: int) -> int:
        """Fail."""
        raise ValueError(number)

    for function in (work, work_async, fail):
        server.tool()(function)
    if sys.argv[2] == "stdio":
        server.run("stdio", **({} if sys.argv[1] == "mcp" else {"show_banner": False}))
    else:
        import uvicorn  # noqa: PLC0415

        app = application(server, sys.argv[2])
        uvicorn.run(app, port=int(sys.argv[3]), log_level="error", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
