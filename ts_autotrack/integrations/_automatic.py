"""Integrations that no code of the application adds: a framework's import activates them.

An automatic integration gives each request, task, message or call an identity of its own, like an integration that the
application adds. Features are named by the settings or by decorators only: a command of click or a tool of MCP is no
feature by itself. An integration that the application adds takes the place of the automatic one.

Identity without code is Django's `request.user`, Flask-Login's `current_user`, the `identity` of a Starlette user, the
subject of an MCP token, the header of a task or message, or the function named by TS_AUTOTRACK_USER.
"""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack.integrations._features import FeatureName
from ts_autotrack.integrations._log import warn_once
from ts_autotrack.integrations._patches import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ts_autotrack.typing import Identity


class _Framework(NamedTuple):
    """A framework.

    Attributes:
        module: The module whose import triggers the integration.
        part: Module here with the function that tracks the framework's applications: imported with the framework only.
        function: Name of that function.
        keys: Kind of the keys of `features` that the framework knows; empty for none.
        application: Module and name of an ASGI framework's class.
        asks: True if the integration has a resolver.
    """

    module: str
    part: str
    function: str
    keys: str
    application: tuple[str, ...] = ()
    asks: bool = True


def _asgi(module: str, *application: str) -> _Framework:
    return _Framework(module, "_automatic_web", "track_asgi", "route", application)


def _web(module: str, function: str) -> _Framework:
    return _Framework(module, "_automatic_web", function, "route")


def _queue(module: str, function: str, keys: str = "name") -> _Framework:
    return _Framework(module, "_automatic_queues", function, keys, asks=False)


def _calls(module: str, function: str, keys: str = "name", *, asks: bool = True) -> _Framework:
    return _Framework(module, "_automatic_calls", function, keys, asks=asks)


_TABLE = {
    "fastapi": _asgi("fastapi", "fastapi", "FastAPI"),
    "starlette": _asgi("starlette.applications", "starlette.applications", "Starlette"),
    "litestar": _asgi("litestar", "litestar", "Litestar"),
    "quart": _asgi("quart", "quart", "Quart"),
    "flask": _web("flask", "track_flask"),
    "django": _web("django.core.handlers.base", "track_django"),
    "aiohttp": _web("aiohttp.web", "track_aiohttp"),
    # Not "celery": `python -m celery` imports it before gevent patches the modules that Celery imports.
    "celery": _queue("celery.app", "track_celery"),
    "dramatiq": _queue("dramatiq", "track_dramatiq"),
    "taskiq": _queue("taskiq", "track_taskiq"),
    "faststream": _queue("faststream", "track_faststream", ""),
    "rq": _queue("rq", "track_rq"),
    "threads": _queue("threading", "track_threads", ""),
    "click": _calls("click", "track_click"),
    "typer": _calls("typer", "track_typer"),
    "mcp": _calls("mcp.server", "track_mcp"),
    "fastmcp": _calls("fastmcp.server.server", "track_fastmcp"),
    "grpc": _calls("grpc", "track_grpc", "rpc"),
    "strawberry": _calls("strawberry", "track_strawberry", "field", asks=False),
}

FRAMEWORKS: Mapping[str, str] = {name: framework.module for name, framework in _TABLE.items()}
"""The module whose import triggers an integration, by the integration's name in TS_AUTOTRACK_INTEGRATIONS.

"threads" is meant for programs that name it; all others are for every program that imports the module.
"""

_lock = threading.RLock()
_patches = Patches()
_active: dict[str, str | None] = {}
"""The result of `activate`, by name."""


def activate(
    name: str, features: Mapping[str, Mapping[str, Any]], user: Callable[[], Identity] | None = None
) -> str | None:
    """Track a framework's applications from now on: later ones, and existing ones except for brokers and servers.

    Call it once, after the framework's module was imported. A second call changes nothing. Never raises.

    Args:
        name: Key of `FRAMEWORKS`.
        features: Features by route, or by the name of a task, command, tool, RPC or field: the setting `features`
            without functions. A value has the key "feature", and optionally "feature_type", "action" and "properties".
        user: Resolver without arguments; best a `NamedUser`, whose function may take the integration's argument.

    Returns:
        None, or the reason why the framework is not tracked.

    Example:
        >>> activate("threads", {})
        >>> activate("flusk", {})
        "there is no integration 'flusk'"
        >>> deactivate()
    """
    with _lock:
        if name not in _TABLE:
            return f"there is no integration {name!r}"
        if name not in _active:
            _active[name] = _track(_TABLE[name], features, user)
        return _active[name]


def problem_of(name: str) -> str | None:
    """Return the reason why a framework is not tracked; None if it is, or its module is not imported."""
    return _active.get(name)


def deactivate() -> None:
    """Undo all calls of `activate`: later requests, tasks and calls are not tracked. Meant for tests."""
    with _lock:
        _patches.undo()
        if "celery" in _active and _active["celery"] is None:
            from ts_autotrack.integrations.celery import uninstrument_celery

            uninstrument_celery()
        if "threads" in _active:
            from ts_autotrack.integrations.threads import uninstrument_threads

            uninstrument_threads()
        _active.clear()


def needed_by(features: Iterable[str]) -> set[str]:
    """Return the names of the integrations that know a key of features, whether their frameworks are there or not.

    Example:
        >>> sorted(needed_by(["/reports.Reports/Export"]))
        ['grpc']
    """
    kinds = {kind for key in features for kind in _kinds(key)}
    return {name for name, framework in _TABLE.items() if framework.keys in kinds}


def unused_features(features: Iterable[str]) -> list[str]:
    """Return the keys that no active framework knows: a route without a web framework, a task without a task queue.

    Example:
        >>> unused_features(["GET /reports/{id}"])
        ['GET /reports/{id}']
    """
    known = {_TABLE[name].keys for name, problem in _active.items() if problem is None}
    return [key for key in features if known.isdisjoint(_kinds(key))]


def _track(framework: _Framework, features: Mapping[str, Mapping[str, Any]], user: Any) -> str | None:
    try:
        own = {key: _name(key, table) for key, table in features.items() if framework.keys in _kinds(key)}
        part = importlib.import_module(f"{__package__}.{framework.part}")
        track: Callable[..., None] = getattr(part, framework.function)
        track(*framework.application, _patches, own, *([user] if framework.asks else []))
    except ImportError as error:
        return f"this version of {framework.module} lacks a part that the integration needs ({error})"
    except Exception as error:  # noqa: BLE001 - a broken installation, or a key that is no route
        return f"{type(error).__name__}: {error}"
    return None


def _kinds(key: str) -> set[str]:
    """Return the kinds of things that a key may name."""
    if key.partition(" ")[2].lstrip().startswith("/"):
        return {"route"}
    if key.startswith("/"):
        return {"rpc"}
    return {"name", "field"} if key.count(".") == 1 else {"name"}


def _name(key: str, table: Mapping[str, Any]) -> FeatureName:
    """Return the name of a feature with its options."""
    for option in sorted({"capture", "on"} & table.keys()):
        warn_once("the feature of %s has %s, which only functions have: it is ignored", repr(key), repr(option))
    return FeatureName(table["feature"], {name: table[name] for name in _OPTIONS if name in table})


_OPTIONS = ("action", "feature_type", "properties")
