"""The scope that work inside a request has: a reference to the acting user, asked at each capture."""

from __future__ import annotations

from ts_autotrack._core.identity.request import NOBODY, BlockActor
from ts_autotrack._core.identity.scope import Scope, nearest_open

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ts_autotrack._core.identity.request import Actor
    from ts_autotrack.typing import IdentitySource

_NOTHING: dict[str, object] = {}


class RequestView(Scope):
    """Scope inside a request: a reference to the acting user, resolved at each capture.

    Attributes:
        actor: The acting user.
        overlay: Values of blocks around that name no user; None without such a block.
    """

    __slots__ = ("_merged", "_user_id", "actor", "overlay")

    def __init__(self, actor: Actor, overlay: Scope | None = None, *, suppressed: bool = False) -> None:
        super().__init__(suppressed=suppressed)
        self.actor = actor
        self.overlay = overlay
        self._merged: tuple[Scope, Scope] | None = None
        self._user_id = None if overlay is None else actor.scope(asking=False).user_id

    def derive(
        self,
        user_id: object = None,
        group_id: object = None,
        context: Mapping[str, object] = _NOTHING,
        properties: Mapping[str, object] = _NOTHING,
        source: IdentitySource = "user_context",
    ) -> Scope:
        """Return a scope of the same request with these values over the values of this scope."""
        if user_id is None:
            overlay = self.overlay
            if group_id is not None or context or properties:
                overlay = (overlay or NOBODY).derive(None, group_id, context, properties)
            return RequestView(self.actor, overlay, suppressed=self.suppressed)
        named = NOBODY.derive(user_id, group_id, context, properties)  # a snapshot, taken now

        def find() -> Scope | None:
            return self.known().derive(named.user_id or "", named.group_id, named.context, named.properties, source)

        return RequestView(BlockActor(self.actor.request, find), suppressed=self.suppressed)

    def suppress(self) -> Scope:
        """Return this scope with its events dropped."""
        return RequestView(self.actor, self.overlay, suppressed=True)

    def resolve(self) -> Scope:
        """Return the scope for a capture; this scope itself if the event has to wait until somebody is known."""
        if self.entry is not None and (scope := nearest_open(self)) is not self:
            return scope.resolve()
        if self.suppressed:
            return self
        known = (self.actor.known or self.actor.scope()) if self.overlay is None else self.known()
        if not (known.user_id and known.group_id):
            known = known.filled(self.actor.request.distrusted)
        return self if known.user_id is None and self.waits else known

    def resolve_later(self) -> Scope:
        """Return the scope for the end of work that began inside: baggage belongs to others by now."""
        if self.suppressed:
            return self
        known = self.known()
        return self if known.user_id is None and self.waits else known

    def known(self, *, asking: bool = True) -> Scope:
        """Return the scope of the acting user, as far as it is known."""
        scope, overlay = self.actor.scope(asking=asking), self.overlay
        if overlay is None:
            return scope
        merged = self._merged
        if merged is None or merged[0] is not scope:
            self._user_id = self._user_id or scope.user_id
            if scope.user_id == self._user_id:
                over = scope.derive(None, overlay.group_id, overlay.context, overlay.properties)
            else:  # another user than the user at the beginning of the block
                over = scope.derive(None, None, overlay.of_request().context)
            merged = self._merged = scope, over
        return merged[1]

    @property
    def waits(self) -> bool:
        """True if an event without a user has to wait: somebody may become known."""
        return not (self.actor.request.ended or self.actor.cleared)
