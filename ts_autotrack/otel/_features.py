"""Spans that use a feature: by the attribute `feature.name`, by their name, or by the route of a server span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, StatusCode

from ts_autotrack.otel._events import FEATURE, own_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from ts_autotrack.otel._options import Options

_METHODS = ("http.request.method", "http.method")
_STATUSES = ("http.response.status_code", "http.status_code")
"""Names of the same attribute: the present and the former semantic conventions."""
_FIRST_FAILURE = 400
"""Lowest HTTP status that is no success."""


class SpanFeatures:
    """Finds the feature that a span uses.

    A key such as "GET /reports/{id}" names a route: it matches server spans only, by method and `http.route`, or by
    the span's name where the instrumentation sets no route. The method `*` stands for all methods. Any other key is
    the name of a span.
    """

    __slots__ = ("_names", "_options", "_routes")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._names: dict[str, str] = {}
        self._routes: dict[str, dict[str, tuple[str, str]]] = {}
        for key, feature in options.features.items():
            method, _, route = key.partition(" ")
            if route.lstrip().startswith("/") and (method == "*" or method.isalpha()):
                self._routes.setdefault(route.strip(), {})[method.upper()] = key, feature
            else:
                self._names[key] = feature

    def properties_of(self, span: ReadableSpan) -> dict[str, Any] | None:
        """Return the properties of the span's event; None if the span is no use of a feature."""
        attributes: Mapping[str, Any] = span.attributes  # type: ignore[assignment]  # never None
        action: str | None = None
        try:  # `get` raises and catches inside: 0.55 us for an absent attribute, this 0.3 us
            feature = attributes[FEATURE]
        except KeyError:
            feature = None
        if not (isinstance(feature, str) and feature.strip()):  # a number, a list or an empty text names no feature
            feature = None
            if self._names and (feature := self._names.get(span.name)) is not None:
                action = span.name
            elif self._routes and span.kind is SpanKind.SERVER:
                action, feature = self._by_route(span, attributes)
            if feature is None:
                return None
        failed = _has_failed(span, attributes)
        if failed and not self._options.errors:
            return None
        properties = own_properties(attributes, self._options)
        properties["feature_name"] = feature
        if action is not None:
            properties["action"] = action
        if self._options.errors:
            properties["outcome"] = "error" if failed else "success"
        return properties

    def _by_route(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return key and feature for a server span."""
        route = attributes.get("http.route")
        if not isinstance(route, str):
            method, _, route = span.name.partition(" ")
        else:
            method = None
        features = self._routes.get(route if route[:1] == "/" else f"/{route}")  # Django's begin without a slash
        if features is None:
            return None, None
        method = method or _first(attributes, _METHODS)
        named = features.get(method.upper()) if isinstance(method, str) else None
        return named or features.get("*") or (None, None)


def _has_failed(span: ReadableSpan, attributes: Mapping[str, Any]) -> bool:
    """Return True for a span with an error, and for a server span with an answer of 400 or more.

    The conventions leave the status of a server span unset for answers below 500.
    """
    if span.status.status_code is StatusCode.ERROR:
        return True
    status = _first(attributes, _STATUSES) if span.kind is SpanKind.SERVER else None
    return isinstance(status, int) and status >= _FIRST_FAILURE


def _first(attributes: Mapping[str, Any], names: tuple[str, str]) -> Any:
    value = attributes.get(names[0])
    return attributes.get(names[1]) if value is None else value
