"""The examples of gRPC, aiohttp and Strawberry run as processes of their own, and their events arrive."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.integrations.load import ROOT, free_port, running

if TYPE_CHECKING:
    from tests.conftest import Inspector

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("example", ["grpc_app", "aiohttp_app", "strawberry_app"])
def test_example_is_short(example: str) -> None:
    """The application has less than 60 lines."""
    assert len((EXAMPLES / example / "app.py").read_text().splitlines()) < 60


def found(inspector: Inspector) -> list[tuple[str, str, str]]:
    """Return feature, user and account of all events, sorted."""
    return sorted(
        (item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in inspector.items()
    )


@pytest.mark.slow
def test_grpc_example(inspector: Inspector) -> None:
    """Each use arrives with user and account; an RPC that aborts, or that nobody calls, is no use."""
    port = free_port()
    with (
        running(["examples.grpc_app.app", str(port)], port, THRIVESTACK_ENDPOINT=inspector.endpoint),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        for report, token in ((b"1", "ann-token"), (b"3", "bob-token"), (b"2", "bob-token"), (b"2", "")):
            with contextlib.suppress(grpc.RpcError):
                channel.unary_unary("/reports.Reports/View")(report, metadata=[("authorization", token)], timeout=30)
        stream = channel.unary_stream("/reports.Reports/Export")(b"1", metadata=[("authorization", "ann-token")])
        assert b"".join(stream) == b"report,1"
    assert found(inspector) == [
        ("report_export", "ann", "acme"),
        ("report_view", "ann", "acme"),
        ("report_view", "bob", "globex"),
    ]


def ask(port: int, *requests: tuple[str, str, str, str | None]) -> list[int]:
    """Send requests (method, path, token, body) over one connection; return the statuses."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    statuses = []
    for method, path, token, body in requests:
        headers = {"Authorization": token, "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


@pytest.mark.slow
def test_aiohttp_example(inspector: Inspector) -> None:
    """Each use arrives with user and account; answers of 401 and 404 are no uses."""
    port = free_port()
    with running(["examples.aiohttp_app.app", str(port)], port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        statuses = ask(
            port,
            ("GET", "/dashboard", "ann-token", None),
            ("GET", "/dashboard", "", None),
            ("GET", "/reports/2", "bob-token", None),
            ("GET", "/reports/3", "bob-token", None),
            ("POST", "/reports/1/export", "ann-token", None),
        )
    assert statuses == [200, 401, 200, 404, 200]
    assert found(inspector) == [
        ("analytics_dashboard", "ann", "acme"),
        ("report_export", "ann", "acme"),
        ("report_view", "bob", "globex"),
        ("row_stream", "ann", "acme"),
    ]


@pytest.mark.slow
def test_strawberry_example(inspector: Inspector) -> None:
    """Each use arrives with user and account; a field with an error is no use."""
    port = free_port()
    server = f"uvicorn --app-dir {EXAMPLES}/strawberry_app --port {port} --log-level error app:app".split()
    queries = [
        ("ann-token", "query Dashboard { a: report(number: 1) b: report(number: 2) }"),
        ("bob-token", "{ report(number: 3) }"),
        ("bob-token", "mutation { exportReport(number: 1) }"),
        ("", "mutation { exportReport(number: 1) }"),
    ]
    with running(server, port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        requests = [("POST", "/graphql", token, json.dumps({"query": query})) for token, query in queries]
        assert ask(port, *requests) == [200] * 4
    assert found(inspector) == [
        ("analytics_dashboard", "ann", "acme"),
        ("report_export", "bob", "globex"),
        ("report_view", "ann", "acme"),
        ("report_view", "ann", "acme"),
    ]
