"""Registered callables: tasks and commands that other libraries run by a function kept inside.

A wrapper around such an object would see no call by a worker or a command line. So the function inside is replaced by
its decorated form, and the object stays itself: `task.delay`, `command.callback` and registrations are untouched.
No library is imported: a class is known by its module and name.
"""

from __future__ import annotations

import builtins
import sys
from types import FunctionType, MethodType

from ts_autotrack._core.callables import drop_frame
from ts_autotrack._core.closures import closure
from ts_autotrack._core.diagnostics import warn_now

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Decorate: TypeAlias = Callable[[Any], Any]
    """Returns the decorated form of a function."""
    Handler: TypeAlias = Callable[[Any, Decorate], None]
    """Decorates the function inside an object."""

QUEUE_METHODS = ("apply_async", "delay", "enqueue", "kiq", "send_with_options")
"""Methods that hand a call over to a worker, which runs a function of its own choice."""


def decorate_registered(target: Any, decorate: Decorate) -> bool:
    """Decorate the function that a registered callable runs; return False if the class of `target` is unknown.

    An object that refuses stays undecorated, and a warning names the right order of decorators.
    """
    for base in type(target).__mro__:
        known = _HANDLERS.get(f"{base.__module__}.{base.__name__}")
        if known is not None:
            _guarded(*known, target, decorate)
            return True
    return False


def warn_of_queue(target: object) -> None:
    """Warn if workers may run the function of an unknown object: these calls would make no event."""
    names = {name for base in type(target).__mro__ for name in base.__dict__}
    method = next((name for name in QUEUE_METHODS if name in names), None)
    if method is not None:
        kind = _path(type(target))
        warn_now(
            ("registered", kind),
            f"{kind} has a method {method!r}: only calls of the decorated object are tracked, and calls by a worker "
            "may not be. Put the decorator below the decorator that makes the object, on the function itself",
        )


def _guarded(handler: Handler, order: str, target: Any, decorate: Decorate) -> None:
    """Run a handler. A TypeError about the decorated function itself passes; any refusal by the object warns."""
    try:
        handler(target, decorate)
    except TypeError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign code
        _warn_of_refusal(target, order, error)


def _warn_of_refusal(target: object, order: str, error: Exception) -> None:
    kind = _path(type(target))
    reason = f"{type(error).__name__}: {error}"
    warn_now(
        ("registered", kind, reason),
        f"{kind} cannot be decorated in place ({reason}), and stays undecorated. Put the decorator below {order}, on "
        "the function itself",
    )


def _replace(owner: Any, name: str, decorate: Decorate) -> None:
    """Replace a function kept in an attribute by its decorated form. A bound method stays bound."""
    held = getattr(owner, name)
    if held is None:
        message = f"its {name!r} is None, so there is no function to decorate"
        raise LookupError(message)
    if type(held) is MethodType:
        decorated = decorate(held.__func__)
        if decorated is not held.__func__:
            _assign(owner, name, MethodType(decorated, held.__self__))
    elif (decorated := decorate(held)) is not held:
        _assign(owner, name, decorated)


def _assign(owner: Any, name: str, value: Any) -> None:
    try:
        setattr(owner, name, value)
    except TypeError as error:  # would be taken for an error in the decorator's arguments
        raise AttributeError(*error.args) from error


def _attribute(name: str) -> Handler:
    return lambda target, decorate: _replace(target, name, decorate)


def _replace_in_closure(function: FunctionType, held: Any, decorated: Any) -> None:
    for cell in function.__closure__ or ():
        if cell.cell_contents is held:
            cell.cell_contents = decorated


_RETRIED = """
def call({parameters}):
    try:
        return ts_run({arguments})
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        raise
"""


def _celery_task(task: Any, decorate: Decorate) -> None:
    """Decorate the function of a Celery task.

    With `autoretry_for` Celery calls the function inside a function of its own, which turns the exception of each
    attempt but the last into `Retry`. Then this outer function is decorated, by the argument list of the inner one.
    """
    inner = vars(task).get("_orig_run")
    function = inner.__func__ if type(inner) is MethodType else inner
    if type(function) is not FunctionType:
        _replace(task, "run" if inner is None else "_orig_run", decorate)
        return
    run = task.run if function is inner else _with_self(task.run)
    cells = {"ts": sys.modules[__name__], "py": builtins, "ts_run": run}
    decorated = decorate(closure(_RETRIED, function, cells, filename=__file__))
    _assign(task, "run", decorated if function is inner else MethodType(decorated, inner.__self__))


def _with_self(run: Any) -> Any:
    """Return a function that takes the task, too: the outer function of a bound task leaves the task out."""
    if type(run) is MethodType:  # decorated already
        return run.__func__

    def call(_: object, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except BaseException as error:
            drop_frame(error)
            raise

    return call


def _celery_promise(promise: Any, decorate: Decorate) -> None:
    """Decorate a task that its app has not made yet: the function now, the task when the app has made the task."""
    if promise.__evaluated__():
        _celery_task(promise.__maybe_evaluate__(), decorate)
        return
    function = object.__getattribute__(promise, "_Proxy__args")[0]
    decorated = decorate(function)  # at once, so that a wrong argument raises here
    if decorated is function:  # in place
        return

    def known(held: Any) -> Any:
        return decorated if held is function else decorate(held)

    def made() -> None:
        try:
            _celery_task(promise.__maybe_evaluate__(), known)
        except Exception as error:  # noqa: BLE001 - would stop the app while it makes its tasks
            _warn_of_refusal(promise, "@app.task", error)

    promise.__then__(made)


def _celery_shared_task(proxy: Any, decorate: Decorate) -> None:
    """Decorate the function of `shared_task`, from which each app makes a task, and the tasks made already.

    The function is decorated inside the retries of `autoretry_for`: Celery tells nobody when an app makes the task.
    """
    find = object.__getattribute__(proxy, "_Proxy__local")
    function = dict(zip(find.__code__.co_freevars, find.__closure__, strict=True))["fun"].cell_contents
    decorated = decorate(function)
    if decorated is function:
        return
    _replace_in_closure(find, function, decorated)
    for app in list(sys.modules["celery._state"]._get_active_apps()):  # noqa: SLF001 - no public list
        for task in list(app._tasks.values()):  # noqa: SLF001 - `app.tasks` would finalize the app
            held = vars(task).get("_orig_run", task.run)
            if getattr(held, "__func__", held) is function:
                _replace(task, "_orig_run" if "_orig_run" in vars(task) else "run", lambda _: decorated)


def _faststream_handler(handler: Any, decorate: Decorate) -> None:
    """Decorate the function of a FastStream handler. Newer versions keep the function as it was written besides."""
    names = [name for name in ("_declared_call", "_composed_call") if hasattr(handler, name)] or ["_original_call"]
    function = getattr(handler, names[0])
    decorated = decorate(function)
    for name in names:
        if getattr(handler, name) is function:
            _assign(handler, name, decorated)


def _huey_task(wrapper: Any, decorate: Decorate) -> None:
    """Decorate the function of a huey task: `call_local` reads the attribute, a worker the closure of `execute`."""
    function = wrapper.func
    _replace(wrapper, "func", decorate)
    _replace_in_closure(wrapper.task_class.execute, function, wrapper.func)


def _taskiq_task(task: Any, decorate: Decorate) -> None:
    """Decorate the function of a taskiq task, which process pools find by its name in the module."""
    function: Any = task.original_func
    _replace(task, "original_func", decorate)
    module = sys.modules[function.__module__]
    name: str = function.__name__
    if getattr(module, name, None) is function:
        setattr(module, name, task.original_func)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


_HANDLERS: dict[str, tuple[Handler, str]] = {
    "asyncclick.core.Command": (_attribute("callback"), "@click.command"),
    "celery.app.task.Task": (_celery_task, "@app.task"),
    "celery.local.PromiseProxy": (_celery_promise, "@app.task"),
    "celery.local.Proxy": (_celery_shared_task, "@shared_task"),
    "click.core.Command": (_attribute("callback"), "@click.command"),
    "dramatiq.actor.Actor": (_attribute("fn"), "@dramatiq.actor"),
    "fastmcp.tools.function_tool.FunctionTool": (_attribute("fn"), "@mcp.tool"),
    "fastmcp.tools.tool.FunctionTool": (_attribute("fn"), "@mcp.tool"),
    "faststream._internal.endpoint.call_wrapper.HandlerCallWrapper": (_faststream_handler, "@broker.subscriber"),
    "huey.api.TaskWrapper": (_huey_task, "@huey.task"),
    "invoke.tasks.Task": (_attribute("body"), "@task"),
    "prefect.flows.Flow": (_attribute("fn"), "@flow"),
    "prefect.tasks.Task": (_attribute("fn"), "@task"),
    "procrastinate.tasks.Task": (_attribute("func"), "@app.task"),
    "taskiq.decor.AsyncTaskiqDecoratedTask": (_taskiq_task, "@broker.task"),
    "typer._click.core.Command": (_attribute("callback"), "@app.command"),
}
"""Handler by the path of a class, and the decorator that makes objects of the class."""
