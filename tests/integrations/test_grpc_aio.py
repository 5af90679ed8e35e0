"""The interceptor of gRPC servers with asyncio: who acts in an RPC, and features by method."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

import ts_autotrack
from tests.integrations.test_grpc import EXPORT, KINDS, answer, events, rows, service, user_of
from ts_autotrack import bind_user, track, track_feature
from ts_autotrack.integrations.grpc import AioTrackingInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.conftest import Inspector

USERS = [f"user-{number}" for number in range(50)]


async def slow_user_of(context: Any) -> tuple[str, str] | None:
    """Return the user that the call's metadata names, after a while."""
    await asyncio.sleep(0.001)
    return user_of(context)


def serve(
    interceptors: list[Any], client: Callable[[Any], Awaitable[None]], **methods: tuple[str, Callable[[Any, Any], Any]]
) -> None:
    """Run a real server, and a client with a channel to the server."""

    async def run() -> None:
        with ThreadPoolExecutor(4) as pool:
            server = grpc.aio.server(pool, interceptors=interceptors)
            server.add_generic_rpc_handlers((service(**methods),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await client(channel)
            await server.stop(5)

    asyncio.run(run())


async def call(channel: Any, user: str | None = None, kind: str = "unary_unary", method: str = EXPORT) -> Any:
    """Call a method; return its answer, or the list of its answers."""
    metadata = () if user is None else (("x-user", user),)
    argument = [b"1", b"2"] if kind.startswith("stream") else b"1"
    answer = getattr(channel, kind)(method)(argument, metadata=metadata, timeout=30)
    return [item async for item in answer] if kind.endswith("stream") else await answer


@track_feature("async_work")
async def async_answer(_: Any, __: Any) -> bytes:
    """Answer a request."""
    await asyncio.sleep(0.001)
    return b"done"


@track_feature("async_rows")
async def async_rows(*_: Any) -> AsyncIterator[bytes]:
    """Stream."""
    for number in range(2):
        await asyncio.sleep(0.001)
        track("row")
        yield str(number).encode()


async def total(requests: AsyncIterator[bytes], _: Any) -> bytes:
    """Read a stream."""
    async for _ in requests:
        track("request")
    return b""


async def echo(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    """Answer each request of a stream."""
    async for request in requests:
        track("echo")
        yield request


async def write(_: Any, context: Any) -> None:
    """Write a stream by the context."""
    await context.write(b"1")
    track("written")


def sync_stream(*_: Any) -> Iterator[bytes]:
    """Stream from the thread pool."""
    return rows(2)


METHODS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "Async": ("unary_unary", async_answer),
    "Stream": ("unary_stream", async_rows),
    "Total": ("stream_unary", total),
    "Echo": ("stream_stream", echo),
    "Write": ("unary_stream", write),
    "Sync": ("unary_unary", answer),
    "SyncStream": ("unary_stream", sync_stream),
}
EXPECTED = [
    *("async_work", "async_rows", "row", "row", "request", "request", "echo", "echo", "written", "work"),
    *("rows", "row", "row"),
]


@pytest.mark.parametrize("resolver", [user_of, slow_user_of])
def test_each_kind_of_rpc_has_the_user_of_its_call(
    inspector: Inspector, resolver: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """50 users at the same time: coroutines, generators, writers, and methods on the thread pool."""

    async def client(channel: Any) -> None:
        await asyncio.gather(
            *(
                call(channel, user, kind, f"/reports.Reports/{name}")
                for name, (kind, _) in METHODS.items()
                for user in (*USERS, None)
            )
        )

    serve([AioTrackingInterceptor(resolver)], client, **METHODS)
    assert events(inspector) == sorted((name, user) for name in EXPECTED for user in USERS)
    assert all(item["context"]["group_id"] == f"account-{item['user_id']}" for item in inspector.items())
    assert ts_autotrack.stats().dropped == {"unattributed": len(EXPECTED)}
    assert [record for record in caplog.records if "grpc" in record.name] == []


async def statuses(request: bytes, context: Any) -> bytes:
    """Answer with the status that the user's name asks for."""
    name = dict(context.invocation_metadata())["x-user"]
    if name == "aborts":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such report")
    if name == "raises":
        raise LookupError
    if name.startswith("sets"):
        context.set_code(grpc.StatusCode.OK if name == "sets-ok" else grpc.StatusCode.NOT_FOUND)
    return request


async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Answer likewise, in a stream."""
    yield await statuses(request, context)


async def writer(request: bytes, context: Any) -> None:
    """Answer likewise, by the context."""
    await context.write(await statuses(request, context))


def sync(request: bytes, context: Any) -> bytes:
    """Answer from the thread pool."""
    name = dict(context.invocation_metadata())["x-user"]
    if name == "aborts":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such report")
    if name == "raises":
        raise LookupError
    if name.startswith("sets"):
        context.set_code(grpc.StatusCode.OK if name == "sets-ok" else grpc.StatusCode.NOT_FOUND)
    return request


def sync_statuses(request: bytes, context: Any) -> Iterator[bytes]:
    """Answer from the thread pool, in a stream."""
    yield sync(request, context)


def test_feature_is_used_on_status_ok_only(inspector: Inspector) -> None:
    """No event after an abort, an exception, or an error code."""
    methods: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
        "A": ("unary_unary", statuses),
        "B": ("unary_stream", stream),
        "C": ("unary_stream", writer),
        "D": ("unary_unary", sync),
        "E": ("unary_stream", sync_statuses),
    }

    async def client(channel: Any) -> None:
        for name, (kind, _) in methods.items():
            for user in ("fine", "aborts", "raises", "sets", "sets-ok"):
                with contextlib.suppress(grpc.RpcError):
                    await call(channel, user, kind, f"/reports.Reports/{name}")

    features = {f"/reports.Reports/{name}": name for name in methods}
    serve([AioTrackingInterceptor(user_of, features)], client, **methods)
    assert events(inspector) == [(name, user) for name in methods for user in ("fine", "sets-ok")]


def test_cancelled_rpcs_are_no_use_but_streams_are(inspector: Inspector) -> None:
    """A coroutine that is cancelled by the client has not answered; a stream counts after its first answer."""
    ended = asyncio.Semaphore(0)

    async def wait(*_: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        finally:
            ended.release()
        return b""

    @track_feature("endless")
    async def endless(*_: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            ended.release()

    async def client(channel: Any) -> None:
        waiting = channel.unary_unary(EXPORT)(b"", metadata=(("x-user", "ann"),))
        late = channel.unary_unary(EXPORT)(b"", metadata=(("x-user", "bob"),), timeout=1.5)
        stream = channel.unary_stream("/reports.Reports/Stream")(b"", metadata=(("x-user", "eve"),))
        assert await stream.read() == b"x"
        stream.cancel()
        with pytest.raises(grpc.RpcError):
            await late
        waiting.cancel()
        for _ in range(3):
            await asyncio.wait_for(ended.acquire(), 10)

    serve(
        [AioTrackingInterceptor(user_of, {EXPORT: "report_export", "/reports.Reports/Stream": "report_stream"})],
        client,
        Export=("unary_unary", wait),
        Stream=("unary_stream", endless),
    )
    assert events(inspector) == [("endless", "eve"), ("report_stream", "eve")]


def test_interceptors_before_and_after(inspector: Inspector) -> None:
    """An interceptor after ours binds the user of the RPC; a second one of ours does nothing."""

    class Authentication(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            track("authenticated")
            bind_user(dict(details.invocation_metadata)["x-user"])
            return await continuation(details)

    ours = AioTrackingInterceptor(features={EXPORT: "report_export"})

    async def client(channel: Any) -> None:
        await asyncio.gather(*(call(channel, user) for user in USERS))
        with pytest.raises(grpc.RpcError):
            await call(channel, "bob", method="/reports.Reports/Missing")

    serve([ours, Authentication(), ours], client, Export=("unary_unary", async_answer))
    names = ("authenticated", "report_export", "async_work")
    assert events(inspector) == sorted([(name, user) for name in names for user in USERS] + [("authenticated", "bob")])


def test_exception_in_the_resolver_never_reaches_the_rpc(inspector: Inspector) -> None:
    """The events of the RPC are counted as unattributed."""

    async def user(_: Any) -> str:
        raise LookupError

    async def client(channel: Any) -> None:
        assert await call(channel) == b"done"

    serve([AioTrackingInterceptor(user)], client, Export=("unary_unary", async_answer))
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_events_of_an_open_stream_do_not_wait_for_its_end(inspector: Inspector) -> None:
    """An async resolver is awaited at the next step of a stream."""

    async def endless(*_: Any) -> AsyncIterator[bytes]:
        while True:
            track("tick")
            yield b"x"

    async def client(channel: Any) -> None:
        stream = channel.unary_stream(EXPORT)(b"", metadata=(("x-user", "ann"),))
        assert await stream.read() == b"x"
        loop = asyncio.get_running_loop()
        assert ("tick", "ann") in await loop.run_in_executor(None, events, inspector)
        stream.cancel()

    serve([AioTrackingInterceptor(slow_user_of)], client, Export=("unary_stream", endless))


def test_kinds_of_the_test_are_grpc_s() -> None:
    """Each of the four kinds of RPC is tested."""
    assert {kind for kind, _ in METHODS.values()} == set(KINDS)
