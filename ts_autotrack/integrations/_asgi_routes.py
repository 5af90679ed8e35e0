"""Templates of the routes that answered, as the ASGI frameworks write them into the connection scope."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

_log = logging.getLogger("ts_autotrack")

_RULE = "ts_autotrack.rule"
"""Key of the connection scope for the template of Quart, which writes none."""

_TYPE = re.compile(r":\w+}")
"""Type of a parameter in a template: `:int}`."""


class RouteFinder:
    """Finds the template of the route that answered a request.

    Args:
        templates: Templates with a feature. Only these can contain the parameters of a `Mount`: the frameworks tell the
            path of a `Mount` as requested, not its template.
    """

    __slots__ = ("_connected", "_failed", "_templates", "_untyped")

    def __init__(self, templates: Iterable[str]) -> None:
        self._templates = list(templates)
        self._untyped = {_TYPE.sub("}", template): template for template in self._templates}
        self._connected = self._failed = False

    def connect(self) -> None:
        """Listen to Quart's requests, once Quart is loaded."""
        quart = sys.modules.get("quart")
        if not self._connected and self._templates and hasattr(quart, "request_started"):
            self._connected = True
            quart.request_started.connect(_keep_rule)  # type: ignore[union-attr]

    def base(self, scope: MutableMapping[str, Any]) -> str | None:
        """Return the path under which the application of the middleware is mounted; None outside a `Mount`."""
        return str(scope.get("root_path", "")) if "app_root_path" in scope else None

    def template(self, scope: MutableMapping[str, Any], base: str | None) -> str | None:
        """Return the template of the route that answered; None if no route did, or the framework does not tell.

        Args:
            scope: The connection scope, with the framework's notes.
            base: The result of `base` for this scope, before the application was called.
        """
        try:
            return self._template(scope, base)
        except Exception as error:  # noqa: BLE001 - objects of the framework
            if not self._failed:
                self._failed = True
                _log.warning(
                    "ts_autotrack: the route of a request could not be read, so its feature is missing: %r", error
                )
            return None

    def _template(self, scope: MutableMapping[str, Any], base: str | None) -> str | None:
        if template := scope.get("path_template"):  # Litestar, without the types of parameters
            return self._untyped.get(template, str(template))
        if template := scope.get(_RULE):  # Quart
            return str(template)
        route = scope.get("route")  # Starlette, or FastAPI
        path = getattr(_included(scope, route), "path", None) or getattr(route, "path", None)
        if not isinstance(path, str):
            return None
        root = str(scope.get("root_path", ""))
        mounted = root.removeprefix(scope.get("app_root_path", root) if base is None else base)
        return self._with_parameters(mounted, path) if mounted else path

    def _with_parameters(self, mounted: str, path: str) -> str:
        """Return a template of a feature that ends with `path` and begins like `mounted`, parameters aside."""
        found = [text for text in self._templates if text.endswith(path) and _fits(text.removesuffix(path), mounted)]
        return mounted + path if not found or mounted + path in found else found[0]


def _included(scope: MutableMapping[str, Any], route: object) -> object:
    """Return FastAPI's note on a route of an included router, whose own path lacks the router's prefix."""
    notes = scope.get("fastapi")
    note = notes.get("effective_route_context") if isinstance(notes, dict) else None
    return note if getattr(note, "original_route", None) is route else None


def _fits(template: str, path: str) -> bool:
    """Return True if a path matches a template, segment by segment."""
    segments, values = template.split("/"), path.split("/")
    return len(segments) == len(values) and all(
        segment == value or segment.startswith("{") for segment, value in zip(segments, values, strict=True)
    )


async def _keep_rule(_: object, **__: object) -> None:
    """Write the template of a Quart request into its connection scope."""
    from quart import request

    if request.url_rule is not None:
        scope: Any = request.scope
        scope[_RULE] = request.url_rule.rule
