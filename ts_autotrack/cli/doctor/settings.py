"""Checks of the settings: source of each value, bad values, settings file, credentials, reason of being off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core import project
from ts_autotrack._core.config import LOCAL_KEY, SETTINGS, Config, all_variables, environment, read
from ts_autotrack._core.redaction import mask_url
from ts_autotrack.cli.doctor.findings import Finding, count

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from ts_autotrack._core.config import Setting
    from ts_autotrack.cli.doctor.findings import Level


class Settings(NamedTuple):
    """Settings as the application would read them.

    Attributes:
        config: Settings in force.
        values: Values by name.
        from_file: Names of the settings that the settings file changes.
        file: Path of the settings file; an empty text without one.
        warnings: Messages about bad settings, each with its key and level, as `config.read` gives them.
    """

    config: Config
    values: dict[str, Any]
    from_file: frozenset[str]
    file: str
    warnings: list[tuple[Hashable, str, str]]


def read_settings(folder: str, *, named: bool = False) -> Settings:
    """Return the settings of an application in a folder: environment, and settings file from there upwards.

    Args:
        folder: First folder of the application.
        named: True if the operator has named the application's command. Otherwise a file of another user does not
            count, as it does not count for a program of this user.
    """
    warnings: list[tuple[Hashable, str, str]] = []

    def collect(*warning: Any) -> None:
        if warning not in warnings:
            warnings.append(warning)

    found = project.nearest(folder)
    if found and not named and not project.is_trusted(found[0]):
        warnings.append((("setting", found[0]), f"{found[0]} is ignored: it belongs to another user", "warning"))
        found, folder = None, ""
    values = read({}, folder, collect)
    without_file = read({}, "", lambda *_: None)
    derived = {"exporter"} if values["exporter"] == "thrivestack" else set()  # a key in the file implies the exporter
    from_file = frozenset(name for name, value in values.items() if value != without_file[name]) - derived
    return Settings(Config(values), values, from_file, found[0] if found else "", warnings)


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield the settings file, all settings that are given with their source, and all messages about bad ones."""
    yield _file_finding(settings)
    for name, setting in SETTINGS.items():
        if source := _source(name, setting, settings):
            yield Finding("settings", "ok", f"{source}: {name} = {_shown(name, settings.values[name])}")
    for key, message, level in settings.warnings:
        shared = isinstance(key, tuple) and key[0] == "credential"
        reported: Level = "error" if shared or level == "error" else "warning"
        do = "Remove it from the file, and replace the credential: it may have been read." if shared else ""
        yield Finding("settings", reported, message, do or "Correct or remove the value.")


def check_key(settings: Settings) -> Iterator[Finding]:
    """Yield where the credentials come from, or the reason why no events are sent."""
    config = settings.config
    reason = config.off_reason
    if reason == "disabled":
        do = "Remove it to send events."
        yield Finding("off", "warning", f"no events are sent: {_disabled_by(settings)}", do)
    elif reason == "in_tests":
        seen = "no events are sent: pytest runs, or has started this process, and the endpoint is on another machine"
        yield Finding("off", "warning", seen, "Set TS_AUTOTRACK_IN_TESTS=1 to send them all the same.")
    elif reason == "bad_endpoint":
        yield Finding("off", "error", "no events are sent: the endpoint is refused", "Correct THRIVESTACK_ENDPOINT.")
    if config.exporter in (None, "thrivestack"):
        yield from _credentials(settings)


def _file_finding(settings: Settings) -> Finding:
    if not settings.file:
        return Finding("settings", "ok", "no settings file from the working directory upwards: the environment counts")
    if settings.from_file:
        return Finding("settings", "ok", f"{settings.file} is in force for a program of its folder")
    return Finding("settings", "ok", f"{settings.file} changes no setting")


def _source(name: str, setting: Setting, settings: Settings) -> str:
    """Return the source of a setting's value; an empty text for the default."""
    given = environment(setting.variable)
    if given and all(key != ("setting", setting.variable) for key, _, _ in settings.warnings):
        return setting.variable
    return Path(settings.file).name if name in settings.from_file else ""


def _shown(name: str, value: Any) -> str:
    """Return a value without credentials."""
    if SETTINGS[name].secret:
        return f"set ({len(value)} characters)" if value else "not set"
    if isinstance(value, dict):  # values of all events may be personal
        return count(len(value), "entry", "entries")
    return mask_url(value) if isinstance(value, str) else repr(value)


def _disabled_by(settings: Settings) -> str:
    if settings.config.exporter == "none":
        return "the setting exporter is none"
    variable = SETTINGS["disabled"].variable
    if environment(variable):
        return f"{variable}={environment(variable)}"
    return "the settings file says disabled" if "disabled" in settings.from_file else "DO_NOT_TRACK is set"


def _credentials(settings: Settings) -> Iterator[Finding]:
    key, token = settings.values["api_key"], settings.values["auth_token"]
    if not key and not token:
        do = "Set THRIVESTACK_API_KEY, or TS_AUTOTRACK_EXPORTER=console to see the events in the terminal."
        yield Finding("key", "error", "no events are sent: there is no key", do)
        known = {setting.variable for setting in SETTINGS.values()}
        for variable in sorted(all_variables()):
            if variable.upper().startswith("THRIVESTACK") and variable not in known:
                do = "The key belongs into THRIVESTACK_API_KEY."
                yield Finding("key", "note", f"the variable {variable} is no setting of this library", do)
        return
    if key == LOCAL_KEY and not environment("THRIVESTACK_API_KEY"):
        yield Finding("key", "ok", "no key is needed for an endpoint on this machine")
    for name, value in (("api_key", key), ("auth_token", token)):
        if value and value != LOCAL_KEY:
            source = _source(name, SETTINGS[name], settings)
            yield Finding("key", "ok", f"{name} comes from {source}, {_shown(name, value)}")
    if token:
        seen = "an auth_token is valid for a day at most"
        yield Finding("key", "note", seen, "Use THRIVESTACK_API_KEY for processes that run longer.")
