"""The setting `features`: features of functions, routes and tasks, by their names.

A key with ":" and no space names a function, `package.module:function`. "GET /reports/{id}" and "* /reports/{id}" name
a route. Every other key is the name of a task, a command, a tool or an RPC ("/reports.Reports/Export").
"""

from __future__ import annotations

import re

from ts_autotrack._core import parsers
from ts_autotrack._core.capture.feature import track_feature
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack._core.snapshot import has_items, shallow

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Any

OPTIONS = ("feature", "feature_type", "action", "properties", "capture", "on")
METHODS = ("*", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY", "WEBSOCKET")
ALL = "*"
"""Name of all public functions of a module; as a feature, the function's own name."""
_RPC = re.compile(r"/[\w.]+/\w+")
_MAX_SHOWN = 100
"""Characters of a key in a message."""


def parse(value: Any) -> dict[str, dict[str, Any]]:
    """Parse features by name: a mapping, a JSON object, or a text of the form "key=feature;key=feature".

    Returns:
        The options of each feature by its key: "feature", and the given ones of `OPTIONS`.

    Raises:
        PartlyBadError: Some entries are no good.
        ValueError: The value has another form.
    """
    complaints: list[str] = []
    if isinstance(value, str):
        value = parsers.json_object(value) if value.lstrip().startswith("{") else _entries(value, complaints)
    found = shallow(value) if has_items(value) else None
    if found is None:
        message = (
            "expected features by name; as text "
            '"package.module:function=feature;GET /reports/{id}=report_view" or a JSON object'
        )
        raise ValueError(message)
    good: dict[str, dict[str, Any]] = {}
    for key, given in found.items():
        _add(good, key, given, complaints)
    if complaints:
        raise parsers.PartlyBadError(good, complaints)
    return good


def _add(good: dict[str, dict[str, Any]], key: Any, given: Any, complaints: list[str]) -> None:
    try:
        name = _key(key)
        if name in good:
            complaints.append(f"{name!r} is named twice")
        else:
            good[name] = _options(name, given)
    except ValueError as error:
        complaints.append(f"{str(key)[:_MAX_SHOWN]!r}: {error}")


def is_function(key: str) -> bool:
    """Return True if a key names a function, or all functions of a module."""
    return ":" in key and " " not in key


def _entries(text: str, complaints: list[str]) -> dict[str, str]:
    """Return the entries of a text. The last "=" of an entry counts: a route may contain others."""
    found: dict[str, str] = {}
    for entry in text.split(";"):
        key, mark, name = (part.strip() for part in entry.rpartition("="))
        if not entry.strip():
            continue
        if not mark:
            complaints.append(f'{entry.strip()[:_MAX_SHOWN]!r}: expected "name=feature"')
        elif key in found:
            complaints.append(f"{key!r} is named twice")
        else:
            found[key] = name
    return found


def _key(key: Any) -> str:
    """Return a key with single spaces.

    Raises:
        ValueError: The key is neither the name of a function, nor a route, nor another name.
    """
    name = " ".join(key.split()) if isinstance(key, str) else ""
    if not name:
        message = "expected a name that is not empty"
        raise ValueError(message)
    method, _, path = name.partition(" ")
    if path.startswith("/"):
        if method.upper() not in METHODS:
            message = f"{method!r} is no HTTP method{did_you_mean(method.upper(), METHODS)}"
            raise ValueError(message)
        return f"{method.upper()} {path}"
    if is_function(name):
        _check_function(name)
    elif name.startswith("/") and not _RPC.fullmatch(name):
        message = f'a route begins with its method: "GET {name}", or "* {name}" for all methods'
        raise ValueError(message)
    return name


def _check_function(name: str) -> None:
    module, _, function = name.partition(":")
    if "=" in name:
        message = 'entries have ";" between them: "package.module:function=feature;package.module:other=feature"'
    elif all(part.isidentifier() for part in (*module.split("."), *function.split("."))) or (
        function == ALL and all(part.isidentifier() for part in module.split("."))
    ):
        return
    else:
        message = 'expected "package.module:function", "package.module:Class.method" or "package.module:*"'
    raise ValueError(message)


def _options(key: str, given: Any) -> dict[str, Any]:
    """Return the options of a feature, checked as `track_feature` checks them.

    Raises:
        ValueError: An option is unknown or no good.
    """
    options = shallow({"feature": given} if isinstance(given, str) else given) if given else None
    if options is None:
        message = f'expected the name of the feature, or a table with "feature" and options: {", ".join(OPTIONS[1:])}'
        raise ValueError(message)
    for name in options:
        if name not in OPTIONS:
            hint = did_you_mean(str(name), OPTIONS) or f": the options are {', '.join(OPTIONS)}"
            message = f"there is no option {name!r}{hint}"
            raise ValueError(message)
    feature = options.get("feature")
    if not isinstance(feature, str) or not feature.strip():
        message = 'the feature needs a name: feature = "report_export"'
    elif feature.strip() == ALL and not is_function(key):
        message = 'the feature "*" names features after functions: only a key "package.module:..." can have it'
    elif callable(options.get("properties")):
        message = "properties: expected a table of values"
    else:
        good = {**options, "feature": feature.strip()}
        try:
            decorator(good)
        except (ValueError, TypeError) as error:
            message = str(error).removeprefix("track_feature(").replace("): ", ": ", 1)
        else:
            return good
    raise ValueError(message)


def decorator(options: dict[str, Any]) -> Any:
    """Return the decorator of a feature by its options. The feature "*" is named after the function.

    Raises:
        ValueError: An option is no good.
        TypeError: An option has a wrong type.
    """
    given = {name: value for name, value in options.items() if name != "feature"}
    return track_feature(None if options["feature"] == ALL else options["feature"], **given)
