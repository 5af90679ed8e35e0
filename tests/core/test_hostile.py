"""No public call raises for any argument; a bad argument at decoration raises a clear error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ts_autotrack as ts
from tests.core.test_snapshot import anything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector


class Hostile:
    """Raises from every method that Python or this library may call."""

    def __init__(self, error: type[Exception], hash_of: object) -> None:
        self.__dict__.update(error=error, hash_of=hash_of)

    def __hash__(self) -> int:
        return hash(self.__dict__["hash_of"])

    def _fail(self, *_: object, **__: object) -> Any:
        raise self.__dict__["error"]

    __eq__ = __ne__ = __len__ = __bool__ = __iter__ = __getitem__ = __contains__ = _fail
    __str__ = __repr__ = __format__ = __float__ = __int__ = __index__ = __getattr__ = items = keys = _fail
    __lt__ = __gt__ = __call__ = _fail

    @property
    def __class__(self) -> Any:
        raise self.__dict__["error"]

    @__class__.setter
    def __class__(self, kind: object) -> None:
        raise self.__dict__["error"]


class HostileDict(dict[Any, Any]):
    """A dict that raises from every method, and holds a value."""

    def _fail(self, *_: object) -> Any:
        raise LookupError

    __len__ = __bool__ = __iter__ = __getitem__ = __contains__ = __eq__ = __str__ = __repr__ = _fail
    items = keys = values = get = pop = copy = _fail
    __hash__ = None


class HostileText(str):
    """A text that raises from every method."""

    __slots__ = ()

    def _fail(self, *_: object) -> Any:
        raise LookupError

    strip = isascii = lower = endswith = __str__ = __repr__ = __format__ = __len__ = __eq__ = _fail
    __hash__ = str.__hash__


objects = st.builds(
    Hostile, st.sampled_from([LookupError, RecursionError, RuntimeError]), st.sampled_from(["group_id", 1])
)
hostile = objects | st.just(HostileDict(a=1)) | st.just(HostileText("text"))
argument = (
    anything
    | hostile
    | st.lists(hostile)
    | st.dictionaries(st.text(), anything | hostile, max_size=3)
    | st.builds(lambda key, value: {key: value}, objects, hostile)  # one key: two would be compared
)


def tracked(given: Any) -> None:
    """Use every form of capture."""

    @ts.track_feature("f", capture=["value"], properties=lambda _: given, on="always")
    def function(value: object) -> object:
        ts.add_properties(value=value)
        return value

    function(given)
    with ts.track_feature("block", user_id=given, group_id=given) as use:
        use.set(value=given)
        ts.add_properties(value=given)


def block(given: Any) -> None:
    """Use a block of identity."""
    with ts.user_context(given, group_id=given, device_type=given, context=given, value=given), ts.suppress():
        ts.track("e")


CALLS: list[Callable[[Any], object]] = [
    tracked,
    block,
    lambda given: ts.track(given, given, user_id=given, group_id=given, timestamp=given, context=given),
    lambda given: ts.track("e", {"value": given}, user_id="u", timestamp=given),
    lambda given: ts.track("e", given, user_id="u", context=given),
    lambda given: ts.identify(given, user_id=given),
    lambda given: ts.group(given, given, group_type=given),
    lambda given: ts.group("g", given, group_type=given),
    lambda given: ts.bind_user(given, group_id=given, session_id=given, context=given, value=given),
    lambda _: ts.clear_user(),
    lambda _: (ts.stats(), ts.rejected()),
]


@pytest.fixture
def unbound() -> Iterator[None]:
    """Forget what the calls have bound."""
    yield
    ts.clear_user()


@pytest.mark.usefixtures("inspector", "unbound")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(argument)
def test_no_call_raises(given: Any) -> None:
    """Every public call takes any argument; an argument without sense is ignored, marked, or counted as invalid."""
    for call in CALLS:
        call(given)
    assert "fault" not in ts.stats().dropped


@pytest.mark.parametrize("timeout", [None, "soon", float("nan"), -1, 10**400, -(10**400), True, object(), [1]])
def test_any_timeout(inspector: Inspector, timeout: Any) -> None:
    """flush() and shutdown() take any timeout: a number too large waits long, and no number means 5 seconds."""
    ts.track("e", user_id="u")
    ts.flush(timeout)
    assert ts.flush(10)
    assert len(inspector.items()) == 1
    assert ts.shutdown(timeout)


@pytest.mark.parametrize("name", ["event_name", "action", "feature_type", "interface", "on", "capture"])
@pytest.mark.parametrize("make", [lambda: Hostile(LookupError, 1), lambda: 7])
def test_bad_arguments_at_decoration_are_explained(name: str, make: Callable[[], Any]) -> None:
    """A bad argument of `track_feature` raises an error that names the argument, even if its `repr` raises."""
    with pytest.raises((TypeError, ValueError), match=name):
        ts.track_feature(**{name: make()})
