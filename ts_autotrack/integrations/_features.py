"""Features named in an argument of an integration: `features={"myapp.tasks.export": "report_export"}`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ts_autotrack import track_feature

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack.typing import Interface


class FeatureName(str):
    """Name of a feature with further arguments of `track_feature`, as the settings give them.

    Attributes:
        options: Values for `action`, `feature_type` and `properties`.
    """

    __slots__ = ("options",)

    def __new__(cls, name: str, options: Mapping[str, Any] | None = None) -> FeatureName:  # noqa: PYI034 - typing.Self came with 3.11
        """Make a name."""
        made = super().__new__(cls, name)
        made.options = {**(options or {})}
        return made

    options: dict[str, Any]


def feature_use(name: str, *, action: str | None = None, interface: Interface | None = None) -> Callable[[], None]:
    """Return a function that records one use of a feature by the acting user.

    A tracked function makes an event in a third of the time that `track` takes.

    Example:
        >>> from ts_autotrack import user_context
        >>> use = feature_use("report_export", action="myapp.tasks.export")
        >>> with user_context("user_123"):
        ...     use()
    """

    def use() -> None: ...

    # The place in warnings: an entry of `features`, not this line.
    use.__module__, use.__qualname__ = "features", action or name
    use.__code__ = use.__code__.replace(co_firstlineno=0)
    options = {"action": action, **getattr(name, "options", {})}
    return track_feature(str(name), interface=interface, **options)(use)


@functools.lru_cache(maxsize=1_000)
def cached_use(name: str, action: str, interface: Interface) -> Callable[[], None]:
    """Return `feature_use(...)`, made once for each feature that is found while the program runs."""
    return feature_use(name, action=action, interface=interface)


def feature_names(features: Mapping[str, str | None] | None, kind: str) -> dict[str, str | None]:
    """Return the names of features by the name of a command or tool; None for one to leave out.

    Args:
        features: The argument `features=` of an integration that makes a feature of everything else.
        kind: The thing that a key names, such as "command", for messages.

    Raises:
        TypeError: `features` is no mapping.
        ValueError: A key or a name is no text, or is empty.
    """
    if features is None:
        return {}
    if not isinstance(features, Mapping):
        message = f"features={features!r}: expected names of features by the name of a {kind}, such as {{'a': 'b'}}"
        raise TypeError(message)
    return {checked_key(key, kind): None if name is None else checked_name(key, name) for key, name in features.items()}


def feature_uses(
    features: Mapping[str, str] | None, kind: str, interface: Interface | None = None, argument: str = "features"
) -> dict[str, Callable[[], None]]:
    """Return the function to call for a use, by the key in `features`. The key is the event's `action`.

    Args:
        features: Names of features by the name of a task, command, method or field.
        kind: The thing that a key names, such as "task", for messages.
        interface: "cli" or "agent".
        argument: Name of the integration's argument, for messages.

    Raises:
        ValueError: A key or a name is no text, or is empty.
    """
    uses = {}
    for key, name in (features or {}).items():
        checked_key(key, kind, argument)
        uses[key] = feature_use(checked_name(key, name, argument), action=key, interface=interface)
    return uses


def checked_key(key: object, kind: str, argument: str = "features") -> str:
    """Return a key of an argument, with single spaces.

    Raises:
        ValueError: The key is no text, or is empty.
    """
    if isinstance(key, str) and key.strip():
        return " ".join(key.split())
    message = f"{argument}={{{key!r}: ...}}: a key must be the name of a {kind}"
    raise ValueError(message)


def checked_name(key: str, name: object, argument: str = "features") -> str:
    """Return the name of the feature that an argument gives for a key.

    Raises:
        ValueError: The name is no text, or is empty.
    """
    if isinstance(name, str) and name.strip():
        return name if isinstance(name, FeatureName) else name.strip()
    message = f"{argument}={{{key!r}: {name!r}}}: the feature's name must be a non-empty text"
    raise ValueError(message)
