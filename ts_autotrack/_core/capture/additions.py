"""add_properties: properties for the event in flight."""

from __future__ import annotations

from ts_autotrack._core.capture.block import open_use
from ts_autotrack._core.capture.buffer import CLOSED, buffer
from ts_autotrack._core.capture.call import merge_extras
from ts_autotrack._core.capture.monitor import START, monitor
from ts_autotrack._core.capture.stack import (
    MAX_FRAMES,
    attach,
    current_frame,
    innermost_call,
    place,
    watched_codes,
)
from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.snapshot import snapshot


def add_properties(**values: object) -> None:
    """Attach properties to the event in flight: the event of the innermost tracked call or block around this code.

    Awaited coroutines run in the awaiting call. A task or a thread started by a decorated call does not: open a block
    there, or pass the object of `with track_feature(...) as use` and call `use.set`.

    Args:
        **values: Property names to values. A snapshot is taken. These values win over the decorator's properties.
            Outside of every tracked call, and more than 200 frames inside one, the values are ignored, and a warning
            names the place once.

    Example:
        >>> from ts_autotrack import add_properties, track_feature
        >>> @track_feature("export")
        ... def export():
        ...     add_properties(rows=3)
        >>> export()
    """
    caller = current_frame(1)
    try:
        call, use = innermost_call(caller), open_use()
        if use is not None and use.directly_contains(call):
            use.set(**values)
        elif call is not None:
            if buffer.append_limit == CLOSED:  # Python may not report the end of the call
                return
            if id(call.f_code) in watched_codes:  # else the properties of a call that fails would wait for another call
                monitor.watch_unwinding()
                monitor.watch(call.f_code, START)
            attach(call, snapshot(values), merge_extras)
        else:
            where = place(caller)
            warn_once(
                ("add_properties", where),
                f"{where}: add_properties() outside of every tracked call has no effect, nor more than {MAX_FRAMES} "
                "frames inside the call. Decorate the function that it belongs to, or open a `with track_feature(...)` "
                "block around it.",
            )
    except RecursionError:
        pass
    except Exception as error:  # noqa: BLE001 - the barrier
        fault("add_properties()", error)
