"""The setting TS_AUTOTRACK of a Django project, and the system checks of `manage.py check`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ts_autotrack.integrations._http import FeatureRoutes

if TYPE_CHECKING:
    from collections.abc import Callable

MIDDLEWARE = "ts_autotrack.integrations.django.TrackingMiddleware"

_DEFAULTS = {"user": "user.pk", "group": None, "features": None, "trust_baggage": False}

automatic = False
"""True if handlers load the middleware although MIDDLEWARE does not list it."""

Source: TypeAlias = "tuple[str, ...] | Callable[[Any], Any]"
"""Where an id is found: the names of a path of attributes that begins at the request, or a callable."""


class TrackingSettings(NamedTuple):
    """The setting TS_AUTOTRACK, checked.

    Attributes:
        user: Source of the user.
        group: Source of the user's account; None without one.
        names_user: True if a source is a path that begins with `user`.
        awaits: True if a source is a coroutine function.
        routes: Features named by their routes.
        trust_baggage: True if ids in a request's own baggage header count.
    """

    user: Source
    group: Source | None
    names_user: bool
    awaits: bool
    routes: FeatureRoutes
    trust_baggage: bool


def read_settings() -> TrackingSettings:
    """Return the project's setting.

    Raises:
        ImproperlyConfigured: The setting has a mistake; the message names each.
    """
    value = getattr(settings, "TS_AUTOTRACK", {})
    if mistakes := list(_mistakes(value)):
        raise ImproperlyConfigured(" ".join(f"{message} {hint}" for _, message, hint in mistakes))
    given = {**_DEFAULTS, **value}
    sources = user, group = _source(given["user"] or _DEFAULTS["user"]), _source(given["group"])
    return TrackingSettings(
        user,
        group,
        names_user=any(isinstance(source, tuple) and source[0] == "user" for source in sources),
        awaits=any(map(_is_async, sources)),
        routes=_routes(given["features"]),
        trust_baggage=given["trust_baggage"],
    )


def automatic_settings(features: Mapping[str, str], user: Callable[[Any], Any] | None) -> TrackingSettings:
    """Return the project's setting, completed by the library's own settings; the project's setting wins.

    Raises:
        ImproperlyConfigured: The project's setting has a mistake.
    """
    tracking, given = read_settings(), getattr(settings, "TS_AUTOTRACK", {})
    routes = tracking.routes | _routes(features)
    if user is None or given.get("user"):
        return tracking._replace(routes=routes)
    group = tracking.group
    return tracking._replace(
        user=user,
        names_user=isinstance(group, tuple) and group[0] == "user",
        awaits=_is_async(user) or _is_async(group),
        routes=routes,
    )


def is_listed() -> bool:
    """Return True if the project lists the middleware in MIDDLEWARE."""
    return any(map(_is_tracking, settings.MIDDLEWARE))


def template_of(route: str) -> str:
    """Return a route of Django with one slash before it, as the keys of `features` have it."""
    return "/" + route.lstrip("/")


def check_tracking(**_: object) -> list[Any]:
    """Check the setting TS_AUTOTRACK, and the place of the middleware in MIDDLEWARE."""
    value = getattr(settings, "TS_AUTOTRACK", {})
    found: list[Any] = [
        checks.Error(message, hint=hint, id=f"ts_autotrack.{code}") for code, message, hint in _mistakes(value)
    ]
    count = sum(map(_is_tracking, settings.MIDDLEWARE))
    if count > 1:
        message = f"{MIDDLEWARE} is in MIDDLEWARE {count} times; the first entry tracks, the others do nothing."
        found.append(checks.Error(message, hint="Keep the first entry.", id="ts_autotrack.E006"))
    elif not count and not automatic:
        message = "The middleware of ts_autotrack is not in MIDDLEWARE: no request has a user of its own."
        hint = f'Add "{MIDDLEWARE}" to MIDDLEWARE, as its first entry.'
        found.append(checks.Warning(message, hint=hint, id="ts_autotrack.W001"))
    return found


checks.register(check_tracking, "ts_autotrack")


def _mistakes(value: object) -> Iterator[tuple[str, str, str]]:
    """Yield the mistakes in the setting: id, message and hint."""
    if not isinstance(value, Mapping):
        yield "E001", f"TS_AUTOTRACK is a {type(value).__name__}.", 'Use a dict, such as {"group": "user.account_id"}.'
        return
    for name in value:
        if name not in _DEFAULTS:
            near = difflib.get_close_matches(str(name), _DEFAULTS, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"The keys are {', '.join(_DEFAULTS)}."
            yield "E002", f"TS_AUTOTRACK has the unknown key {name!r}.", hint
    for name in ("user", "group"):
        source = value.get(name)
        if source is not None and not callable(source) and not _is_path(source):
            hint = f'Use a path of attributes of the request, such as "{_EXAMPLES[name]}", or a callable(request).'
            yield "E003", f'TS_AUTOTRACK["{name}"] is {source!r}.', hint
    try:
        _routes(value.get("features"))
    except (ValueError, AttributeError) as error:
        yield "E004", f'TS_AUTOTRACK["features"]: {error}.', 'Use a dict, such as {"POST /reports/<int:id>": "export"}.'
    if not isinstance(value.get("trust_baggage", False), bool):
        yield "E005", f'TS_AUTOTRACK["trust_baggage"] is {value["trust_baggage"]!r}.', "Use True or False."


_EXAMPLES = {"user": "user.pk", "group": "tenant.slug"}


def _is_path(source: object) -> bool:
    return isinstance(source, str) and all(name.isidentifier() for name in source.split("."))


def _is_tracking(path: str) -> bool:
    """Return True for an entry of MIDDLEWARE that is this middleware, or a subclass of it."""
    if path == MIDDLEWARE:
        return True
    try:
        kind = import_string(path)
    except Exception:  # noqa: BLE001 - Django reports the entry when it loads the middleware
        return False
    return isinstance(kind, type) and any(f"{base.__module__}.{base.__qualname__}" == MIDDLEWARE for base in kind.mro())


def _source(given: Any) -> Source:
    source: Source = tuple(given.split(".")) if isinstance(given, str) else given
    return source


def _is_async(source: Source | None) -> bool:
    return callable(source) and (iscoroutinefunction(source) or iscoroutinefunction(type(source).__call__))


def _routes(features: Any) -> FeatureRoutes:
    """Return the features by route; their templates may begin with a slash, or not, as Django's own do."""
    slashed: dict[str, str] = {}
    for key, name in (features or {}).items():
        method, space, template = key.strip().partition(" ") if isinstance(key, str) else (key, "", "")
        slashed[f"{method} {template_of(template.strip())}" if space else key] = name
    return FeatureRoutes(slashed)
