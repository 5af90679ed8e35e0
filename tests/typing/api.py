"""Never run: mypy and pyright read this module to check the types of decorated callables."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from functools import partial
from typing import Any

from typing_extensions import assert_type

from ts_autotrack import flush, observe_requests, stats, suppress, track_feature, user_context
from ts_autotrack._core.capture.block import FeatureUse
from ts_autotrack._core.capture.feature import Feature
from ts_autotrack.typing import FinishedCall, Stats


@track_feature("function", capture=["a"])
def function(a: int, /, b: str = "x", *, c: bool = False) -> list[str]:
    """Have a signature."""
    return [b] * a if c else []


@track_feature
def bare(a: int) -> str:
    """Have a signature."""
    return str(a)


@track_feature("coroutine")
@user_context("u")
@suppress()
async def coroutine(a: int) -> str:
    """Have a signature."""
    return str(a)


@track_feature("generator")
def generator(a: int) -> Generator[int, str, bytes]:
    """Have a signature."""
    yield a
    return b""


@track_feature("stream")
async def stream(a: int) -> AsyncGenerator[int, None]:
    """Have a signature."""
    yield a


class Shop:
    """Methods in both orders."""

    @track_feature("method")
    def method(self, a: int) -> int:
        """Have a signature."""
        return a

    @classmethod
    @track_feature("class")
    def inside(cls, a: int) -> int:
        """Have a signature."""
        return a

    @track_feature("class")
    @classmethod
    def outside(cls, a: int) -> int:
        """Have a signature."""
        return a

    @track_feature("static")
    @staticmethod
    def static(a: int) -> int:
        """Have a signature."""
        return a


def describe(call: FinishedCall) -> Mapping[str, object]:
    """Make properties."""
    return {"rows": call.result}


async def check() -> None:
    """Assert the type of each form."""
    assert_type(function(1, "b", c=True), list[str])
    assert_type(bare(1), str)
    assert_type(await coroutine(1), str)
    assert_type(generator(1), Generator[int, str, bytes])
    assert_type(stream(1), AsyncGenerator[int, None])
    assert_type(Shop().method(1), int)
    assert_type(Shop.inside(1), int)
    assert_type(Shop.outside(1), int)
    assert_type(Shop.static(1), int)
    assert_type(track_feature("partial")(partial(bare, 1))(), str)
    assert_type(track_feature("described", properties=describe), Feature)
    assert_type(flush(1.0), bool)
    assert_type(stats(), Stats)
    assert_type(observe_requests(print), Callable[[], None])
    with track_feature("block") as use:
        assert_type(use, FeatureUse)
    async with track_feature("block") as use:
        assert_type(use, FeatureUse)
    plain: Callable[[int], str] = bare
    awaited: Callable[[int], Coroutine[Any, Any, str]] = coroutine
    function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    track_feature("f", on="never")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    del plain, awaited
