"""Features named in an argument of an integration: `features={"myapp.tasks.export": "report_export"}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack import track_feature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ts_autotrack.typing import Interface


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

    return track_feature(name, action=action, interface=interface)(use)


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
        if not isinstance(key, str) or not key.strip():
            message = f"{argument}={{{key!r}: ...}}: a key must be the name of a {kind}"
            raise ValueError(message)
        uses[key] = feature_use(checked_name(key, name, argument), action=key, interface=interface)
    return uses


def checked_name(key: str, name: object, argument: str = "features") -> str:
    """Return the name of the feature that an argument gives for a key.

    Raises:
        ValueError: The name is no text, or is empty.
    """
    if isinstance(name, str) and name.strip():
        return name.strip()
    message = f"{argument}={{{key!r}: {name!r}}}: the feature's name must be a non-empty text"
    raise ValueError(message)
