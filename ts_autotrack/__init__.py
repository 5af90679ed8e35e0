"""Product-usage events for ThriveStack: decorators capture calls, a background exporter delivers them.

PYTEST_DONT_REWRITE: without this word pytest warns if the library, one of its plugins, is imported before it starts.
"""

from ts_autotrack._core.api import configure, flush, rejected, settings, shutdown, stats
from ts_autotrack._core.capture.additions import add_properties
from ts_autotrack._core.capture.feature import track_feature
from ts_autotrack._core.capture.manual import group, identify, track
from ts_autotrack._core.capture.tracked import is_tracked
from ts_autotrack._core.identity.propagation import current_user, propagate_context
from ts_autotrack._core.identity.request_scope import request_scope
from ts_autotrack._core.identity.user_context import bind_user, clear_user, suppress, user_context
from ts_autotrack._core.observers import observe_requests
from ts_autotrack._core.responses import register_response
from ts_autotrack._version import __version__

__all__ = [
    "__version__",
    "add_properties",
    "bind_user",
    "clear_user",
    "configure",
    "current_user",
    "flush",
    "group",
    "identify",
    "is_tracked",
    "observe_requests",
    "propagate_context",
    "register_response",
    "rejected",
    "request_scope",
    "settings",
    "shutdown",
    "stats",
    "suppress",
    "track",
    "track_feature",
    "user_context",
]
