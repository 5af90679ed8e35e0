"""Options of the exporters and processors: arguments, or else the settings TS_AUTOTRACK_OTEL_*."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack import settings
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "otel_"
"""Beginning of the settings of these options."""


class Options(NamedTuple):
    """Valid options.

    Attributes:
        features: Names of features by span name or route.
        properties: Names of attributes that become properties.
        errors: True if failed spans count, too.
        baggage: True if the setting BAGGAGE was chosen as 1: baggage may come from outside.
        user_keys: Attributes that name the user, first ones first: the same as the keys of baggage.
        group_keys: Attributes that name the account, likewise.
    """

    features: dict[str, str]
    properties: tuple[str, ...]
    errors: bool
    baggage: bool
    user_keys: tuple[str, ...]
    group_keys: tuple[str, ...]


NAMES = ("features", "properties", "errors")
"""Options that an application gives."""


def read_options(owner: str, given: Mapping[str, Any]) -> Options:
    """Return the options of an exporter or processor. Never raises: a bad option is a warning, and its setting counts.

    Args:
        owner: Name of the class, for messages.
        given: Keyword arguments of the constructor, also from a declarative configuration file.
    """
    values = read_settings(owner, {PREFIX + name: value for name, value in given.items()}, PREFIX, NAMES)
    chosen = {name: values[PREFIX + name] for name in NAMES}
    keys = {"user_keys": values["baggage_user_keys"], "group_keys": values["baggage_group_keys"]}
    return Options(**chosen, **keys, baggage=values["baggage"] is True)


def read_settings(owner: str, given: Mapping[str, Any], prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return all settings, with the given values of `names` instead of those in force. Never raises.

    Args:
        owner: Name of the class, for messages.
        given: Values by setting.
        prefix: Beginning of the settings that the class leaves out of its own names.
        names: Names that the class has.
    """
    good: dict[str, Any] = {}
    for setting, value in given.items():
        name = setting.removeprefix(prefix)
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(names)}"
            warn_once(f"{owner} has no option {name!r}, which is ignored: {hint}")
            continue
        try:
            settings(**{setting: value})
            good[setting] = value
        except ValueError as error:
            expected = str(error).partition("): ")[2]
            warn_once(f"{owner}: the option {name}={value!r} is ignored: {expected}")
    return settings(**good)
