"""A service of reports in gRPC: one interceptor names the user of every event.

Without protoc, for brevity: messages are bytes. Generated servicers work the same way.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from ts_autotrack import track_feature
from ts_autotrack.integrations.grpc import TrackingInterceptor

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""


def user_of(context: grpc.ServicerContext) -> tuple[str, str] | None:
    """Return the user and the account of a call."""
    return USERS.get(str(dict(context.invocation_metadata()).get("authorization")))


@track_feature("report_view")
def view(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Show a report: an event of the feature `report_view`, but not after `abort`."""
    if request not in {b"1", b"2"}:
        context.abort(grpc.StatusCode.NOT_FOUND, "No such report")
    return b"Report " + request


def export(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """Stream a report: an event by `features=` below, at the end of the stream."""
    yield b"report,"
    yield request


def serve(port: int) -> None:
    """Serve until the process ends."""
    features = {"/reports.Reports/Export": "report_export"}
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[TrackingInterceptor(user_of, features)])
    methods = {
        "View": grpc.unary_unary_rpc_method_handler(view),
        "Export": grpc.unary_stream_rpc_method_handler(export),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("reports.Reports", methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
