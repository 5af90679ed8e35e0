"""The interceptor of gRPC servers with threads: who acts in an RPC, and features by method."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import ts_autotrack
from tests.conftest import wait_until
from ts_autotrack import bind_user, track, track_feature
from ts_autotrack.integrations.grpc import TrackingInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

KINDS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}
EXPORT = "/reports.Reports/Export"


def user_of(context: grpc.ServicerContext) -> tuple[str, str] | None:
    """Return the user that the call's metadata names."""
    user = dict(context.invocation_metadata()).get("x-user")
    return (user, f"account-{user}") if user else None


def service(**methods: tuple[str, Callable[[Any, Any], Any]]) -> grpc.GenericRpcHandler:
    """Return the service `reports.Reports` with methods of bytes: name, kind, function."""
    return grpc.method_handlers_generic_handler(
        "reports.Reports", {name: KINDS[kind](function) for name, (kind, function) in methods.items()}
    )


@contextlib.contextmanager
def serving(*interceptors: Any, threads: int = 4, **methods: tuple[str, Callable[..., Any]]) -> Iterator[Any]:
    """Run a real server; yield a channel to the server."""
    with ThreadPoolExecutor(threads) as pool:
        server = grpc.server(pool, interceptors=interceptors)
        server.add_generic_rpc_handlers((service(**methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


def call(channel: Any, user: str | None = None, method: str = EXPORT, kind: str = "unary_unary", **more: str) -> Any:
    """Call a method; return its answer, or the list of its answers."""
    given = (*(() if user is None else (("x-user", user),)), *more.items())
    argument = iter([b"1", b"2"]) if kind.startswith("stream") else b"1"
    answer = getattr(channel, kind)(method)(argument, metadata=given, timeout=30)
    return list(answer) if kind.endswith("stream") else answer


def events(inspector: Inspector) -> list[tuple[str, str]]:
    """Return name (of the feature, if any) and user of all events, sorted."""
    assert ts_autotrack.flush(10)
    return sorted(
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"]) for item in inspector.items()
    )


@track_feature("rows")
def rows(count: int) -> Iterator[bytes]:
    """Stream."""
    for number in range(count):
        track("row")
        yield str(number).encode()


@track_feature("work")
def answer(_: Any, __: Any) -> bytes:
    """Answer a request."""
    return b"done"


def test_each_kind_of_rpc_has_the_user_of_its_call(inspector: Inspector) -> None:
    """All four kinds: the method, and each step of a response stream, which runs after the method."""

    def total(requests: Iterator[bytes], _: Any) -> bytes:
        for _ in requests:
            track("request")
        return answer(b"", None)

    def echo(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            track("echo")
            yield request

    methods: dict[str, Any] = {
        "unary_unary": answer,
        "unary_stream": lambda *_: rows(2),
        "stream_unary": total,
        "stream_stream": echo,
    }
    with serving(
        TrackingInterceptor(user_of), threads=4, **{kind: (kind, methods[kind]) for kind in methods}
    ) as channel:
        for kind in methods:
            for user in ("ann", None, "bob"):
                call(channel, user, f"/reports.Reports/{kind}", kind)
    expected = ["echo", "echo", "request", "request", "row", "row", "rows", "work", "work"]
    assert events(inspector) == sorted((name, user) for name in expected for user in ("ann", "bob"))
    assert ts_autotrack.stats().dropped == {"unattributed": 9}
    assert {item["context"]["group_id"] for item in inspector.items()} == {"account-ann", "account-bob"}


def test_binding_ends_with_the_rpc_on_its_thread(inspector: Inspector) -> None:
    """On a pool of one thread, the user bound in an RPC is unknown in the next."""

    def method(request: bytes, context: Any) -> bytes:
        if user := user_of(context):
            bind_user(user[0], group_id=user[1])
        return answer(request, context)

    with serving(TrackingInterceptor(), threads=1, Export=("unary_unary", method)) as channel:
        for user in ("ann", None, "bob", None):
            call(channel, user)
    assert events(inspector) == [("work", "ann"), ("work", "bob")]
    assert ts_autotrack.stats().dropped == {"unattributed": 2}


def test_user_is_asked_once_by_the_first_event(inspector: Inspector) -> None:
    """An RPC without an event asks nobody; an exception in the resolver never reaches the RPC."""
    asked = []

    def user(context: grpc.ServicerContext) -> str:
        asked.append(context.invocation_metadata())
        if len(asked) == 1:
            return "ann"
        raise LookupError

    def twice(*_: Any) -> bytes:
        track("first")
        track("second")
        return b""

    with serving(
        TrackingInterceptor(user), Export=("unary_unary", twice), Nothing=("unary_unary", lambda *_: b"")
    ) as channel:
        call(channel, method="/reports.Reports/Nothing")
        assert asked == []
        call(channel)
        assert len(asked) == 1
        assert call(channel) == b""
    assert events(inspector) == [("first", "ann"), ("second", "ann")]


def statuses(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer with the status that the user's name asks for."""
    name = dict(context.invocation_metadata())["x-user"]
    if name == "aborts":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such report")
    if name == "raises":
        raise LookupError
    if name == "sets":
        context.set_code(grpc.StatusCode.NOT_FOUND)
    if name == "sets-ok":
        context.set_code(grpc.StatusCode.OK)
    return request


@pytest.mark.parametrize("streamed", [False, True])
def test_feature_is_used_on_status_ok_only(inspector: Inspector, *, streamed: bool) -> None:
    """No event after an abort, an exception, or an error code that the method has set; unlisted methods have none."""
    kind = "unary_stream" if streamed else "unary_unary"

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield statuses(request, context)

    method = stream if streamed else statuses
    interceptor = TrackingInterceptor(user_of, {EXPORT: "report_export"})
    with serving(interceptor, Export=(kind, method), Other=(kind, method)) as channel:
        for user in ("fine", "aborts", "raises", "sets", "sets-ok"):
            with contextlib.suppress(grpc.RpcError):
                call(channel, user, kind=kind)
        call(channel, "fine", "/reports.Reports/Other", kind)
        with pytest.raises(grpc.RpcError):
            call(channel, "fine", "/reports.Reports/Missing", kind)
    assert events(inspector) == [("report_export", "fine"), ("report_export", "sets-ok")]
    assert inspector.items()[0]["properties"]["action"] == EXPORT


def test_cancelled_and_late_rpcs_are_no_use(inspector: Inspector) -> None:
    """A method that ends after the client has cancelled, or after the deadline, has not answered."""
    entered, gone = threading.Semaphore(0), threading.Event()
    ended = threading.Semaphore(0)

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        entered.release()
        gone.wait(10)
        wait_until(lambda: not context.is_active(), "the RPC is cancelled")
        ended.release()
        return request

    with serving(TrackingInterceptor(user_of, {EXPORT: "report_export"}), Export=("unary_unary", slow)) as channel:
        method = channel.unary_unary(EXPORT)
        cancelled = method.future(b"1", metadata=[("x-user", "ann")])
        late = method.future(b"1", metadata=[("x-user", "bob")], timeout=1.5)
        assert entered.acquire(timeout=10)
        assert entered.acquire(timeout=10)
        cancelled.cancel()
        assert late.exception(timeout=10).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gone.set()
        assert ended.acquire(timeout=10)
        assert ended.acquire(timeout=10)
    assert events(inspector) == []


def test_stream_closed_by_the_client_is_used(inspector: Inspector) -> None:
    """A stream that the client leaves after some answers counts, as does the generator behind the stream."""
    closed = threading.Event()

    @track_feature("endless")
    def endless(*_: Any) -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    with serving(TrackingInterceptor(user_of, {EXPORT: "report_export"}), Export=("unary_stream", endless)) as channel:
        stream = channel.unary_stream(EXPORT)(b"", metadata=[("x-user", "ann")])
        assert next(stream) == b"x"
        stream.cancel()
        assert closed.wait(10)
    assert events(inspector) == [("endless", "ann"), ("report_export", "ann")]


def test_stream_closed_by_the_client_while_the_method_waits_is_used(inspector: Inspector) -> None:
    """The method waits for the next request when the client leaves: the answers so far count, an answerless RPC not."""
    ended = threading.Semaphore(0)

    def echo(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        try:
            for request in requests:
                if request:
                    yield request
        finally:
            ended.release()

    with serving(TrackingInterceptor(user_of, {EXPORT: "report_export"}), Export=("stream_stream", echo)) as channel:
        for user, request in (("ann", b"1"), ("bob", b"")):
            sent, left = threading.Event(), threading.Event()

            def requests(request: bytes = request, sent: Any = sent, left: Any = left) -> Iterator[bytes]:
                yield request
                sent.set()
                left.wait(10)

            stream = channel.stream_stream(EXPORT)(requests(), metadata=[("x-user", user)])
            assert next(stream) == request if request else sent.wait(10)
            stream.cancel()
            left.set()
            assert ended.acquire(timeout=10)
    assert events(inspector) == [("report_export", "ann")]


def refuse(_: bytes, context: grpc.ServicerContext) -> None:
    """Refuse an RPC without a user."""
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "")


class Authentication(grpc.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    """An interceptor of the application: binds the user, or ends the RPC."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Bind the user that the metadata names."""
        track("authenticated")
        user = dict(details.invocation_metadata).get("x-user")
        if user is None:
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
            )
        bind_user(user)
        return continuation(details)


def test_interceptors_before_and_after(inspector: Inspector) -> None:
    """An interceptor after ours binds the user of the RPC; its own events belong to this user; before ours, nobody."""
    for order in (
        [TrackingInterceptor(), Authentication()],
        [TrackingInterceptor(user_of), Authentication(), TrackingInterceptor(lambda _: "wrong")],
    ):
        with serving(*order, Export=("unary_unary", answer)) as channel:
            call(channel, "ann")
            with pytest.raises(grpc.RpcError):
                call(channel)
            with pytest.raises(grpc.RpcError):
                call(channel, "bob", "/reports.Reports/Missing")
    once = [("authenticated", "ann"), ("authenticated", "bob"), ("work", "ann")]
    assert events(inspector) == sorted(once * 2)
    assert ts_autotrack.stats().dropped == {"unattributed": 2}
    assert ts_autotrack.stats().pending == 0


def test_events_of_an_rpc_whose_method_never_runs(inspector: Inspector) -> None:
    """Events of interceptors are settled if gRPC drops the handler, drops the stream, or an interceptor raises."""
    interceptor = TrackingInterceptor()
    details = SimpleNamespace(method=EXPORT, invocation_metadata=None)
    handler = grpc.unary_stream_rpc_method_handler(lambda *_: iter([b"x"]))

    def intercept(*, fail: bool = False) -> Any:
        def continuation(_: Any) -> Any:
            track("intercepted")
            if fail:
                raise LookupError
            return handler

        return interceptor.intercept_service(continuation, details)

    intercept()
    intercept().unary_stream(b"", None)
    with pytest.raises(LookupError):
        intercept(fail=True)
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 3}
    assert ts_autotrack.stats().pending == 0


def test_second_interceptor_records_nothing(inspector: Inspector) -> None:
    """Two interceptors of one server make one event, also around an interceptor of the application."""
    ours = TrackingInterceptor(user_of, {EXPORT: "report_export"})
    with serving(ours, Authentication(), ours, Export=("unary_unary", lambda *_: b"")) as channel:
        call(channel, "ann")
    assert events(inspector) == [("authenticated", "ann"), ("report_export", "ann")]


def test_baggage_of_the_call_is_not_trusted(inspector: Inspector) -> None:
    """Ids in the call's own metadata count only with `trust_baggage=True`."""
    from opentelemetry import baggage, context  # noqa: PLC0415 - as the instrumentation of the application does

    class Propagation(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            context.attach(baggage.set_baggage("user.id", "mallory"))
            return continuation(details)

    for trusted in (False, True):
        with serving(
            Propagation(), TrackingInterceptor(trust_baggage=trusted), Export=("unary_unary", answer)
        ) as channel:
            call(channel, baggage="user.id=mallory")
    assert events(inspector) == [("work", "mallory")]
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_experimental_methods_are_left_alone(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A method that uses an experimental attribute of gRPC runs as before; a warning says so once."""

    def push(_: bytes, __: Any, send: Callable[[bytes | None], None]) -> None:
        send(b"pushed")
        send(None)

    push.experimental_non_blocking = True  # type: ignore[attr-defined]
    with serving(TrackingInterceptor(user_of), Export=("unary_stream", push)) as channel:
        assert [call(channel, "ann", kind="unary_stream") for _ in range(2)] == [[b"pushed"]] * 2
    warnings = [record.getMessage() for record in caplog.records if record.name == "ts_autotrack"]
    assert len(warnings) == 1
    assert f"{EXPORT} uses an experimental attribute of gRPC and is not tracked" in warnings[0]
    assert events(inspector) == []


def test_wrong_arguments_are_named() -> None:
    """Wrong users and features raise at once."""

    async def user(_: Any) -> str:
        return "ann"

    with pytest.raises(TypeError, match="user= must be a plain function"):
        TrackingInterceptor(user)
    with pytest.raises(TypeError, match="user='ann'"):
        TrackingInterceptor("ann")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="full name"):
        TrackingInterceptor(features={"Export": "report_export"})
    with pytest.raises(ValueError, match="non-empty"):
        TrackingInterceptor(features={EXPORT: " "})
