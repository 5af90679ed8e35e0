"""Command lines of click 8 and Typer: each command is a feature.

No module of click or Typer is imported: the commands come from the application. A command is given a subclass of its
own class, made here, which overrides the public methods `invoke`, `resolve_command` and `get_command`.
"""

from __future__ import annotations

import atexit
import functools
import re
import sys
from contextlib import ExitStack
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from ts_autotrack import current_user, is_tracked, request_scope, shutdown
from ts_autotrack.integrations._features import cached_use, feature_names
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ts_autotrack.typing import Identity

_TRACKING = "ts_autotrack.click"
"""Key of the running program's `_Tracking` in the `meta` of its contexts."""
_ATTRIBUTE = "_ts_autotrack"
"""Attribute with the `_Tracking` of an instrumented program; None for classes of its other commands."""
_CLICK = ("click.exceptions", "typer.exceptions", "typer._click.exceptions")
"""Modules of the exceptions that carry an exit status."""

_begun: ContextVar[_Tracking | None] = ContextVar("ts_autotrack_click", default=None)
"""The program whose request `main` has begun: callbacks of options run before `invoke`."""


def instrument_click(
    group: Any, user: Callable[[], Identity] | None = None, *, features: Mapping[str, str | None] | None = None
) -> None:
    """Send an event for each command of a program that ends with exit status 0; a second call changes nothing.

    The feature's name is the path of the command, without the name of the program: `tool report export` is
    `report_export`. The event has `interface="cli"`, and the path as typed is its `action`. Options and arguments are
    never sent. Commands added later count, too, and so do commands that are loaded when they are called. A command
    that another command runs by `ctx.invoke` or `ctx.forward` belongs to the typed command. A command whose function
    is decorated by `@track_feature` sends that event only.

    A run of the program is one request: `bind_user` in any command or callback, also in that of an option, names the
    user of all its events, and the next run in the same process sees nothing of it.

    With an outbox the end of the program waits for the server for half a second at most, and the next run sends the
    rest; after a wait in vain no run waits for a minute. Without an outbox a dead server delays the end by
    EXIT_TIMEOUT.

    Args:
        group: The click group or command, or the Typer app, that the program runs.
        user: Callable without arguments that returns who acts: a user id, `(user_id, group_id)`, a mapping of the
            arguments of `user_context`, or None. The first event asks, inside the click context of its command.
            Without `user` events belong to the user acting around the program, or to the user bound inside. A
            resolver that ends the program (`sys.exit`) is nobody: the exit status is the command's.
        features: Other names of features by the path of the command: `{"report export": "export"}`. None as a name
            leaves the command out.

    Raises:
        TypeError: `group` is no click command and no Typer app, or its commands are coroutines, as asyncclick's are;
            `user` is no plain function, or `features` is no mapping.
        ValueError: A key or a name in `features` is no text, or is empty.

    Example:
        ::

            instrument_click(cli, user=lambda: load_profile().user_id)
    """
    if user is not None and (not callable(user) or iscoroutinefunction(user)):
        message = f"instrument_click(user={user!r}): expected a plain function without arguments"
        raise TypeError(message)
    tracking = _Tracking(user, feature_names(features, "command"))
    if _is_command(group):
        if getattr(group, _ATTRIBUTE, None) is None:
            group.__class__ = _root_class(type(group), tracking)
    elif hasattr(group, "registered_commands") and callable(getattr(group, "command", None)):
        if getattr(group, _ATTRIBUTE, None) is None:
            _instrument_typer(group, tracking)
    else:
        message = f"instrument_click({group!r}): expected a click command or group, or a Typer app"
        raise TypeError(message)


def _is_command(group: Any) -> bool:
    """Return True for a command of click. Those of asyncclick have the same methods, as coroutine functions."""
    methods = [getattr(group, name, None) for name in ("invoke", "make_context")]
    return not isinstance(group, type) and all(callable(each) and not iscoroutinefunction(each) for each in methods)


def instrument_named(command: Any, user: Callable[[], Identity] | None, features: Mapping[str, str | None]) -> None:
    """Track the commands in `features`, and no others, of a program that is about to run."""
    if getattr(command, _ATTRIBUTE, None) is None:
        tracking = _Tracking(user, feature_names(features, "command"), named_only=True)
        command.__class__ = _root_class(type(command), tracking)


def uninstrument_click(group: Any) -> None:
    """Undo `instrument_click`: the program's commands make no events any more."""
    tracking = getattr(group, _ATTRIBUTE, None)
    if isinstance(tracking, _Tracking):
        tracking.enabled = False
        if _ATTRIBUTE in vars(group):
            _release_typer(group)
        else:
            group.__class__ = next(base for base in type(group).__mro__ if not hasattr(base, _ATTRIBUTE))


class _Tracking:
    """The settings of an instrumented program.

    Attributes:
        enabled: False once undone.
        user: Resolver of the acting user.
    """

    def __init__(
        self, user: Callable[[], Identity] | None, names: dict[str, str | None], *, named_only: bool = False
    ) -> None:
        self.enabled = True
        self.user = user and functools.partial(_ask, user)
        self._names = names
        self._named_only = named_only

    def record(self, ctx: Any) -> None:
        """Record the use of the command of a context."""
        if is_tracked(ctx.command.callback):
            return
        typed, path = _paths(ctx)
        if self._named_only and path not in self._names:
            return
        name = self._names.get(path, re.sub(r"\W+", "_", path).strip("_").lower() or path)
        if name is not None:
            cached_use(name, typed, "cli")()


def _ask(user: Callable[[], Identity]) -> Identity:
    """Ask the resolver. A profile's loader may end a program without a login, which the command may not need."""
    try:
        return user()
    except SystemExit:
        warn_once("user= ended the program by SystemExit: nobody is known, and the program goes on")
    return None


class _Run:
    """A block around a command: a request scope around the program's outermost one."""

    def __init__(self, tracking: _Tracking | None, ctx: Any) -> None:
        self._tracking = tracking
        self._ctx = ctx
        self._stack: ExitStack | None = None

    def __enter__(self) -> None:
        tracking, meta = self._tracking, self._ctx.meta
        if tracking is None or not tracking.enabled or _TRACKING in meta:
            return  # a command of a program, or a program within an instrumented program
        _leave_at_exit()
        self._stack = ExitStack()
        known = current_user().user_id is not None
        if not known or (tracking.user is not None and _begun.get() is not tracking):
            self._stack.enter_context(request_scope(tracking.user))
        meta[_TRACKING] = tracking
        self._stack.callback(meta.pop, _TRACKING, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stack is not None:
            self._stack.__exit__(kind, error, traceback)


def _record(ctx: Any, error: BaseException | None = None) -> None:
    """Record the use of a command that ended with exit status 0."""
    try:
        tracking, command = ctx.meta.get(_TRACKING), ctx.command
        if tracking is None or not _is_success(error):
            return
        if callable(getattr(command, "resolve_command", None)):
            if ctx.invoked_subcommand is not None:
                return  # the feature is the command within the group
            if error is not None and not getattr(command, "invoke_without_command", False):
                return  # help
        tracking.record(ctx)
    except Exception as problem:  # noqa: BLE001 - the command goes on
        warn_once("the use of a command could not be recorded (%s): its event is not sent", type(problem).__name__)


def _is_success(error: BaseException | None) -> bool:
    """Return True if the program ends with exit status 0 by an exception, or without one."""
    if isinstance(error, SystemExit):
        return error.code is None or (isinstance(error.code, int) and error.code == 0)
    known = any(base.__module__ in _CLICK for base in type(error).__mro__)
    return error is None or (known and getattr(error, "exit_code", None) == 0)


def _paths(ctx: Any) -> tuple[str, str]:
    """Return the path of a command as typed, and by the names of the commands.

    In a program of one command both are the command's name.
    """
    typed: list[str] = []
    names: list[str] = []
    own = str(ctx.command.name or ctx.info_name)
    while ctx.parent is not None:
        typed.insert(0, str(ctx.info_name))
        names.insert(0, _name(ctx.command, ctx.parent.command, str(ctx.info_name)))
        ctx = ctx.parent
    return " ".join(typed) or own, " ".join(names) or own


def _name(command: Any, group: Any, typed: str) -> str:
    """Return the name of a command in its group: not the alias that was typed."""
    commands = getattr(group, "commands", None) or {}
    registered = [str(name) for name, other in commands.items() if other is command]
    if not registered:
        return typed  # loaded when it was called
    return str(command.name) if command.name in registered else registered[0]


def _adopt(command: Any) -> Any:
    """Return a command of a program, tracked."""
    try:
        if command is not None and not hasattr(command, _ATTRIBUTE):
            kind: Any = type(command)
            command.__class__ = _tracked_class(kind)
    except Exception as error:  # noqa: BLE001 - the command runs untracked
        warn_once("a command cannot be tracked (%s): it makes no events", type(error).__name__)
    return command


@functools.cache
def _tracked_class(base: type) -> type:
    """Return the subclass that tracks a class of commands."""

    def invoke(self: Any, ctx: Any) -> Any:
        with _Run(getattr(self, _ATTRIBUTE, None), ctx):
            try:
                result = super(made, self).invoke(ctx)  # type: ignore[arg-type]
            except BaseException as error:
                _record(ctx, error)
                # A traceback of the application shows no line of this library.
                BaseException.with_traceback(error, getattr(error.__traceback__, "tb_next", None))
                raise
            _record(ctx)
            return result

    def resolve_command(self: Any, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super(made, self).resolve_command(ctx, args)  # type: ignore[arg-type]
        return name, _adopt(command), rest

    def get_command(self: Any, ctx: Any, cmd_name: str) -> Any:
        return _adopt(super(made, self).get_command(ctx, cmd_name))  # type: ignore[arg-type]

    methods = {method.__name__: method for method in (invoke, resolve_command, get_command)}
    made: type = _subclass(base, {name: method for name, method in methods.items() if hasattr(base, name)}, None)
    return made


def _root_class(base: type, tracking: _Tracking) -> type:
    """Return the subclass for the command that a program runs."""

    def main(self: Any, *args: Any, **options: Any) -> Any:
        if not tracking.enabled:
            return super(made, self).main(*args, **options)
        with ExitStack() as stack:
            try:
                if tracking.user is not None or current_user().user_id is None:
                    stack.enter_context(request_scope())
                    stack.callback(_begun.reset, _begun.set(tracking))
                return super(made, self).main(*args, **options)
            except BaseException as error:
                BaseException.with_traceback(error, getattr(error.__traceback__, "tb_next", None))
                raise

    tracked = base if hasattr(base, _ATTRIBUTE) else _tracked_class(base)
    made: Any = _subclass(tracked, {"main": main} if hasattr(base, "main") else {}, tracking)
    return made  # type: ignore[no-any-return]


def _subclass(base: type, members: Mapping[str, Any], tracking: _Tracking | None) -> type:
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base)(base.__name__, (base,), {**names, **members, _ATTRIBUTE: tracking})


def _instrument_typer(app: Any, tracking: _Tracking) -> None:
    """Let an app make its commands of tracked classes. An app makes new commands for each run."""
    core: Any = sys.modules["typer.core"]
    command, callback = app.command, app.callback

    def root(given: Any, default: type) -> type:
        return _root_class(given if isinstance(given, type) else default, tracking)

    @functools.wraps(command)
    def register_command(*args: Any, **options: Any) -> Any:
        return command(*args, **{**options, "cls": root(options.get("cls"), core.TyperCommand)})

    @functools.wraps(callback)
    def register_callback(*args: Any, **options: Any) -> Any:
        if "cls" in options:  # otherwise the app's own class counts
            options["cls"] = root(options["cls"], core.TyperGroup)
        return callback(*args, **options)

    app.info.cls = root(app.info.cls, core.TyperGroup)
    for info in app.registered_commands:
        info.cls = root(info.cls, core.TyperCommand)
    if isinstance(getattr(app.registered_callback, "cls", None), type):
        app.registered_callback.cls = root(app.registered_callback.cls, core.TyperGroup)
    vars(app).update({_ATTRIBUTE: tracking, "command": register_command, "callback": register_callback})


def _release_typer(app: Any) -> None:
    """Let later commands be made of plain classes. The classes given so far do nothing any more."""
    for name in (_ATTRIBUTE, "command", "callback"):
        vars(app).pop(name, None)


@functools.cache
def _leave_at_exit() -> None:
    """Let the end of this process leave the events to the next run, if they are in an outbox."""
    atexit.register(shutdown, durable=True)
