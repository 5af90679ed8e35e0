"""track_feature: decorator and context manager."""

from __future__ import annotations

import sys

from ts_autotrack._core.capture import wrappers
from ts_autotrack._core.capture.call import Rule, Use, count_invalid, innermost_call, open_use, place
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.decorate import decorate, name_of
from ts_autotrack._core.identity.scope import as_id
from ts_autotrack._core.snapshot import snapshot

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeVar, overload

    from ts_autotrack._core.capture.call import Argument
    from ts_autotrack._core.decorate import Kind, Wrap
    from ts_autotrack.typing import FeatureType, Interface, Outcome, Properties

    F = TypeVar("F")
    C = TypeVar("C", bound=Callable[..., Any])
else:

    def overload(function: Any) -> Any:
        """Stand in for typing.overload: only type checkers read it."""
        return function


FEATURE_TYPES = ("core", "sticky", "support", "secondary", "add-on")
INTERFACES = ("api", "cli", "agent")
OUTCOMES = ("success", "error", "always")


class Feature:
    """What `track_feature(...)` returns: decorates a callable, or is entered as a block."""

    __slots__ = ("_entered", "_options")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._entered: list[Use] = []

    def __call__(self, function: F, /) -> F:
        """Return `function` tracked: same signature, same kind, same object in every way a program can see.

        Raises:
            TypeError: If `function` is a class or not callable, or `capture` names an argument that it has not.
        """
        decorated: F = decorate(self, function)
        return decorated

    def prepare(self, target: Any, kind: Kind) -> Wrap:
        """Make the rule for `target`."""
        rule = self._rule(name_of(target), _where(target), _arguments(target, self._options["capture"]))

        def wrap(function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            return wrappers.wrap(rule.bound() if bound else rule, function, kind)

        return wrap

    def __enter__(self) -> Use:
        """Open the block; raises TypeError if the feature has no name."""
        return self._enter(sys._getframe(1))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        use = open_use()
        if use is None or use.owner is not self:  # left in another context, or before an inner block
            if len(self._entered) != 1:  # whose is it? An event must not get another one's user and properties
                count_invalid(
                    f"{self._options['name']!r}: a shared block was left where it is not open; give each its own"
                )
                return
            use = self._entered[0]
        self._entered.remove(use)
        use.leave(exc)

    async def __aenter__(self) -> Use:
        return self._enter(sys._getframe(1))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _enter(self, caller: Any) -> Use:
        if self._options["name"] is None:
            message = "a `with track_feature(...)` block needs the feature's name: track_feature('export')"
            raise TypeError(message)
        use = Use(self._rule(None, place(caller), ()), self, innermost_call(caller))
        self._entered.append(use)
        use.enter()
        return use

    def _rule(self, function_name: str | None, where: str, arguments: tuple[Argument, ...]) -> Rule:
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
        elif given:
            properties |= snapshot(given)
        names = tuple(name for name, _, _ in arguments)
        site = EventTemplate(
            "/track", options["event_name"], properties, where, options["user_id"], options["group_id"], names
        )
        return Rule(site, arguments, options["on"], describe)

    def __reduce__(self) -> Any:
        return Feature, (self._options,)


@overload
def track_feature(name: C, /) -> C: ...


@overload
def track_feature(  # noqa: F811 - see below
    name: str | None = None,
    *,
    event_name: str = "feature_used",
    feature_type: FeatureType | None = None,
    action: str | None = None,
    interface: Interface | None = None,
    properties: Properties | None = None,
    capture: Iterable[str] = (),
    on: Outcome = "success",
    user_id: object = None,
    group_id: object = None,
) -> Feature: ...


def track_feature(  # noqa: F811 - the contract's known properties
    name: Any = None,
    *,
    event_name: str = "feature_used",
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

    Works on functions, coroutine functions, generators, async generators, methods, classmethods, staticmethods and
    any other callable but a class; with arguments, or bare. As a block (`with` and `async with`) it gives an object
    whose `set(**properties)` attaches properties. The event belongs to finishing: of a generator, to its end or to its
    consumer's closing it. What the function raises passes through unchanged.

    Args:
        name: The feature, as `properties.feature_name`; the vendor asks for snake_case. Default: the function's name.
        event_name: The event's name. The vendor's feature reports read "feature_used".
        feature_type: "core", "sticky" or "support" (the vendor's older reference: "secondary", "add-on").
        action: `properties.action`. Default: the function's name; a block has none.
        interface: "api", "cli" or "agent", when the surface is not a browser.
        properties: Further properties: a dict, or a callable that is given the `FinishedCall` and returns one. The
            callable runs on the caller's thread, and the call's arguments live until it has run. What is raised in it
            (by a signal handler of yours, too) costs the event these properties, and goes no further.
        capture: Names of arguments to copy into the properties, as they are before the call (of a generator: before its
            first step). Nothing else is copied.
        on: "success" (the vendor counts engagement, not errors), "error", or "always", which adds
            `properties.outcome`: "success" or "error".
        user_id: Overrides the acting user, for a service account or a job.
        group_id: Overrides the user's account.

    Returns:
        The decorated function if used bare; otherwise a decorator that is a context manager, too.

    Raises:
        TypeError: At decoration, if an argument is of the wrong type or `capture` names no argument of the function.
        ValueError: If `feature_type`, `interface` or `on` is none of the values above.

    Example:
        >>> from ts_autotrack import track_feature
        >>> @track_feature("report_export", feature_type="core", capture=["format"])
        ... def export_report(format="pdf"):
        ...     return format
        >>> export_report("csv")
        'csv'
    """
    bare = not (name is None or isinstance(name, str))
    options = {
        "name": _named("name", None if bare else name),
        "event_name": _named("event_name", event_name),
        "feature_type": _one_of("feature_type", feature_type, FEATURE_TYPES),
        "action": _named("action", action),
        "interface": _one_of("interface", interface, INTERFACES),
        "properties": _properties(properties),
        "capture": _names(capture),
        "on": _one_of("on", on, OUTCOMES),
        "user_id": as_id(user_id),
        "group_id": as_id(group_id),
    }
    feature = Feature(options)
    return feature(name) if bare else feature


def _named(parameter: str, value: object) -> str | None:
    if value is None and parameter != "event_name":
        return None
    if isinstance(value, str) and value.strip():
        return value.strip()
    message = f"track_feature({parameter}={value!r}): expected a text that is not empty"
    raise TypeError(message)


def _one_of(parameter: str, value: object, allowed: tuple[str, ...]) -> object:
    if value is None and parameter != "on":
        return None
    if value in allowed:
        return value
    message = f"track_feature({parameter}={value!r}): expected one of {', '.join(allowed)}"
    raise ValueError(message)


def _properties(value: object) -> object:
    if value is None or callable(value) or hasattr(value, "items"):
        return value
    message = f"track_feature(properties=...): expected a dict or a callable, not {type(value).__name__}"
    raise TypeError(message)


def _names(value: Iterable[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if all(isinstance(name, str) for name in names):
        return names
    message = "track_feature(capture=...): expected names of arguments"
    raise TypeError(message)


def _arguments(target: Any, names: tuple[str, ...]) -> tuple[Argument, ...]:
    if not names:
        return ()
    import inspect

    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    positions = {
        parameter.name: index
        for index, parameter in enumerate(parameters.values())
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    for name in names:
        if name not in parameters and not takes_any:
            message = f"track_feature(capture=...): {name_of(target)} has no argument {name!r}, only {list(parameters)}"
            raise TypeError(message)
    return tuple(
        (
            name,
            positions.get(name, -1),
            (parameters[name].default,)
            if name in parameters and parameters[name].default is not inspect.Parameter.empty
            else (),
        )
        for name in names
    )


def _where(target: Any) -> str:
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None) or name_of(target)
    code = getattr(target, "__code__", None)
    return f"{module}.{name}" + (f", line {code.co_firstlineno}" if code is not None else "")
