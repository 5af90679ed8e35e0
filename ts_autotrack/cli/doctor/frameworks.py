"""Checks of the frameworks: installed, active, the order of middleware, decorators above a registration."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_autotrack import is_tracked
from ts_autotrack._core.callables import wrapped_objects
from ts_autotrack._core.named_features import is_function
from ts_autotrack.cli.doctor.findings import Finding
from ts_autotrack.integrations._automatic import FRAMEWORKS, problem_of, unused_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OWN_DJANGO = "ts_autotrack.integrations.django"
_OWN_ASGI = "ts_autotrack.integrations.asgi"
_ROUTE = 'Name the route in features, such as "POST /reports/{number}/export", or use Python 3.12 or newer.'
_MODULES = {
    **dict.fromkeys(("fastapi", "starlette", "litestar", "quart"), "asgi"),
    "typer": "click",
    "fastmcp": "mcp",
}
"""Module of `ts_autotrack.integrations` for a framework, unless both have the same name."""
_UNUSED = (
    "Give the command of the program that has it: web server, worker and command line may share the settings. "
    "Otherwise correct the name in features."
)


def check_frameworks(folder: str, settings: Mapping[str, Any], *, active: bool, unread: str = "") -> Iterator[Finding]:
    """Yield the findings about the frameworks of an application whose modules are imported.

    Args:
        folder: Folder of the application's own modules.
        settings: Settings by name.
        active: True if the integrations have been activated by the settings.
        unread: Path of the script whose imports are unknown: it is not run, and the command names no module.
    """
    yield from _integrations(settings["integrations"], active=active)
    automatic = active and "off" not in settings["integrations"]
    if automatic:
        yield from _unused(settings["features"], unread)
    yield from _django_middleware(automatic=automatic)
    own = _own_modules(folder)
    for place, app in _applications(own):
        yield from _asgi_middleware(place, app, automatic=automatic)
        yield from _flask_extension(place, app, automatic=automatic)
        yield from _registrations(place, app, own, settings["features"])


def _integrations(chosen: tuple[str, ...], *, active: bool) -> Iterator[Finding]:
    """Yield each framework that is installed, and the reason why its integration is active or not."""
    idle = []
    for name, module in sorted(FRAMEWORKS.items()):
        if name == "threads" and name not in chosen:  # meant for programs that name it
            continue
        if module in sys.modules:
            yield _imported(name, chosen, active=active)
        elif _is_installed(module):
            idle.append(name)
    if idle:
        seen = f"installed, and not imported by the modules that were imported here: {', '.join(idle)}"
        yield Finding("integrations", "note", seen)


def _imported(name: str, chosen: tuple[str, ...], *, active: bool) -> Finding:
    if "off" in chosen:
        seen = f"{name} is imported, and TS_AUTOTRACK_INTEGRATIONS=off"
        return Finding("integrations", "note", seen, "Remove the setting to let `ts-autotrack run` activate it.")
    if chosen and "all" not in chosen and name not in chosen:
        seen = f"{name} is imported, and TS_AUTOTRACK_INTEGRATIONS names only {', '.join(chosen)}"
        return Finding("integrations", "note", seen, f"Add {name} to the setting to activate it.")
    if not active and (own := _own_integration(name)):
        return Finding("integrations", "ok", f"the application's code names {own} for {name}")
    if not active:
        seen = f"{name} is imported; its integration needs its lines of code, or `ts-autotrack run`"
        return Finding("integrations", "note", seen)
    problem = problem_of(name)
    if problem is None:
        return Finding("integrations", "ok", f"the integration {name} is active by the settings")
    return Finding("integrations", "warning", f"the integration {name} is not active: {problem}")


def _own_integration(name: str) -> str:
    """Return the module with a framework's integration if the application's code names it; else an empty text."""
    module = f"ts_autotrack.integrations.{_MODULES.get(name, name)}"
    named = module in sys.modules or any(entry.startswith(module) for entry in _django_entries() or ())
    return module if named else ""


def _unused(features: Mapping[str, Any], unread: str) -> Iterator[Finding]:
    """Yield the routes and names that no active integration knows."""
    for key in unused_features(key for key in features if not is_function(key)):
        seen = f"{key} = {features[key]['feature']}: "
        if unread:
            yield Finding("target", "note", f"{seen}not checked, because {Path(unread).name} is not run here")
        else:
            seen += "no integration is active here that knows such a name"
            yield Finding("target", "warning", seen, _UNUSED)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _django_middleware(*, automatic: bool) -> Iterator[Finding]:
    """Yield the place of the middleware in Django's setting MIDDLEWARE."""
    names = _django_entries()
    if names is None:
        return
    place = next((position for position, name in enumerate(names) if name.startswith(_OWN_DJANGO)), None)
    if place is None and automatic:
        yield Finding("middleware", "ok", "Django's requests are tracked by the settings, without MIDDLEWARE")
    elif place is None:
        seen = "Django's MIDDLEWARE does not name TrackingMiddleware: only `ts-autotrack run` adds it"
        yield Finding("middleware", "note", seen, f"Without the launcher, put {_OWN_DJANGO}.TrackingMiddleware first.")
    elif place:
        seen = f"TrackingMiddleware is number {place + 1} in MIDDLEWARE: events of the middleware before have no user"
        yield Finding("middleware", "note", seen, "Put it first if other middleware tracks events.")
    else:
        yield Finding("middleware", "ok", "TrackingMiddleware is the first in Django's MIDDLEWARE")


def _django_entries() -> list[str] | None:
    """Return the entries of Django's setting MIDDLEWARE; None if no settings module is known."""
    conf = sys.modules.get("django.conf")
    try:
        return None if conf is None else [str(name) for name in conf.settings.MIDDLEWARE]
    except Exception:  # noqa: BLE001 - ImproperlyConfigured
        return None


def _own_modules(folder: str) -> list[tuple[str, dict[str, Any]]]:
    """Return names and globals of the application's own modules."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(f"{folder}/") and "site-packages" not in file:
            found.append((name, vars(module)))
    return found


def _applications(own: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Any]]:
    """Yield the applications of Starlette, FastAPI, Flask and Quart in the modules, each once."""
    seen: set[int] = set()
    for module, names in own:
        for name, value in list(names.items()):
            if id(value) not in seen and (_is_a(value, "starlette.applications") or _is_a(value, "flask.sansio.app")):
                seen.add(id(value))
                yield f"{module}:{name}", value


def _is_a(value: object, module: str) -> bool:
    """Return True if a class of the value is defined in a module. No code of the value runs."""
    return any(base.__module__ == module for base in type(value).__mro__)


def _asgi_middleware(place: str, app: Any, *, automatic: bool) -> Iterator[Finding]:
    """Yield the place of the middleware in an application of Starlette or FastAPI."""
    if not _is_a(app, "starlette.applications"):
        return
    names = [middleware.cls for middleware in app.user_middleware]  # the outermost first
    index = next((at for at, kind in enumerate(names) if getattr(kind, "__module__", "") == _OWN_ASGI), None)
    if index is None and automatic:
        yield Finding("middleware", "ok", f"the requests of {place} are tracked by the settings")
    elif index is None:
        seen = f"{place} has no TrackingMiddleware: only `ts-autotrack run` adds it"
        do = "Without the launcher: app.add_middleware(TrackingMiddleware) of ts_autotrack.integrations.asgi."
        yield Finding("middleware", "note", seen, do)
    elif index:
        outside = ", ".join(getattr(kind, "__name__", "?") for kind in names[:index])
        seen = f"TrackingMiddleware of {place} is inside {outside}: events tracked there have no user"
        yield Finding("middleware", "note", seen, "Add it last: the middleware added last is the outermost.")
    else:
        yield Finding("middleware", "ok", f"TrackingMiddleware is the outermost of {place}")


def _flask_extension(place: str, app: Any, *, automatic: bool) -> Iterator[Finding]:
    """Yield whether an application of Flask has the extension."""
    if not _is_a(app, "flask.app"):
        return
    if "ts_autotrack" in app.extensions:
        yield Finding("middleware", "ok", f"{place} has the extension Tracking")
    elif automatic:
        yield Finding("middleware", "ok", f"the requests of {place} are tracked by the settings")
    else:
        seen = f"{place} has no extension Tracking: only `ts-autotrack run` adds it"
        do = "Without the launcher: Tracking(app, user=...) of ts_autotrack.integrations.flask."
        yield Finding("middleware", "note", seen, do)


def _registrations(
    place: str, app: Any, own: list[tuple[str, dict[str, Any]]], features: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield the functions that are tracked above their registration: a route calls the function inside.

    A function that the settings name is tracked in place from Python 3.12 on, and above its registration before.
    """
    untracked = {id(function): function for function in _endpoints(app) if not is_tracked(function)}
    for module, names in own:
        for name, value in list(names.items()):
            inside = map(id, wrapped_objects(value))
            if id(value) not in untracked and is_tracked(value) and not untracked.keys().isdisjoint(inside):
                named = f"{module}:{name}" in features
                how = "named by the settings" if named else "decorated above its registration"
                seen = f"{module}:{name} is {how}, and {place} calls the function without tracking"
                do = _ROUTE if named else "Put @track_feature below the decorator of the route."
                yield Finding("decorators", "error", seen, do)


def _endpoints(app: Any) -> Iterator[Any]:
    """Yield the functions that an application's routes call."""
    yield from list(getattr(app, "view_functions", {}).values())
    routes = list(getattr(app, "routes", ()))
    while routes:
        route = routes.pop()
        routes += getattr(route, "routes", None) or ()
        if (endpoint := getattr(route, "endpoint", None)) is not None:
            yield endpoint
