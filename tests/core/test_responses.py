"""Responses of web frameworks: an error status is a failure of the view."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from ts_autotrack import register_response, stats, track_feature

if TYPE_CHECKING:
    from types import CodeType

    from tests.conftest import Inspector
    from ts_autotrack.typing import FinishedCall


class Reply:
    """A response of some framework."""

    def __init__(self, status_code: Any) -> None:
        self.status_code = status_code


class JsonReply(Reply):
    """A subclass."""


register_response(Reply)


@pytest.mark.usefixtures("acting")
@pytest.mark.parametrize("made", [Reply, JsonReply])
def test_an_error_status_is_no_success(inspector: Inspector, made: type[Reply]) -> None:
    """A view of any kind that returns a response with a status of 400 or more makes no event of success."""

    @track_feature("view")
    def view(status: int) -> Reply:
        return made(status)

    @track_feature("async_view")
    async def async_view(status: int) -> Reply:
        return made(status)

    @track_feature("captured", capture=["status"])
    def captured(status: int) -> Reply:
        return made(status)

    for status in (200, 302, 399, 400, 404, 500):
        assert view(status).status_code == status
        assert asyncio.run(async_view(status)).status_code == status
        captured(status)
    names = [event["feature_name"] for event in arrived(inspector)]
    assert {name: names.count(name) for name in names} == {"view": 3, "async_view": 3, "captured": 3}
    assert [event["status"] for event in arrived(inspector) if "status" in event] == [200, 302, 399]


@pytest.mark.usefixtures("acting")
def test_a_failure_as_if_it_had_raised(inspector: Inspector) -> None:
    """`on="error"`, `on="always"` and the properties' callable see the failure, with the response."""

    def describe(call: FinishedCall) -> dict[str, object]:
        return {"seen": call.result.status_code, "error": str(call.error)}

    @track_feature("view", on="error", properties=describe)
    def view(status: int) -> Reply:
        return Reply(status)

    @track_feature("other", on="always")
    async def other(status: int) -> Reply:
        return Reply(status)

    for status in (204, 410):
        view(status)
        asyncio.run(other(status))
    first, second, third = arrived(inspector)
    assert first["outcome"] == "success"
    assert (second["seen"], second["error"]) == (410, "the response has status 410")
    assert third["outcome"] == "error"


@pytest.mark.usefixtures("acting")
def test_a_status_of_its_own(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """The status may come from a callable, which sees the code of the function; one that raises costs no event."""

    class Pair(tuple[Any, ...]):
        __slots__ = ()

    codes: list[CodeType] = []

    def status(result: Any, code: CodeType) -> int | None:
        codes.append(code)
        return None if len(result) == 1 else int(result[1])

    register_response(Pair, status)

    @track_feature("view")
    def view(*values: object) -> Pair:
        return Pair(values)

    for values in (("body",), ("body", 200), ("body", 404), ("body", "no number")):
        view(*values)
    assert len(arrived(inspector)) == 3
    assert codes[0] is view.__code__
    assert "reading the status of a response of class" in caplog.text


def test_what_is_no_class() -> None:
    """Only classes are registered."""
    with pytest.raises(TypeError, match="expected a class"):
        register_response(Reply(200))  # type: ignore[arg-type]
    assert stats().accepted == 0
