"""Settings: one frozen Config, one table of the sources, and the only reader of os.environ.

Precedence: `configure()`, environment, the program's settings file (see `project`), default. A bad argument
raises. A bad value in the environment or in the settings file warns, and the default takes its place. A bad endpoint
turns the library off instead: the key belongs to another server than the default one.
"""

from __future__ import annotations

import os

from ts_autotrack._core import parsers, settings_file
from ts_autotrack._core.capture.buffer import DEFAULT_LIMIT
from ts_autotrack._core.contract import DEFAULT_ENDPOINT, INTERFACES
from ts_autotrack._core.counters import DEFAULT_MAX_BYTES
from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack._core.identity.baggage import GROUP_KEYS, USER_KEYS, BaggageSettings
from ts_autotrack._core.identity.defaults import Defaults
from ts_autotrack._core.redaction import mask_url, protect

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any

    from ts_autotrack._core.settings_file import Warn
    from ts_autotrack.typing import DropReason

DURABILITIES = ("batch", "event")
EXPORTERS = ("thrivestack", "console", "jsonl", "memory", "otlp", "none")
LAUNCHED_FROM = "TS_AUTOTRACK_LAUNCHED_FROM"
"""Variable that `ts-autotrack run` sets to its working directory: a settings file is looked for from there upwards."""
LOCAL_KEY = "local"
"""Key for an endpoint on this machine when no key is set: the inspector asks for a key, but accepts any."""
REFUSED = ""
"""Value of the endpoint when the given one is no good."""


class _Frozen:
    """Base of the immutable groups of settings. A frozen dataclass would cost 5 ms of import."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, values: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> None:
        message = f"{type(self).__name__} is immutable"
        raise AttributeError(message)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # some settings are dicts

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, getattr(self, name))}" for name in self.__slots__)
        return f"{type(self).__name__}({', '.join(shown)})"


class ServerSettings(_Frozen):
    """Address of the server, and credentials for it."""

    __slots__ = ("api_key", "auth_token", "endpoint", "request_timeout")
    api_key: str | None
    auth_token: str | None
    endpoint: str
    request_timeout: float


class OutboxSettings(_Frozen):
    """Place and limits of the outbox; no directory means no outbox."""

    __slots__ = ("directory", "durability", "max_bytes")
    directory: str | None
    durability: str
    max_bytes: int


class Config(_Frozen):
    """All settings, valid. Durations are in seconds. The repr shows no credential.

    `defaults` has the settings `interface`, `context` and `properties`; `baggage` has all settings of baggage.
    The settings `features`, `user`, `integrations` and `otel_*` are not here: code outside of the core reads these by
    `public`.
    `in_tests` is True, too, if no pytest runs.
    """

    __slots__ = (
        "baggage",
        "debug",
        "defaults",
        "disabled",
        "exit_timeout",
        "exporter",
        "flush_interval",
        "in_tests",
        "jsonl_path",
        "max_queue",
        "max_queue_bytes",
        "outbox",
        "server",
        "span_events",
    )
    baggage: BaggageSettings
    debug: bool
    defaults: Defaults
    disabled: bool
    exit_timeout: float
    exporter: str | None
    flush_interval: float
    in_tests: bool
    jsonl_path: str
    max_queue: int
    max_queue_bytes: int
    outbox: OutboxSettings
    server: ServerSettings
    span_events: bool

    def __init__(self, values: Mapping[str, Any]) -> None:
        outbox = {
            "directory": values["outbox"],
            "durability": values["durability"],
            "max_bytes": values["outbox_bytes"],
        }
        defaults = Defaults(values["interface"], values["context"], values["properties"])
        baggage = BaggageSettings(
            values["baggage_user_keys"],
            values["baggage_group_keys"],
            read=values["baggage"],
            propagate=values["propagate_baggage"],
            off=values["disabled"] or values["exporter"] == "none",
        )
        groups = {
            "outbox": OutboxSettings(outbox),
            "server": ServerSettings(values),
            "defaults": defaults,
            "baggage": baggage,
        }
        super().__init__({**values, **groups})

    @property
    def off_reason(self) -> DropReason | None:
        """Drop reason of all events under these settings; None if events are exported."""
        if self.disabled or self.exporter == "none":
            return "disabled"
        if not self.in_tests and not self._is_local:
            return "in_tests"
        if self.exporter is not None:
            return None
        return "no_api_key" if self.server.endpoint else "bad_endpoint"

    @property
    def _is_local(self) -> bool:
        """True if events stay on this machine."""
        if self.exporter == "otlp":
            variables = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
            collector = next(filter(None, map(environment, variables)), "http://localhost")
            return parsers.is_local(collector if "://" in collector else f"http://{collector}")
        return self.exporter != "thrivestack" or parsers.is_local(self.server.endpoint)


class Setting:
    """One row of the table of settings.

    Attributes:
        variable: Environment variable.
        parse: Parser of a given value.
        default: Value without one.
        secret: True if messages must not show the value.
    """

    __slots__ = ("default", "parse", "secret", "variable")

    def __init__(self, variable: str, parse: Callable[[Any], Any], default: Any, *, secret: bool = False) -> None:
        self.variable = variable
        self.parse = parse
        self.default = default
        self.secret = secret


def load(arguments: Mapping[str, object], start: str | None = None, warn: Warn = warn_now) -> Config:
    """Return the settings in force. See `read`."""
    return Config(read(arguments, start, warn))


def public(arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings in force by name, without credentials. See `read`."""
    return {name: value for name, value in read(arguments).items() if not SETTINGS[name].secret}


def read(arguments: Mapping[str, object], start: str | None = None, warn: Warn = warn_now) -> dict[str, Any]:
    """Return the values of all settings by name.

    Args:
        arguments: Arguments of `configure()`.
        start: Folder to look for the settings file from, upwards; default: the program's file, see `project`. An empty
            text skips the file.
        warn: Called with a key, a message and a level for each bad value.

    Raises:
        TypeError: If an argument names no setting.
        ValueError: If an argument is no good for its setting. The message never shows a credential.
    """
    if unknown := sorted(set(arguments) - set(SETTINGS)):
        message = f"configure() has no setting {unknown[0]!r}. Settings: {', '.join(SETTINGS)}."
        raise TypeError(message)
    secrets = {name: setting.secret for name, setting in SETTINGS.items()}
    file = settings_file.read(start, environment(LAUNCHED_FROM), secrets, warn)
    values = {name: _value(name, setting, arguments, file, warn) for name, setting in SETTINGS.items()}
    _check_variables(warn)
    if values["disabled"] is False and "disabled" not in arguments and _do_not_track():
        values["disabled"] = True
    values["in_tests"] = values["in_tests"] or not _under_pytest()
    if values["durability"] == "event" and not values["outbox"]:
        message = "durability=event has no effect without an outbox: set TS_AUTOTRACK_OUTBOX"
        warn(("setting", "durability"), message, "warning")
    if values["exporter"] in (None, "thrivestack"):
        _complete_server(values, warn)
    return values


def _complete_server(values: dict[str, Any], warn: Warn) -> None:
    """Choose the key for an endpoint on this machine, and the exporter that credentials and endpoint imply."""
    endpoint = values["endpoint"]
    if not (values["api_key"] or values["auth_token"]) and parsers.is_local(endpoint):
        values["api_key"] = LOCAL_KEY
    active = endpoint != REFUSED and (values["api_key"] or values["auth_token"])
    values["exporter"] = "thrivestack" if active else None
    if active and not values["disabled"] and endpoint.startswith("http://") and not parsers.is_local(endpoint):
        message = f"the key and all events go to {endpoint} unencrypted: set THRIVESTACK_ENDPOINT to an https:// URL"
        warn(("setting", "http"), message, "warning")


def _value(
    name: str, setting: Setting, arguments: Mapping[str, object], file: tuple[str, Mapping[str, object]], warn: Warn
) -> Any:
    if arguments.get(name) is not None:
        try:
            return _parse(setting, arguments[name])
        except ValueError as error:
            message = f"configure({name}={_shown(name, arguments[name])}): {error}"
            raise ValueError(message) from None
    sources = ((setting.variable, os.environ.get(setting.variable)), (f"{file[0]}: {name}", file[1].get(name)))
    for source, value in sources:
        if value is None or value == "":
            continue
        try:
            return _parse(setting, value)
        except parsers.PartlyBadError as error:
            for complaint in error.complaints:
                warn(("setting", source, complaint), f"{source}: {complaint}. The entry is ignored", "warning")
            return error.good
        except ValueError as error:
            shown = f"{source}={_shown(name, value)}"
            if name == "endpoint":
                warn(("setting", source), f"no events are sent: {shown} is refused: {error}", "error")
                return REFUSED
            warn(("setting", source), f"{shown} is ignored: {error}", "warning")
    return setting.default


def _parse(setting: Setting, value: object) -> Any:
    if setting.secret:
        protect(str(value).strip())
    return setting.parse(value)


def _shown(name: str, value: object) -> str:
    """Return a value for a message, without credentials: those in a URL, and its query."""
    if name in SETTINGS and SETTINGS[name].secret and value:
        return "'***'"
    return repr(mask_url(value) if isinstance(value, str) and (name == "endpoint" or "://" in value) else value)


def _check_variables(warn: Warn) -> None:
    """Warn of each variable that looks like a setting of this library, and is none."""
    known = (*(setting.variable for setting in SETTINGS.values()), LAUNCHED_FROM)
    for variable in os.environ:
        if variable.startswith("TS_AUTOTRACK_") and variable not in known:
            hint = parsers.did_you_mean(variable, known)
            message = f"the variable {variable} is ignored: there is no such setting{hint}"
            warn(("setting", variable), message, "warning")


def _features(value: object) -> dict[str, dict[str, Any]]:
    from ts_autotrack._core import named_features  # lazily: most programs name no feature in their settings

    return named_features.parse(value)


def quiet(key: Hashable, message: str, level: str) -> None:
    """Say nothing, in place of a warning: settings may be read several times."""


def environment(name: str) -> str:
    """Return a variable that belongs to no setting of this library, such as SSL_CERT_FILE; an empty text without it."""
    return os.environ.get(name, "")


def all_variables() -> dict[str, str]:
    """Return a copy of all variables of this process, for a program to start."""
    return dict(os.environ)


def _do_not_track() -> bool:
    try:
        return parsers.flag(os.environ.get("DO_NOT_TRACK", "0"))
    except ValueError:
        return False


def _under_pytest() -> bool:
    """Return True in a process of pytest, and in each process that a test has started: the variables are inherited."""
    return "PYTEST_CURRENT_TEST" in os.environ or "PYTEST_VERSION" in os.environ


SETTINGS: dict[str, Setting] = {
    "api_key": Setting("THRIVESTACK_API_KEY", parsers.credential, None, secret=True),
    "auth_token": Setting("THRIVESTACK_AUTH_TOKEN", parsers.credential, None, secret=True),
    "endpoint": Setting("THRIVESTACK_ENDPOINT", parsers.endpoint, DEFAULT_ENDPOINT),
    "exporter": Setting("TS_AUTOTRACK_EXPORTER", parsers.one_of(*EXPORTERS), None),
    "jsonl_path": Setting("TS_AUTOTRACK_JSONL_PATH", parsers.path, "-"),
    "flush_interval": Setting("TS_AUTOTRACK_FLUSH_INTERVAL", parsers.seconds, 1.0),
    "request_timeout": Setting("TS_AUTOTRACK_REQUEST_TIMEOUT", parsers.positive_seconds, 10.0),
    "exit_timeout": Setting("TS_AUTOTRACK_EXIT_TIMEOUT", parsers.seconds, 2.0),
    "max_queue": Setting("TS_AUTOTRACK_MAX_QUEUE", parsers.count, DEFAULT_LIMIT),
    "max_queue_bytes": Setting("TS_AUTOTRACK_MAX_QUEUE_BYTES", parsers.count, DEFAULT_MAX_BYTES),
    "outbox": Setting("TS_AUTOTRACK_OUTBOX", parsers.directory, None),
    "outbox_bytes": Setting("TS_AUTOTRACK_OUTBOX_BYTES", parsers.count, 256_000_000),
    "durability": Setting("TS_AUTOTRACK_DURABILITY", parsers.one_of(*DURABILITIES), "batch"),
    "baggage": Setting("TS_AUTOTRACK_BAGGAGE", parsers.flag, default=None),
    "baggage_user_keys": Setting("TS_AUTOTRACK_BAGGAGE_USER_KEYS", parsers.keys, USER_KEYS),
    "baggage_group_keys": Setting("TS_AUTOTRACK_BAGGAGE_GROUP_KEYS", parsers.keys, GROUP_KEYS),
    "propagate_baggage": Setting("TS_AUTOTRACK_PROPAGATE_BAGGAGE", parsers.flag, default=None),
    "span_events": Setting("TS_AUTOTRACK_SPAN_EVENTS", parsers.flag, default=False),
    "interface": Setting("TS_AUTOTRACK_INTERFACE", parsers.one_of(*INTERFACES), None),
    "context": Setting("TS_AUTOTRACK_CONTEXT", parsers.context, None),
    "properties": Setting("TS_AUTOTRACK_PROPERTIES", parsers.values, None),
    "features": Setting("TS_AUTOTRACK_FEATURES", _features, {}),
    "user": Setting("TS_AUTOTRACK_USER", parsers.target, None),
    "integrations": Setting("TS_AUTOTRACK_INTEGRATIONS", parsers.integrations, ()),
    "otel_features": Setting("TS_AUTOTRACK_OTEL_FEATURES", parsers.features, {}),
    "otel_properties": Setting("TS_AUTOTRACK_OTEL_PROPERTIES", parsers.names, ()),
    "otel_errors": Setting("TS_AUTOTRACK_OTEL_ERRORS", parsers.flag, default=False),
    "in_tests": Setting("TS_AUTOTRACK_IN_TESTS", parsers.flag, default=False),
    "disabled": Setting("TS_AUTOTRACK_DISABLED", parsers.flag, default=False),
    "debug": Setting("TS_AUTOTRACK_DEBUG", parsers.flag, default=False),
}
