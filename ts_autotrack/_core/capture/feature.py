"""track_feature: decorator and context manager."""

from __future__ import annotations

from ts_autotrack._core.callables import attribute, know_futures, name_of
from ts_autotrack._core.capture import mechanisms
from ts_autotrack._core.capture.arguments import split
from ts_autotrack._core.capture.block import FeatureUse, open_use
from ts_autotrack._core.capture.call import CaptureRule, count_invalid
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.capture.stack import current_frame, innermost_call, place
from ts_autotrack._core.capture.watching import watch
from ts_autotrack._core.capture.wrappers import wrap_function
from ts_autotrack._core.closures import CODE_NAME
from ts_autotrack._core.contract import FEATURE_TYPES, FEATURE_USED, INTERFACES, TRACK
from ts_autotrack._core.decorate import decorate
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import class_name
from ts_autotrack._core.identity.ids import NoIdError, read_id
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack._core.snapshot import UNCOUNTED_BYTES, has_items, snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, FunctionType, TracebackType
    from typing import Any, TypeVar, overload

    from ts_autotrack._core.callables import Kind, Wrap
    from ts_autotrack._core.capture.call import Argument
    from ts_autotrack.typing import FeatureType, Interface, Outcome, Properties

    F = TypeVar("F")
    C = TypeVar("C", bound=Callable[..., Any])
else:

    def overload(function: Any) -> Any:
        """Stand in for typing.overload: only type checkers read it."""
        return function


OUTCOMES = ("success", "error", "always")


class Feature:
    """Decorator and context manager returned by `track_feature(...)`."""

    __slots__ = ("_entered", "_options")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._entered: list[FeatureUse] = []

    def __call__(self, function: F, /) -> F:
        """Return `function` tracked, with the same signature and of the same kind.

        Raises:
            TypeError: If `function` is a class or not callable, or has no argument named in `capture`, or if a given
                `user_id` or `group_id` is no id.
        """
        if self._options["refusal"]:
            raise TypeError(self._options["refusal"])
        decorated: F = decorate(self, function)
        return decorated

    def decorate_function(self, function: FunctionType, kind: Kind) -> Callable[..., Any]:
        """Return a plain function tracked: watched where Python allows it, else wrapped."""
        rule = self._rule_of(function)
        if (watched := self._watch(function, kind, rule)) is not None:
            return watched
        mechanisms.note(rule.template.where, self._options["name"] or function.__name__, "wrapped")
        return wrap_function(rule, function, kind)

    def watch_in_place(self, function: FunctionType, kind: Kind) -> bool:
        """Track a function that is in use already, for all callers that hold it; return False if it needs a wrapper."""
        return self._watch(function, kind, self._rule_of(function), in_place=True) is not None

    def _rule_of(self, function: FunctionType) -> CaptureRule:
        know_futures()
        names, arguments, code_name = split(function, self._options["capture"])
        return self._rule(function.__name__, _where(function), names, arguments, code_name)

    def _watch(
        self, function: FunctionType, kind: Kind, rule: CaptureRule, *, in_place: bool = False
    ) -> FunctionType | None:
        if not rule.plain or self._options["capture"]:
            return None
        watched = watch(function, kind, rule, in_place=in_place)
        if watched is not None:
            mechanism = "watched in place" if in_place else "watched"
            mechanisms.note(rule.template.where, self._options["name"] or function.__name__, mechanism)
        return watched

    def prepare(self, target: Any) -> Wrap:
        """Return the factory of the closures around another callable than a function."""
        know_futures()
        names, arguments, code_name = split(target, self._options["capture"])
        rule = self._rule(name_of(target), _where(target), names, arguments, code_name)
        mechanisms.note(rule.template.where, self._options["name"] or name_of(target), "wrapped")

        def wrap(function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            return wrap_function(rule.bound() if bound else rule, function, "function")

        return wrap

    def __enter__(self) -> FeatureUse:
        """Open the block.

        Raises:
            TypeError: If the feature has no name.
        """
        return self._enter(current_frame(1))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(exc, current_frame(1))

    async def __aenter__(self) -> FeatureUse:
        return self._enter(current_frame(1))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(exc, current_frame(1))

    def _leave(self, error: BaseException | None, caller: FrameType) -> None:
        use = open_use()
        if use is None or use.owner is not self:  # left in another context, or before an inner block
            if len(self._entered) != 1:  # a wrong choice would give the event another user and other properties
                count_invalid(
                    f"{self._options['name']!r}: a shared block was left where it is not open; use one block each time"
                )
                return
            use = self._entered[0]
        self._entered.remove(use)
        use.leave(error, caller)

    def _enter(self, caller: FrameType) -> FeatureUse:
        if self._options["name"] is None:
            message = "a `with track_feature(...)` block needs the feature's name: track_feature('export')"
            raise TypeError(message)
        refusal = self._options["refusal"]
        if refusal:  # a block's ids are data of the moment: never an error of the application
            warn_once(("id", refusal), f"{refusal}. The block has no such id")
        given = self._options["properties"]
        properties: dict[str, Any] = {} if given is None or callable(given) else snapshot(given)
        use = FeatureUse(self._rule(None, place(caller)), self, innermost_call(caller), properties)
        self._entered.append(use)
        use.enter(caller)
        return use

    def _rule(
        self,
        function_name: str | None,
        where: str,
        names: tuple[str, ...] = (),
        arguments: tuple[Argument, ...] = (),
        code_name: str = CODE_NAME,
    ) -> CaptureRule:
        options = self._options
        known = {
            "feature_name": options["name"] or function_name,
            "feature_type": options["feature_type"],
            "action": options["action"] or function_name,
            "interface": options["interface"],
        }
        properties = {key: value for key, value in known.items() if value is not None}
        given: Any = options["properties"]
        describe: Any = None
        if callable(given):
            describe = given
        elif given is not None and function_name is not None:  # a block counts its properties with its event
            properties |= snapshot(given)
        event_name, user_id, group_id = options["event_name"], options["user_id"], options["group_id"]
        size = 0
        if function_name is None:  # a block, which has a template of its own
            size = sum(len(text) for text in (event_name, user_id, group_id, *properties.values()) if text)
        template = EventTemplate(
            TRACK, event_name, properties, where, user_id, group_id, names, size if size > UNCOUNTED_BYTES else 0
        )
        return CaptureRule(template, arguments, options["on"], describe, code_name)

    def __reduce__(self) -> Any:
        return Feature, (self._options,)


@overload
def track_feature(name: C, /) -> C: ...


@overload
def track_feature(  # noqa: F811, PLR0913 - the contract's known properties
    name: str | None = None,
    *,
    event_name: str = FEATURE_USED,
    feature_type: FeatureType | None = None,
    action: str | None = None,
    interface: Interface | None = None,
    properties: Properties | None = None,
    capture: Iterable[str] = (),
    on: Outcome = "success",
    user_id: object = None,
    group_id: object = None,
) -> Feature: ...


def track_feature(  # noqa: F811, PLR0913 - the contract's known properties
    name: Any = None,
    *,
    event_name: str = FEATURE_USED,
    feature_type: FeatureType | None = None,
    action: str | None = None,
    interface: Interface | None = None,
    properties: Properties | None = None,
    capture: Iterable[str] = (),
    on: Outcome = "success",
    user_id: object = None,
    group_id: object = None,
) -> Any:
    """Send an event for each successful call of a function, or each successful run of a block.

    Works on functions, coroutine functions, generators, async generators, methods, classmethods, staticmethods, tasks
    and commands of other libraries, and any other callable but a class, with arguments or bare. As a block (`with` or
    `async with`) the result gives an object whose `set(**properties)` attaches properties.

    A call makes its event at its end, a generator at its end or when the consumer closes it, and a plain function that
    returns a coroutine, generator or future at the end of that work. Exceptions pass through unchanged. An exit with
    status 0 (`SystemExit`, click's and typer's `Exit`) is a success. Exceptions by which a task speaks to its queue
    (Celery's `Retry`, `Ignore` and `Reject`, dramatiq's `Retry`, taskiq's `NoResultError` and `TaskRejectedError`) are
    no outcome: no event, whatever `on` says. With Celery's `autoretry_for` a decorator above `@app.task` sees the last
    attempt alone; below it, or with `@shared_task`, each failed attempt counts for `on="error"` and `on="always"`.

    On CPython 3.12 and newer a function, coroutine function or generator function with `on="success"`, no `capture` and
    no callable `properties` is not wrapped: `sys.monitoring` reports its end. A function that is being defined is
    returned itself; a function that already has its name is copied, and calls of the original make no event. All
    other functions get a wrapper, which belongs below decorators that register the function. Not seen are calls of a
    copy pickled by value, and an exit with status 0 that a called function raises.

    Args:
        name: The feature, sent as `properties.feature_name`; the vendor asks for snake_case. Default: the function's
            name.
        event_name: The event's name. The vendor's feature reports read "feature_used".
        feature_type: "core", "sticky" or "support" (in the vendor's older reference also "secondary", "add-on").
        action: Sent as `properties.action`. Default: the function's name; none for a block.
        interface: "api", "cli" or "agent", for a surface other than a browser.
        properties: Further properties: a dict, or a callable that takes the `FinishedCall` and returns a dict. The
            callable runs on the caller's thread and keeps the call's arguments alive until then. An exception in the
            callable, or in a signal handler at that moment, stops there: the event is sent without these properties.
        capture: Names of arguments to copy into the properties, with their values before the call (of a generator:
            before its first step). No other argument is copied. An argument of a function behind other decorators is
            taken where the decorator calls that function.
        on: "success" (the vendor counts engagement, not errors), "error", or "always". "always" adds
            `properties.outcome`: "success" or "error".
        user_id: Overrides the acting user, for a service account or a job. A value that is no id raises at decoration;
            in a block the event then has no user. An empty text means nobody, not the acting user.
        group_id: Overrides the user's account, likewise.

    Returns:
        The decorated function if used bare; otherwise an object that is both a decorator and a context manager. A task
        or command is returned itself.

    Raises:
        TypeError: At decoration, if an argument is of the wrong type or `capture` names no argument of the function.
        ValueError: If `feature_type`, `interface` or `on` has a value other than the listed values.

    Example:
        >>> from ts_autotrack import track_feature
        >>> @track_feature("report_export", feature_type="core", capture=["format"])
        ... def export_report(format="pdf"):
        ...     return format
        >>> export_report("csv")
        'csv'
    """
    bare = not (name is None or issubclass(type(name), str))
    options = {
        "name": _text("name", None if bare else name),
        "event_name": _text("event_name", event_name),
        "feature_type": _one_of("feature_type", feature_type, FEATURE_TYPES),
        "action": _text("action", action),
        "interface": _one_of("interface", interface, INTERFACES),
        "properties": _properties(properties),
        "capture": _names(capture),
        "on": _one_of("on", on, OUTCOMES),
    }
    options["user_id"], no_user = _id("user_id", user_id)
    options["group_id"], no_group = _id("group_id", group_id)
    options["refusal"] = no_user or no_group
    feature = Feature(options)
    return feature(name) if bare else feature


def _text(parameter: str, value: object) -> str | None:
    if value is None and parameter != "event_name":
        return None
    if issubclass(type(value), str) and (text := str.strip(value)):  # type: ignore[arg-type]
        return text
    message = f"track_feature({parameter}={_shown(value)}): expected a text that is not empty"
    raise TypeError(message)


def _id(parameter: str, value: object) -> tuple[str | None, str]:
    """Return an id, None if not given, and an empty text for nobody; besides the reason why a value is no id."""
    try:
        return (None if value is None else read_id(value) or ""), ""
    except NoIdError as refusal:
        return "", f"track_feature({parameter}=...): {refusal}"


def _one_of(parameter: str, value: object, allowed: tuple[str, ...]) -> object:
    if value is None and parameter != "on":
        return None
    if issubclass(type(value), str) and value in allowed:
        return value
    message = f"track_feature({parameter}={_shown(value)}): expected one of {', '.join(allowed)}"
    if issubclass(type(value), str):
        message += did_you_mean(str(value), allowed)
    raise ValueError(message)


def _properties(value: object) -> object:
    if value is None or callable(value) or has_items(value):
        return value
    message = f"track_feature(properties=...): expected a dict or a callable, not {class_name(value)}"
    raise TypeError(message)


def _names(value: Any) -> tuple[str, ...]:
    try:
        names = (value,) if issubclass(type(value), str) else tuple(value)
        if all(issubclass(type(name), str) for name in names):
            return names
    except Exception:  # noqa: BLE001, S110 - no iterable; the message follows
        pass
    message = f"track_feature(capture=...): expected names of arguments, not {class_name(value)}"
    raise TypeError(message)


def _shown(value: object) -> str:
    """Return a text, or the class of another value: its `repr` may raise."""
    return repr(str(value)[:100]) if type(value) is str else class_name(value)


def _where(target: Any) -> str:
    module, name = attribute(target, "__module__"), attribute(target, "__qualname__") or name_of(target)
    line = attribute(attribute(target, "__code__"), "co_firstlineno")
    return f"{module}.{name}" + (f", line {line}" if type(line) is int and line else "")
