"""Watched functions: tracked without a wrapper, by sys.monitoring."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import inspect
import multiprocessing
import os
import pickle
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import account_closes, arrived
from ts_autotrack import add_properties, bind_user, configure, flush, shutdown, stats, suppress, track_feature
from ts_autotrack._core.capture import monitor as monitor_module
from ts_autotrack._core.capture import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

pytestmark = [
    pytest.mark.usefixtures("acting"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12"),
]


monitoring: Any = getattr(sys, "monitoring", None)


def features(inspector: Inspector) -> list[str]:
    """Return the features of the arrived events."""
    return [properties["feature_name"] for properties in arrived(inspector)]


@track_feature("module_level")
def module_level(value: int = 1, *, option: str = "x") -> tuple[int, str]:
    """Return the arguments."""
    return value, option


def undecorated(value: int = 1) -> int:
    """Return the value."""
    return value


copied = track_feature("copied")(undecorated)


def test_a_function_being_defined_stays_the_application_s_own(inspector: Inspector) -> None:
    """The decorator syntax returns the very function, with its code, globals, defaults and signature."""

    def original(a: int, b: str = "x", *, c: int = 1) -> str:
        """Say something."""
        return b * a * c

    code, defaults, keywords = original.__code__, original.__defaults__, original.__kwdefaults__
    tracked = track_feature("f")(original)
    assert tracked is original
    assert tracked.__code__ == code
    assert tracked.__code__ is not code
    assert (tracked.__defaults__, tracked.__kwdefaults__) == (defaults, keywords)
    assert tracked.__globals__ is globals()
    assert "__wrapped__" not in tracked.__dict__
    assert inspect.getfullargspec(tracked).args == ["a", "b"]
    assert tracked(2) == "xx"
    assert features(inspector) == ["f"]


def test_a_function_that_has_its_name_is_copied(inspector: Inspector) -> None:
    """Other callers of the original are not counted; the copy has everything that the original has."""
    assert undecorated(3) == 3
    assert copied(4) == 4
    assert features(inspector) == ["copied"]
    assert copied is not undecorated
    assert inspect.signature(copied) == inspect.signature(undecorated)
    assert (copied.__name__, copied.__doc__, copied.__module__) == ("undecorated", "Return the value.", __name__)


def test_methods_are_copied_once_they_have_their_name(inspector: Inspector) -> None:
    """A method is watched in place in its class's body; taken from the class later, it is copied."""

    class Shop:
        @track_feature("in_place")
        def plain(self) -> int:
            return 1

        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @staticmethod
        def static() -> int:
            return 2

    Shop.__qualname__ = "Shop"
    globals()["Shop"] = Shop
    methods: list[Any] = [vars(Shop)["of_class"].__func__, Shop.static]
    for method in methods:
        method.__qualname__ = f"Shop.{method.__name__}"
        assert track_feature("later")(method) is not method
    del globals()["Shop"]
    assert Shop().plain() == 1
    assert features(inspector) == ["in_place"]


def test_below_and_above_a_registration(inspector: Inspector) -> None:
    """A framework that registers the function calls the tracked function, whichever decorator comes first."""
    routes: dict[str, Callable[..., Any]] = {}

    def route(path: str) -> Callable[[Any], Any]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            routes[path] = function
            return function

        return register

    @route("/below")
    @track_feature("below")
    def below() -> str:
        return "below"

    @track_feature("above")
    @route("/above")
    def above() -> str:
        return "above"

    assert [routes["/below"](), routes["/above"]()] == ["below", "above"]
    assert features(inspector) == ["below", "above"]
    assert (below, above) == (routes["/below"], routes["/above"])


def test_two_features_of_one_function_make_two_events(inspector: Inspector) -> None:
    """Each decorator makes an event of its own; properties go to the innermost feature."""

    @track_feature("outer")
    @track_feature("inner")
    def both() -> None:
        add_properties(rows=3)

    both()
    found = [(properties["feature_name"], properties.get("rows")) for properties in arrived(inspector)]
    assert found == [("inner", 3), ("outer", None)]


def test_tracebacks_and_frames_are_those_of_the_original() -> None:
    """No line of a traceback and no frame of the stack belongs to the library; stacklevel counts as before."""

    @track_feature("f")
    def fail() -> None:
        raise LookupError

    @track_feature("g")
    def caller() -> str:
        return sys._getframe(1).f_code.co_name

    with pytest.raises(LookupError) as caught:
        fail()
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:] == ["fail"]
    assert caller() == "test_tracebacks_and_frames_are_those_of_the_original"


def test_outcomes(inspector: Inspector) -> None:
    """Success makes an event, a failure none; a cancelled coroutine makes none; a coroutine makes one, at its end."""

    @track_feature("function")
    def function(*, fail: bool) -> None:
        if fail:
            raise LookupError

    @track_feature("coroutine")
    async def coroutine(*, wait: float = 0, fail: bool = False) -> None:
        await asyncio.sleep(wait)
        if fail:
            raise LookupError

    async def cancelled() -> None:
        task = asyncio.create_task(coroutine(wait=60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for fail in (True, False):
        with pytest.raises(LookupError) if fail else contextlib.nullcontext():
            function(fail=fail)
        with pytest.raises(LookupError) if fail else contextlib.nullcontext():
            asyncio.run(coroutine(fail=fail))
    asyncio.run(cancelled())
    coroutine().close()
    assert features(inspector) == ["function", "coroutine"]


def test_identity_is_that_of_the_end_of_the_call(inspector: Inspector) -> None:
    """A user bound inside the call is the event's user; suppressed calls are counted as suppressed."""

    @track_feature("login")
    def login() -> None:
        bind_user("user_2", group_id="account_2")

    with suppress():
        login()
    login()
    assert flush(10)
    assert [item["user_id"] for item in inspector.items()] == ["user_2"]
    assert stats().dropped == {"suppressed": 1}


def test_calls_while_the_library_is_off_cost_and_count_nothing(inspector: Inspector) -> None:
    """A watched function makes no event and no drop while the library is off; turned on, all calls count again."""

    @track_feature("f")
    def function() -> None:
        """Do nothing."""

    def tools_that_hear() -> bool:
        calls: list[int] = []
        original = monitor_module.monitor._callbacks[monitor_module.RETURN]
        tool = monitor_module.monitor._tool
        monitoring.register_callback(tool, monitor_module.RETURN, lambda *_: calls.append(1))
        function()
        monitoring.register_callback(tool, monitor_module.RETURN, original)
        return bool(calls)

    function()
    configure(disabled=True)
    function()
    assert not tools_that_hear()
    dropped = stats().dropped
    configure(disabled=False)
    function()
    assert features(inspector) == ["f"] * 2
    assert dropped == {}


def test_calls_after_shutdown_and_a_new_start(inspector: Inspector) -> None:
    """`shutdown` ends the watching as `disabled` does, and `configure` begins it again."""

    @track_feature("f")
    def function() -> None:
        """Do nothing."""

    function()
    assert shutdown(10)
    function()
    configure(endpoint=inspector.endpoint)
    function()
    assert features(inspector) == ["f"] * 2


def test_add_properties_of_a_call_that_fails_go_to_no_other_call(inspector: Inspector) -> None:
    """A failing call forgets its properties: also in a retry, in recursion, and with frames at the same address."""

    @track_feature("f")
    def function(depth: int) -> int:
        if depth == 0:
            return 0
        try:
            return function(depth - 1)
        except LookupError:
            return -1

    @track_feature("failing")
    def failing(*, fail: bool) -> None:
        if fail:
            add_properties(stale=True)
            raise LookupError

    @track_feature("recursive")
    def recursive(depth: int) -> int:
        if depth == 0:
            add_properties(stale=True)
            raise LookupError
        try:
            return recursive(depth - 1)
        except LookupError:
            return -1

    for _ in range(50):
        with pytest.raises(LookupError):
            failing(fail=True)
        failing(fail=False)
        recursive(3)
        function(3)
    assert not any("stale" in properties for properties in arrived(inspector))
    assert stack.additions == {}


def test_work_returned_by_a_plain_function(inspector: Inspector) -> None:
    """The event of a plain function that returns a coroutine, generator or future belongs to the end of that work."""

    async def work(*, fail: bool) -> str:
        await asyncio.sleep(0)
        add_properties(inside=True)
        if fail:
            raise LookupError
        return "done"

    def rows(*, fail: bool) -> Iterator[int]:
        yield 1
        if fail:
            raise LookupError

    @track_feature("coroutine")
    def coroutine(*, fail: bool) -> Any:
        return work(fail=fail)

    @track_feature("generator")
    def generator(*, fail: bool) -> Any:
        return rows(fail=fail)

    @track_feature("task")
    async def use() -> None:
        @track_feature("task")
        def begin(*, fail: bool) -> Any:
            return asyncio.ensure_future(work(fail=fail))

        assert await begin(fail=False) == "done"
        with pytest.raises(LookupError):
            await begin(fail=True)
        await asyncio.sleep(0)

    waiting = coroutine(fail=False)
    assert flush(5)
    assert stats().accepted == 0
    assert asyncio.run(waiting) == "done"
    with pytest.raises(LookupError):
        asyncio.run(coroutine(fail=True))
    assert list(generator(fail=False)) == [1]
    with pytest.raises(LookupError):
        list(generator(fail=True))
    closed = generator(fail=True)
    assert next(closed) == 1
    closed.close()
    del closed
    generator(fail=False)  # never started
    gc.collect()
    assert features(inspector) == ["coroutine", "generator", "generator"]
    assert stack.followed == {}
    asyncio.run(use())
    assert features(inspector).count("task") == 2


def test_work_of_other_callers_with_the_same_code_is_not_counted(inspector: Inspector) -> None:
    """While the returned work is followed, other calls of the same coroutine function make no events."""

    async def work(value: int) -> int:
        await asyncio.sleep(0)
        return value

    @track_feature("one")
    def one() -> Any:
        return work(1)

    async def main() -> Any:
        return await asyncio.gather(work(2), one(), work(3))

    assert asyncio.run(main()) == [2, 1, 3]
    assert features(inspector) == ["one"]


@pytest.mark.usefixtures("inspector")
def test_threads_and_recursion() -> None:
    """Every call of eight threads counts, recursive calls included."""

    @track_feature("f")
    def function(depth: int) -> int:
        return depth and function(depth - 1)

    threads = [threading.Thread(target=lambda: [function(9) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(10)
    assert account_closes().accepted == 4_000


def test_a_forked_child_counts_its_own_calls(inspector: Inspector) -> None:
    """Watching goes on in a forked child."""

    @track_feature("f")
    def function() -> None:
        """Do nothing."""

    function()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0 if flush(10) and stats().accepted == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert features(inspector) == ["f"] * 2


@pytest.mark.skipif(sys.platform == "emscripten", reason="no process can be started")
@pytest.mark.slow
def test_a_spawned_child_tracks(inspector: Inspector) -> None:
    """A watched function is pickled by its name and tracked in the spawned process."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level  # noqa: S301
    assert copy.copy(module_level) is module_level
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(module_level, (5,)) == (5, "x")
    assert inspector.items() == []  # the child has no key of its own


def test_functions_made_again_and_again_leave_nothing() -> None:
    """No code, template or registration outlives a function that a factory made."""

    def factory() -> Callable[[], int]:
        @track_feature("f")
        def made() -> int:
            return 1

        return made

    factory()()
    flush(10)
    gc.collect()
    before = len(stack.watched_codes)
    codes = []
    for _ in range(100):
        made = factory()
        made()
        codes.append(weakref.ref(made.__code__))
    del made
    flush(10)
    gc.collect()
    assert [code() for code in codes if code() is not None] == []
    assert len(stack.watched_codes) == before
