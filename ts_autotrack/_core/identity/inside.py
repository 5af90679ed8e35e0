"""The wrappers of user_context and suppress as decorators.

The templates become closures with the function's own argument list (see `closures`); in a template `ts` is this module,
and `py` the module `builtins`. The block is entered for each step of a generator, so that the consumer's code between
two steps runs outside.
"""

from __future__ import annotations

import builtins
import sys

from ts_autotrack._core.callables import (  # noqa: F401 - for the templates
    CO_ITERABLE_COROUTINE,
    ReturnedWork,
    drop_frame,
    first_step,
    is_held_elsewhere,
    kind_of_result,
)
from ts_autotrack._core.closures import closure

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.identity.scope import BlockEntry

    class Block(Protocol):
        """A block with a scope of its own."""

        def enter(self) -> BlockEntry:
            """Make the inner scope current."""
            ...

        def leave(self, entry: BlockEntry) -> None:
            """End one entering of the block."""
            ...


FILENAME = "<ts_autotrack block>"
"""File name of the wrappers' code."""

_FUNCTION = """
def call({parameters}):
    with ts.Inside(ts_block):
        try:
            ts_result = ts_function({arguments})
        except py.BaseException as ts_error:
            ts.drop_frame(ts_error)
            raise
    ts_result = ts.follow(ts_block, ts_result)
    return ts_result
"""
_COROUTINE = """
async def call({parameters}):
    with ts.Inside(ts_block):
        try:
            ts_coroutine = ts_function({arguments})
            {forget}
            return await ts_coroutine
        except py.BaseException as ts_error:
            ts.drop_frame(ts_error)
            raise
"""
_GENERATOR = """
def call({parameters}):
    try:
        ts_generator = ts_function({arguments})
        {forget}
        with ts.Inside(ts_block):
            ts_items = [py.next(ts_generator)]
        while True:
            try:
                ts_items.append((yield ts_items.pop()))
                ts_step = ts_generator.send
            except py.BaseException as ts_thrown:
                ts.drop_frame(ts_thrown)
                ts_items.append(ts_thrown)
                ts_step = ts_generator.throw
            with ts.Inside(ts_block):
                ts_items.append(ts_step(ts_items.pop()))
    except py.StopIteration as ts_stop:
        return ts_stop.value
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        raise
"""
_ASYNC_GENERATOR = """
async def call({parameters}):
    try:
        ts_generator = ts_function({arguments})
        {forget}
        ts_step, ts_items = ts.first_step(ts_generator), []
        while True:
            try:
                with ts.Inside(ts_block):
                    ts_items.append(await ts_step)
            except py.StopAsyncIteration:
                return
            ts_step = None
            try:
                ts_step = ts_generator.asend((yield ts_items.pop()))
            except py.BaseException as ts_thrown:
                if ts_generator.ag_frame is None:  # others have closed it
                    raise
                ts.drop_frame(ts_thrown)
                ts_step = ts_generator.athrow(ts_thrown)
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        raise
"""
_TEMPLATES: dict[Kind, str] = {
    "function": _FUNCTION,
    "coroutine": _COROUTINE,
    "generator": _GENERATOR,
    "generator coroutine": _GENERATOR,
    "async generator": _ASYNC_GENERATOR,
}


class Inside:
    """One entering of a block shared by many calls: each call ends its own entry only."""

    __slots__ = ("_block", "_entry")

    def __init__(self, block: Block) -> None:
        self._block = block

    def __enter__(self) -> None:
        self._entry = self._block.enter()

    def __exit__(self, *_: object) -> None:
        self._block.leave(self._entry)


def wrap_inside(block: Block, function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a closure of the given kind around `function`; its work is done inside the block."""
    cells = {"ts": _SELF, "py": builtins, "ts_block": block}
    flags = CO_ITERABLE_COROUTINE if kind == "generator coroutine" else 0
    return closure(_TEMPLATES[kind], function, cells, filename=FILENAME, flags=flags)


def follow(block: Block, result: Any) -> Any:
    """Return the result of a plain function; a coroutine or generator is wrapped, so that it runs inside the block."""
    kind = kind_of_result(result)
    if kind is None or kind in {"future", "response"} or is_held_elsewhere(result):  # a task has a copy of the context
        return result
    followed = wrap_inside(block, ReturnedWork(result), kind)()
    followed.__name__, followed.__qualname__ = result.__name__, result.__qualname__
    return followed


_SELF = sys.modules[__name__]
