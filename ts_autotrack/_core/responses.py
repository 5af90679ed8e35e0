"""Responses of web frameworks: a tracked view that returns a response with an error status has failed."""

from __future__ import annotations

from ts_autotrack._core.callables import WORK
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import class_name

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, TypeAlias

    Status: TypeAlias = Callable[[Any, CodeType], int | None]

FIRST_ERROR = 400
"""Lowest status of a response that is no success."""

_status: dict[type, Status] = {}


class FailedResponse(Exception):  # noqa: N818 - a response is no error of the program
    """Stands for the response of a call that returned an error status; nobody raises it.

    Attributes:
        status: HTTP status of the response.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the response has status {status}")
        self.status = status


def register_response(kind: type, status: Status | None = None) -> None:
    """Let tracked functions that return a response with a status of 400 or more count as failed, as if they had raised.

    The integrations of web frameworks call this; call it for a framework of your own. All subclasses that exist at the
    moment are registered, too; a further call finds later subclasses.

    Args:
        kind: Class of the responses.
        status: Callable that takes the response and the code of the tracked function (or of its wrapper), and returns
            the HTTP status, or None if the object is no response. Default: the attribute `status_code`.

    Raises:
        TypeError: If `kind` is no class.

    Example:
        >>> from ts_autotrack import register_response
        >>> class Reply:
        ...     status_code = 404
        >>> register_response(Reply)
    """
    if not isinstance(kind, type):
        message = f"register_response({kind!r}): expected a class"
        raise TypeError(message)
    waiting, seen = [kind], set()
    while waiting:
        found = waiting.pop()
        if found not in seen:
            seen.add(found)
            _status[found] = status or _status_code
            WORK.setdefault(found, "response")
            waiting += type.__subclasses__(found)


def failed_response(result: object, code: CodeType) -> FailedResponse | None:
    """Return the failure that a response means; None if it means success. Never raises."""
    try:
        status = _status[type(result)](result, code)
        return FailedResponse(status) if status is not None and status >= FIRST_ERROR else None
    except Exception as error:  # noqa: BLE001 - the application's response
        warn_once(
            ("response", type(result)),
            f"reading the status of a response of class {class_name(result)} raised {type(error).__name__}; it counts "
            "as a success",
        )
        return None


def _status_code(response: Any, _: CodeType) -> int | None:
    status: int | None = response.status_code
    return status
