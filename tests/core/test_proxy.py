"""Proxies: they bind, copy, pickle and refuse as their targets do."""

from __future__ import annotations

import collections.abc
import contextlib
import copy
import enum
import functools
import gc
import operator
import os
import pickle
import sys
import typing
import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from tests.core.subjects import AsyncCallable, Callable3, Library, by_wrapt, module_level
from ts_autotrack import suppress, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


def enter(value: Any) -> object:
    """Enter a block."""
    with value as entered:
        return entered


ABSTRACT = [getattr(collections.abc, name) for name in collections.abc.__all__ if name != "ByteString"] + [
    *(contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager, os.PathLike),
    *(typing.SupportsInt, typing.SupportsFloat, typing.SupportsComplex, typing.SupportsIndex),
    *(typing.SupportsBytes, typing.SupportsAbs, typing.SupportsRound),
]
OPERATIONS: list[Callable[[Any], object]] = [
    *(iter, len, next, reversed, hash, int, float, complex, bytes, abs, round, aiter, operator.index, os.fspath),
    *(lambda value: value[0], lambda value: 1 in value, lambda value: list(value)[:1], enter),
]


class Everything(Callable3):
    """A callable object that can be iterated, entered, awaited and more."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Everything)

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter([1])

    def __reversed__(self) -> Iterator[int]:
        return iter([2])

    def __contains__(self, item: object) -> bool:
        return item == 1

    def __getitem__(self, key: int) -> int:
        return key

    def __await__(self) -> Iterator[int]:
        return iter([1])

    def __aiter__(self) -> Everything:
        return self

    def __enter__(self) -> int:
        return 5

    def __exit__(self, *_: object) -> None:
        pass

    def __int__(self) -> int:
        return 7

    def __bytes__(self) -> bytes:
        return b"8"

    def __fspath__(self) -> str:
        return "path"


class Rows(Callable3):
    """A callable object with items, which Python can iterate and search without further methods."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, key: int) -> int:
        return (1, 2)[key]


class Stream(Callable3):
    """A callable object that can be iterated, and so searched."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


TARGETS: list[Any] = [
    *(len, functools.partial(max, 1), Callable3(), AsyncCallable(), Everything(), functools.lru_cache(Callable3())),
    *(Library().cached, Library().plain, by_wrapt(module_level), operator.itemgetter(1), str.upper, {}.get),
]


def outcome(call: Callable[[Any], object], value: object) -> object:
    """Return the result of a call, or a text for a refusal: some versions of Python raise another class of error."""
    try:
        result = call(value)
    except (TypeError, AttributeError):
        return "refused"
    return result if isinstance(result, int | str | bytes) else type(result)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_a_proxy_answers_to_the_protocols_of_its_target(target: Any) -> None:
    """Abstract classes, operations and attributes find the target's protocols in the proxy, and no others."""
    tracked = track_feature("x")(target)
    for abstract in ABSTRACT:
        assert isinstance(tracked, abstract) == isinstance(target, abstract), abstract
    for operation in OPERATIONS:
        assert outcome(operation, tracked) == outcome(operation, target), operation
    for name in ("__get__", "__iter__", "__len__", "__enter__", "__await__", "__aiter__", "__getitem__", "__hash__"):
        assert (getattr(tracked, name, None) is None) == (getattr(target, name, None) is None), name
        if name != "__hash__":
            assert hasattr(tracked, name) == hasattr(target, name), name


@pytest.mark.parametrize("target", [Rows(), Stream()], ids=["items", "iteration"])
def test_operations_that_python_derives_work_through_a_proxy(target: Any) -> None:
    """Items are enough for iteration, and iteration is enough for a search."""
    tracked = track_feature("x")(target)
    for operation in OPERATIONS:
        assert outcome(operation, tracked) == outcome(operation, target), operation


def test_enum_members_stay_members() -> None:
    """A tracked partial or callable object is a member of an Enum if its target is."""

    class Plain(enum.Enum):
        PARTIAL = functools.partial(operator.add)
        OBJECT = Callable3()
        BUILTIN = len

    class Tracked(enum.Enum):
        PARTIAL = track_feature("a")(functools.partial(operator.add))
        OBJECT = track_feature("b")(Callable3())
        BUILTIN = track_feature("c")(len)

    assert [member.name for member in Tracked] == [member.name for member in Plain]


def test_methods_of_proxies_are_pickled_copied_and_referred_to(inspector: Inspector) -> None:
    """A cached method is a plain bound method of a proxy, for pickle, copy, comparison and weak references."""
    library: Any = Library()
    assert issubclass(type(library.cached), MethodType)
    assert library.cached == library.cached
    twins = [
        pickle.loads(pickle.dumps(library.cached)),  # noqa: S301
        copy.copy(library.cached),
        copy.deepcopy(library.cached),
        weakref.WeakMethod(library.cached)(),
        MethodType(Library.cached, library),
    ]
    for twin in twins:
        assert twin is not None
        assert twin(2) == 2
    assert copy.copy(library.cached).__self__ is library
    assert copy.deepcopy(library.cached).__self__ is not library
    assert library.cached.cache_info().hits > 0
    assert [(p["feature_name"], p["value"]) for p in arrived(inspector)] == [("cached_method", 2)] * len(twins)


def test_methods_of_other_descriptors_are_pickled_and_copied(inspector: Inspector) -> None:
    """A method that another library binds, or that binds a function of its own, is found by its name again."""
    library = Library()
    for method in (library.by_wrapt, library.by_descriptor):
        for twin in (
            pickle.loads(pickle.dumps(method)),  # noqa: S301
            copy.copy(method),
            copy.deepcopy(method),
        ):
            assert twin(3) == 3
    reference = weakref.WeakMethod(library.by_descriptor)
    gc.collect()
    bound = reference()
    assert bound is not None
    assert bound(3) == 3
    assert copy.deepcopy(library.by_wrapt).__self__ is not library
    assert [p["value"] for p in arrived(inspector)] == [3] * 7


def test_weak_references_to_a_tracked_bound_method(inspector: Inspector) -> None:
    """`WeakMethod` of a tracked bound method lives as long as the object, and its calls are tracked."""
    library = Library()
    reference = weakref.WeakMethod(track_feature("event", capture=["value"])(library.plain))
    gc.collect()
    method: Any = reference()
    assert method(1) == 1
    with pytest.raises(TypeError):
        method()
    del library, method
    gc.collect()
    assert reference() is None
    assert arrived(inspector) == [{"feature_name": "event", "action": "plain", "value": 1}]


def test_tracked_bound_methods_are_freed() -> None:
    """A bound method that is decorated again and again, as in a request, leaves nothing behind."""
    library = Library()
    classes = [weakref.ref(type(track_feature("event")(library.plain))) for _ in range(10)]
    gc.collect()
    assert [reference() for reference in classes] == [None] * 10


def test_proxies_of_the_same_protocols_share_a_class() -> None:
    """Decorating many partials makes one class."""
    first, second = (track_feature("x")(functools.partial(max, number)) for number in (1, 2))
    assert type(first) is type(second)


def test_blocks_as_decorators_bind_and_copy_alike(inspector: Inspector) -> None:
    """`user_context` and `suppress` as decorators of a cached method keep binding, pickle and weak references."""
    library = Library()
    for block, events in ((user_context("user_2"), 1), (suppress(), 0)):
        method = block(library.cached)
        method(4)
        reference = weakref.WeakMethod(method)()
        assert reference is not None
        reference(4)
        copy.copy(method)(4)
        assert len(arrived(inspector)) == 3 * events
        inspector.forget()


def test_a_descriptor_may_give_something_else() -> None:
    """A descriptor whose result is not callable gives this result through the proxy, too."""

    class Odd(Callable3):
        def __get__(self, instance: object, owner: object = None) -> str:
            return "text"

    class Owner:
        odd = track_feature("odd")(Odd())

    assert Owner().odd == "text"


def test_attributes_set_on_a_proxy_are_the_target_s() -> None:
    """Setting and deleting attributes of a proxy changes the target."""
    target: Any = Callable3()
    tracked = track_feature("x")(target)
    tracked.label = "a"
    assert target.label == "a"
    del target.label
    assert not hasattr(tracked, "label")
    assert sys.getsizeof(tracked) > 0
