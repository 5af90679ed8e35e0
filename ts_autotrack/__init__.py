"""Product-usage events for ThriveStack: decorators capture calls, a background exporter delivers them."""

from ts_autotrack._capture import add_properties
from ts_autotrack._features import track_feature
from ts_autotrack._identity import bind_user, clear_user, suppress, user_context
from ts_autotrack._lifecycle import configure, flush, rejected, shutdown, stats
from ts_autotrack._track import group, identify, track

__all__ = [
    "add_properties",
    "bind_user",
    "clear_user",
    "configure",
    "flush",
    "group",
    "identify",
    "rejected",
    "shutdown",
    "stats",
    "suppress",
    "track",
    "track_feature",
    "user_context",
]
