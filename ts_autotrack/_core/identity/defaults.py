"""Values of the process for all of its events, under everything that a block or a call says."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Mapping


class Defaults:
    """Immutable values of one set of settings.

    Attributes:
        context: Values for the `context` of every event.
        properties: Values for the `properties` of every event of the endpoint "/track".
    """

    __slots__ = ("context", "properties")

    def __init__(
        self,
        interface: str | None = None,
        context: Mapping[str, object] | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        self.context: dict[str, object] = {**(context or {})}
        self.properties: dict[str, object] = {**({"interface": interface} if interface else {}), **(properties or {})}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Defaults) and (self.context, self.properties) == (other.context, other.properties)

    __hash__ = None  # type: ignore[assignment]  # holds dicts

    def __repr__(self) -> str:
        return f"Defaults(context={sorted(self.context)}, properties={sorted(self.properties)})"


in_force = Defaults()
"""The process's defaults; replaced as a whole when the settings change."""
