"""The settings: one frozen Config, one table of where each comes from, and the only reader of os.environ.

Precedence: `configure()`, environment, `[tool.ts_autotrack]` in the nearest pyproject.toml, default. A bad argument
raises; a bad value in the environment or in pyproject.toml warns and the default takes its place.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core.capture.buffer import DEFAULT_LIMIT
from ts_autotrack._core.counters import DEFAULT_MAX_BYTES
from ts_autotrack._core.diagnostics import warn_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ts_autotrack.typing import DropReason

DEFAULT_ENDPOINT = "https://api.app.thrivestack.ai/api"
DURABILITIES = ("batch", "event")
EXPORTERS = ("thrivestack", "console", "jsonl", "none")
MOST = 1_000_000_000_000
LOCAL_KEY = "local"
"""Sent to an endpoint on this machine when no key is set: the inspector asks for a key, but not for a real one."""

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class Config(NamedTuple):
    """All settings, valid. Durations are in seconds. Its repr shows no credential."""

    api_key: str | None
    auth_token: str | None
    endpoint: str
    exporter: str | None
    jsonl_path: str
    flush_interval: float
    request_timeout: float
    exit_timeout: float
    max_queue: int
    max_queue_bytes: int
    outbox: str | None
    outbox_bytes: int
    durability: str
    baggage: bool
    disabled: bool
    debug: bool

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, value)}" for name, value in self._asdict().items())
        return f"Config({', '.join(shown)})"

    @property
    def off_reason(self) -> DropReason | None:
        """Why nothing is to be sent, as a reason in `stats().dropped`; None if events are to be exported."""
        if self.disabled or self.exporter == "none":
            return "disabled"
        if self.exporter is None and not (self.api_key or self.auth_token):
            return "no_api_key"
        return None


class Setting(NamedTuple):
    """One row of the table: where a setting comes from, how it is read, what it is without one."""

    variable: str
    parse: Callable[[Any], Any]
    default: Any
    secret: bool = False


def load(arguments: Mapping[str, object], start: str | None = None) -> Config:
    """Return the settings in force.

    Args:
        arguments: What `configure()` was given.
        start: Folder to look for pyproject.toml from, upwards; the working directory by default.

    Raises:
        TypeError: If an argument names no setting.
        ValueError: If an argument's value is no good for it; the message says what is, and never shows a credential.
    """
    if unknown := sorted(set(arguments) - set(SETTINGS)):
        message = f"configure() has no setting {unknown[0]!r}. Settings: {', '.join(SETTINGS)}."
        raise TypeError(message)
    project = _project_table(start or _working_directory())
    values = {name: _value(name, setting, arguments, project) for name, setting in SETTINGS.items()}
    if values["disabled"] is False and "disabled" not in arguments and _do_not_track():
        values["disabled"] = True
    return _completed(Config(**values))


def _completed(config: Config) -> Config:
    """Choose the exporter that the credentials imply, and the key for an endpoint on this machine."""
    if config.durability == "event" and not config.outbox:
        warn_now(("setting", "durability"), "durability=event has no effect without an outbox: set TS_AUTOTRACK_OUTBOX")
    if config.exporter not in (None, "thrivestack"):
        return config
    if not (config.api_key or config.auth_token) and is_local(config.endpoint):
        config = config._replace(api_key=LOCAL_KEY)
    if config.api_key or config.auth_token:
        return config._replace(exporter="thrivestack")
    return config._replace(exporter=None)


def is_local(endpoint: str) -> bool:
    """Whether `endpoint` is on this machine."""
    authority = endpoint.partition("://")[2].partition("/")[0]
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    return host in _LOCAL_HOSTS


def _value(name: str, setting: Setting, arguments: Mapping[str, object], project: Mapping[str, object]) -> Any:
    if arguments.get(name) is not None:
        try:
            return setting.parse(arguments[name])
        except ValueError as error:
            message = f"configure({name}={_shown(name, arguments[name])}): {error}"
            raise ValueError(message) from None
    sources = ((setting.variable, os.environ.get(setting.variable)), (f"pyproject.toml: {name}", project.get(name)))
    for source, value in sources:
        if value is None or value == "":
            continue
        try:
            return setting.parse(value)
        except ValueError as error:
            warn_now(("setting", source), f"{source}={_shown(name, value)} is ignored: {error}")
    return setting.default


def _shown(name: str, value: object) -> str:
    if name in SETTINGS and SETTINGS[name].secret and value:
        return "'***'"
    before, at, after = str(value).rpartition("@")
    return repr(f"{before.partition('://')[0]}://***@{after}") if at and "://" in before else repr(value)


def _do_not_track() -> bool:
    return os.environ.get("DO_NOT_TRACK", "").strip().lower() in ("1", "true", "yes", "on")


def _project_table(start: str) -> Mapping[str, object]:
    folder = start
    while folder:
        path = os.path.join(folder, "pyproject.toml")  # noqa: PTH118 - pathlib costs an import
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                text = file.read()
        except OSError:
            parent = os.path.dirname(folder)  # noqa: PTH120
            folder = parent if parent != folder else ""
            continue
        return _parse_project(path, text) if b"ts_autotrack" in text else {}
    return {}


def _parse_project(path: str, text: bytes) -> Mapping[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - lazy: only for a project that has settings here
    else:  # pragma: no cover - the suite runs on 3.10, too
        import tomli as tomllib  # noqa: PLC0415
    try:
        table = tomllib.loads(text.decode()).get("tool", {}).get("ts_autotrack", {})
    except (ValueError, AttributeError, RecursionError) as error:
        warn_now(("setting", path), f"{path} is ignored: {error}")
        return {}
    if not isinstance(table, dict):
        warn_now(("setting", path), f"[tool.ts_autotrack] in {path} is ignored: it is no table")
        return {}
    for name in sorted(set(table) - set(SETTINGS)):
        warn_now(("setting", path, name), f"{path}: [tool.ts_autotrack] has no setting {name!r}")
    for name in [name for name in table if name in SETTINGS and SETTINGS[name].secret]:
        warn_now(("setting", path, name), f"{path}: {name} belongs in the environment, not in a file that is shared")
    return table


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # the folder is gone
        return ""


def _credential(value: object) -> str:
    text = str(value).strip()
    if not text or not all("!" <= char <= "~" for char in text):
        message = "a key or token is printable ASCII without spaces"
        raise ValueError(message)
    return text


def _endpoint(value: object) -> str:
    text = str(value).strip().rstrip("/").removesuffix("/track")
    scheme, _, rest = text.partition("://")
    if scheme not in ("http", "https") or not rest.partition("/")[0] or any(char.isspace() for char in text):
        message = f"expected a URL such as {DEFAULT_ENDPOINT}"
        raise ValueError(message)
    if "@" in rest.partition("/")[0]:
        message = "credentials in the URL are not supported; use THRIVESTACK_API_KEY"
        raise ValueError(message)
    return text


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = str(value).strip().lower()
        if text not in words:
            message = f"expected one of {', '.join(words)}"
            raise ValueError(message)
        return text

    return parse


def _path(value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        message = "expected a path"
        raise ValueError(message)
    return path


def _directory(value: object) -> str:
    # Absolute: a daemon changes its working directory after it has read its settings.
    return os.path.join(_working_directory(), os.path.expanduser(_path(value)))  # noqa: PTH111, PTH118


def _seconds(value: Any) -> float:
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        seconds = -1.0
    if not 0 <= seconds <= 86_400:  # noqa: PLR2004 - a day; also refuses nan
        message = "expected a number of seconds from 0 to 86400"
        raise ValueError(message)
    return seconds


def _some_seconds(value: Any) -> float:
    if not (seconds := _seconds(value)):
        message = "expected a number of seconds of more than 0"
        raise ValueError(message)
    return seconds


def _count(value: object) -> int:
    text = str(value).strip().replace("_", "")
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST):
        message = f"expected a whole number from 1 to {MOST}"
        raise ValueError(message)
    return int(text)


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    message = "expected 1 or 0"
    raise ValueError(message)


SETTINGS: dict[str, Setting] = {
    "api_key": Setting("THRIVESTACK_API_KEY", _credential, None, secret=True),
    "auth_token": Setting("THRIVESTACK_AUTH_TOKEN", _credential, None, secret=True),
    "endpoint": Setting("THRIVESTACK_ENDPOINT", _endpoint, DEFAULT_ENDPOINT),
    "exporter": Setting("TS_AUTOTRACK_EXPORTER", _one_of(*EXPORTERS), None),
    "jsonl_path": Setting("TS_AUTOTRACK_JSONL_PATH", _path, "-"),
    "flush_interval": Setting("TS_AUTOTRACK_FLUSH_INTERVAL", _seconds, 1.0),
    "request_timeout": Setting("TS_AUTOTRACK_REQUEST_TIMEOUT", _some_seconds, 10.0),
    "exit_timeout": Setting("TS_AUTOTRACK_EXIT_TIMEOUT", _seconds, 2.0),
    "max_queue": Setting("TS_AUTOTRACK_MAX_QUEUE", _count, DEFAULT_LIMIT),
    "max_queue_bytes": Setting("TS_AUTOTRACK_MAX_QUEUE_BYTES", _count, DEFAULT_MAX_BYTES),
    "outbox": Setting("TS_AUTOTRACK_OUTBOX", _directory, None),
    "outbox_bytes": Setting("TS_AUTOTRACK_OUTBOX_BYTES", _count, 256_000_000),
    "durability": Setting("TS_AUTOTRACK_DURABILITY", _one_of(*DURABILITIES), "batch"),
    "baggage": Setting("TS_AUTOTRACK_BAGGAGE", _flag, default=True),
    "disabled": Setting("TS_AUTOTRACK_DISABLED", _flag, default=False),
    "debug": Setting("TS_AUTOTRACK_DEBUG", _flag, default=False),
}
