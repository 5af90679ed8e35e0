"""A gRPC service under load: `python -m tests.integrations.apps.grpc_app aio|threads <port>`."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tests.integrations.apps.fastapi_app import identity
from ts_autotrack import track_feature
from ts_autotrack.integrations.grpc import AioTrackingInterceptor, TrackingInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

OPTIONS = [("grpc.so_reuseport", 1)]
"""Several processes listen on one port."""


def user_of(context: grpc.ServicerContext) -> dict[str, str] | None:
    """Return the identity that the metadata names."""
    user = dict(context.invocation_metadata()).get("x-user")
    return None if user is None else identity(user)


@track_feature("work", capture=["number"])
def work(number: int) -> None:
    """Be a feature."""


def answer(request: bytes, _: Any) -> bytes:
    """Do the work in a method."""
    work(int(request))
    return request


def stream(request: bytes, _: Any) -> Iterator[bytes]:
    """Do the work in a stream, after the first answer."""
    yield b"begun"
    work(int(request))
    yield request


async def async_answer(request: bytes, _: Any) -> bytes:
    """Do the work in a coroutine."""
    await asyncio.sleep(0.001)
    work(int(request))
    return request


async def async_stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
    """Do the work in an asynchronous generator, after the first answer."""
    yield b"begun"
    work(int(request))
    yield request


def handlers(answer: Any, stream: Any) -> tuple[grpc.GenericRpcHandler]:
    """Return the service."""
    methods = {
        "Work": grpc.unary_unary_rpc_method_handler(answer),
        "Process": grpc.unary_unary_rpc_method_handler(lambda *_: str(os.getpid()).encode()),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    return (grpc.method_handlers_generic_handler("test.Work", methods),)


def serve(port: str) -> None:
    """Serve with threads."""
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[TrackingInterceptor(user_of)], options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(answer, stream))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_aio(port: str) -> None:
    """Serve with asyncio."""
    server = grpc.aio.server(interceptors=[AioTrackingInterceptor(user_of)], options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(async_answer, async_stream))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1] == "aio":
        asyncio.run(serve_aio(sys.argv[2]))
    else:
        serve(sys.argv[2])
