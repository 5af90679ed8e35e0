"""Parsers of setting values: each returns the valid value or raises a ValueError that names the expected form."""

from __future__ import annotations

import os
import re

from ts_autotrack._core.contract import DEFAULT_ENDPOINT
from ts_autotrack._core.snapshot import copied, has_items, shallow

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MAX_COUNT = 1_000_000_000_000
MAX_KEYS = 20
"""Names of baggage entries in one setting."""
MAX_VALUES = 8_000
"""Bytes of the values that all events of a process carry."""
MAX_PORT = 65_535
MAX_SECONDS = 86_400
"""Seconds of a day."""

_LOCAL_HOSTS = frozenset({"localhost", "::1"})
_KEY = re.compile(r"[!-+\--:<>-~]+")
"""A name in baggage: printable ASCII without spaces, commas, ";" and "="."""
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class PartlyBadError(ValueError):
    """Some entries of a value are no good.

    Attributes:
        good: The value without these entries.
        complaints: A message for each of these entries.
    """

    def __init__(self, good: Any, complaints: list[str]) -> None:
        super().__init__("; ".join(complaints))
        self.good = good
        self.complaints = complaints


def credential(value: object) -> str:
    """Parse a key or token."""
    text = str(value).strip()
    if not text or not all("!" <= char <= "~" for char in text):
        message = "a key or token is printable ASCII without spaces"
        raise ValueError(message)
    return text


def endpoint(value: object) -> str:
    """Parse the base URL of the service, without a path such as "/track"."""
    text = str(value).strip().rstrip("/").removesuffix("/track")
    if (complaint := complaint_about(text, DEFAULT_ENDPOINT, "THRIVESTACK_API_KEY")) is not None:
        raise ValueError(complaint)
    scheme, _, rest = text.partition("://")
    return f"{scheme.lower()}://{rest}"


def complaint_about(url: str, example: str, credentials: str) -> str | None:
    """Return the reason why a URL is no endpoint; None for a good one.

    Args:
        url: The URL.
        example: A good URL.
        credentials: The setting of credentials.
    """
    expected = f"expected a URL such as {example}"
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("http", "https") or "\\" in url or not all(" " < char != "\x7f" for char in url):
        return expected
    if "@" in rest.partition("/")[0]:
        return f"credentials in the URL are not supported; use {credentials}"
    if "?" in url or "#" in url:
        return f"a query or fragment is not supported; {expected}"
    host, port = host_and_port(url)
    if not host or not all(char.isalnum() or char in "-._:%" for char in host) or not _is_port(port):
        return expected
    return None


def host_and_port(url: str) -> tuple[str, str]:
    """Return the host of a URL, in lower case and without the brackets of IPv6, and the port as written."""
    authority = url.partition("://")[2].partition("/")[0]
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
    else:
        host, colon, port = authority.partition(":")
        port = colon + port
    return host.lower(), port


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit() and 0 < int(text[1:]) <= MAX_PORT)


def is_local(url: str) -> bool:
    """Return True if the URL's host is this machine."""
    host = host_and_port(url)[0]
    return host in _LOCAL_HOSTS or _LOOPBACK.fullmatch(host) is not None


def one_of(*words: str) -> Callable[[object], str]:
    """Return a parser of one of these words, in upper or lower case."""

    def parse(value: object) -> str:
        text = str(value).strip().lower()
        if text not in words:
            message = f"expected one of {', '.join(words)}"
            raise ValueError(message)
        return text

    return parse


def path(value: object) -> str:
    """Parse a path: a text, or a path object."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        message = "expected a path"
        raise ValueError(message)
    return text


def directory(value: object) -> str:
    """Parse the path of a directory into an absolute one: a daemon changes its working directory later."""
    return os.path.join(working_directory(), os.path.expanduser(path(value)))


def working_directory() -> str:
    """Return the working directory; an empty text if somebody deleted it."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def seconds(value: Any) -> float:
    """Parse a duration in seconds, up to a day."""
    try:
        number = -1.0 if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        number = -1.0
    if not 0 <= number <= MAX_SECONDS:  # refuses nan, too
        message = f"expected a number of seconds from 0 to {MAX_SECONDS}"
        raise ValueError(message)
    return number


def positive_seconds(value: Any) -> float:
    """Parse a duration in seconds of more than 0."""
    if not (number := seconds(value)):
        message = "expected a number of seconds of more than 0"
        raise ValueError(message)
    return number


def count(value: object) -> int:
    """Parse a whole number of at least 1."""
    text = str(value).strip().replace("_", "")
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_COUNT):
        message = f"expected a whole number from 1 to {MAX_COUNT}"
        raise ValueError(message)
    return int(text)


def values(value: Any) -> dict[str, object]:
    """Parse names with values: a mapping, a JSON object, or a text such as "environment=staging,release=1.4.2"."""
    if isinstance(value, str):
        value = json_object(value) if value.lstrip().startswith("{") else _pairs(value)
    found = shallow(value) if has_items(value) else None
    if found is None or not all(isinstance(name, str) and name.strip() for name in found):
        message = 'expected a mapping of names to values; as text "environment=staging,release=1.4.2" or a JSON object'
        raise ValueError(message)
    copy, size = copied(found)
    if size > MAX_VALUES:
        message = f"each event would carry these {size} bytes; at most {MAX_VALUES} are possible"
        raise ValueError(message)
    return copy


def context(value: object) -> dict[str, object]:
    """Parse the context of all events of the process, which has no account: an account belongs to a user."""
    found = values(value)
    if "group_id" in found:
        message = "group_id cannot be the same for all events: give it to user_context, bind_user or a resolver"
        raise ValueError(message)
    return found


def features(value: Any) -> dict[str, str]:
    """Parse names of features by span name or route: a mapping, a JSON object, or a text of the form "key=name,...".

    The last "=" of an entry counts: a route may contain others.
    """
    if isinstance(value, str):
        value = json_object(value) if value.lstrip().startswith("{") else _features(value)
    found = shallow(value) if has_items(value) else None
    if found is None or not all(isinstance(text, str) and text.strip() for entry in found.items() for text in entry):
        message = (
            "expected a mapping of span names and routes to features; as text "
            '"GET /reports/{id}=report_view,export-report=report_export" or a JSON object'
        )
        raise ValueError(message)
    return {key.strip(): name.strip() for key, name in found.items()}


def target(value: object) -> str:
    """Parse the name of a function: a text of the form "package.module:function"."""
    module, mark, name = (value.strip() if isinstance(value, str) else "").partition(":")
    if not mark or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        message = 'expected a text of the form "package.module:function"'
        raise ValueError(message)
    return f"{module}:{name}"


def names(value: Any) -> tuple[str, ...]:
    """Parse names: a list, or a text such as "celery,threads"."""
    if isinstance(value, str):
        value = [entry for entry in value.split(",") if entry.strip()]
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in value):
        message = 'expected a list of names; as text "first,second"'
        raise ValueError(message)
    return tuple(name.strip() for name in value if name.strip())


def integrations(value: Any) -> tuple[str, ...]:
    """Parse names of integrations, in any case."""
    return tuple(name.lower() for name in names(value))


def _features(text: str) -> dict[str, str] | None:
    """Return the entries of "key=name,key=name"; None if the text has another form."""
    entries = [entry.rpartition("=") for entry in text.split(",") if entry.strip()]
    return {key: name for key, _, name in entries} if all(mark for _, mark, _ in entries) else None


def keys(value: Any) -> tuple[str, ...]:
    """Parse names of baggage entries, the first to look for first: a list, or a text such as "user.id,enduser.id"."""
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    found = tuple(dict.fromkeys(name.strip() if isinstance(name, str) else "" for name in names))
    if not found or len(found) > MAX_KEYS or not all(map(_KEY.fullmatch, found)):
        message = f'expected up to {MAX_KEYS} names such as "user.id,enduser.id", without spaces, commas, ; and ='
        raise ValueError(message)
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about a misspelt name: the nearest known name, if there is any."""
    import difflib  # lazily: only a misspelt name needs the module

    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def json_object(text: str) -> object:
    """Return the value of a JSON text; None if the text is none."""
    import json  # lazily: only processes with such a setting need the module

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs(text: str) -> dict[str, object] | None:
    """Return the values of "name=value,name=value"; None if the text has another form."""
    pairs = [entry.partition("=") for entry in text.split(",") if entry.strip()]
    return {name.strip(): given.strip() for name, _, given in pairs} if all(mark for _, mark, _ in pairs) else None


def flag(value: object) -> bool:
    """Parse a truth value."""
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    message = "expected 1 or 0"
    raise ValueError(message)
