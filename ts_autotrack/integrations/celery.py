"""Celery 5: a task runs for the user acting at its publication.

The user travels in the message's header `ts_autotrack`, and each run of a task is a request scope of its own: Celery's
signals `before_task_publish`, `task_prerun` and `task_postrun` do both.

Example:
    ::

        app = Celery("myapp")
        instrument_celery(features={"myapp.tasks.export": "report_export"})
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import Celery, current_task
from celery.signals import before_task_publish, task_postrun, task_prerun
from celery.states import SUCCESS

from ts_autotrack import current_user, request_scope
from ts_autotrack.integrations._features import feature_uses
from ts_autotrack.integrations._log import warn_once
from ts_autotrack.integrations._messages import HEADER, UNWRITTEN, Carrier, MessageScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_lock = threading.Lock()
_instrumented: list[_Tasks] = []
"""Tasks of one app each, or of all apps, in the order of the calls of `instrument_celery`."""
_RUN = "_ts_autotrack_run"
"""Attribute of the request of a running task: the open scope, and the feature."""
_running: set[int] = set()
"""Ids of the requests of running tasks."""


def instrument_celery(
    app: Celery | None = None, *, properties: Iterable[str] = (), features: Mapping[str, str] | None = None
) -> None:
    """Let tasks run for the user acting at their publication; call it in the publishing process and in the worker.

    `bind_user` inside a task holds until the end of this run. A task published by a task belongs to the user acting
    there at that moment; a retry belongs to the user of the first message. An eager task acts for its caller, and
    leaves the caller's identity as it was. A task that nobody published, such as a periodic task, starts with nobody.

    A second call for the same app changes nothing. Call it before your own receivers of `task_prerun` connect: Celery
    calls receivers in this order, and a receiver of `task_postrun` that connects later runs after the task's end.

    Args:
        app: The app whose tasks are meant: messages with the name of a task that this app knows, and runs of its
            tasks. Default: all apps, and all names in `send_task`.
        properties: Names of properties, or of fields of the context such as `session_id`, that go along in the header;
            all others stay in the publishing process.
        features: Names of features by the name of a task: one event for each run that succeeds, with the task's name
            as `action`. A task that is decorated with `track_feature` besides makes two events.

    Raises:
        TypeError: `app` is no Celery app, or `properties` is one text.
        ValueError: A name in `properties` or `features` is not valid.

    Example:
        >>> from celery import Celery
        >>> from ts_autotrack import user_context
        >>> from ts_autotrack.integrations.celery import instrument_celery, uninstrument_celery
        >>> app = Celery("reports", set_as_current=False)
        >>> app.conf.task_always_eager = True
        >>> @app.task(name="reports.export")
        ... def export(): ...
        >>> instrument_celery(app, features={"reports.export": "report_export"})
        >>> with user_context("user_123", group_id="account_456"):
        ...     _ = export.delay()
        >>> uninstrument_celery()
    """
    if app is not None and not isinstance(app, Celery):
        message = f"instrument_celery(app={app!r}): expected a Celery app, or None for all apps"
        raise TypeError(message)
    _instrument(_Tasks(app, Carrier(properties), feature_uses(features, "task")))


def instrument_all(features: Mapping[str, str]) -> None:
    """Do the same for all apps without a call of `instrument_celery`: such calls count first, also later ones."""
    _instrument(_Tasks(None, Carrier(), feature_uses(features, "task"), automatic=True))


def _instrument(tasks: _Tasks) -> None:
    with _lock:
        others = [known for known in _instrumented if known.automatic is tasks.automatic]
        if any(known.app is None or known.app == tasks.app for known in others):
            return
        place = len(_instrumented) if tasks.automatic else len(others)
        _instrumented.insert(place, tasks)
        before_task_publish.connect(_publish, weak=False)
        task_prerun.connect(_begin, weak=False)
        task_postrun.connect(_end, weak=False)


def uninstrument_celery() -> None:
    """Undo all calls of `instrument_celery`. Messages published before keep their header, running tasks their user."""
    with _lock:
        _instrumented.clear()
        before_task_publish.disconnect(_publish)
        task_prerun.disconnect(_begin)
        if not _running:
            task_postrun.disconnect(_end)


class _Tasks(NamedTuple):
    """The tasks of one app, or of all apps: how their messages are written, and their features by name.

    Attributes:
        app: The app; None for all apps.
        carrier: Writes the header.
        uses: Records the feature of a task, by the task's name.
        automatic: True if no code of the application has called: the last in the list.
    """

    app: Celery | None
    carrier: Carrier
    uses: dict[str, Callable[[], None]]
    automatic: bool = False


def _publish(*, sender: str, headers: dict[str, Any], body: Any, **_: object) -> None:
    """Write the acting user into the headers of a message."""
    try:
        for tasks in _instrumented:
            if tasks.app is None or sender in tasks.app.tasks:  # Celery does not tell the app of a message
                header = _header_of_message(tasks, headers, headers if "id" in headers else body)
                if header is not None:
                    headers[HEADER] = header
                return
    except Exception as error:  # noqa: BLE001 - publishing goes on
        warn_once(UNWRITTEN, type(error).__name__)


def _header_of_message(tasks: _Tasks, headers: dict[str, Any], message: dict[str, Any]) -> Any:
    """Return the header for a message; None to leave the headers as they are.

    Args:
        tasks: The task's app.
        headers: The message's headers. Those of a retry contain the header of the first message already, unless the
            application gives headers of its own in `retry(headers=...)`.
        message: The part with the task's id: the headers, or the body in version 1 of Celery's protocol.
    """
    if message["retries"]:
        if HEADER in headers:
            return None
        publisher: Any = current_task
        if publisher and publisher.request.id == message["id"]:
            return _header_of_run(publisher.request)
    return tasks.carrier.header()


def _header_of_run(request: Any) -> Any:
    """Return the header of the message that a task runs for."""
    return getattr(request, HEADER, None) or (request.headers or {}).get(HEADER)


def _begin(*, task: Any, **_: object) -> None:
    """Open the scope of a task's run."""
    try:
        for tasks in _instrumented:
            if tasks.app is None or tasks.app == task.app:
                request = task.request
                scope = _scope_of_caller() if request.is_eager else MessageScope(_header_of_run(request))
                scope.__enter__()
                setattr(request, _RUN, (scope, tasks.uses.get(task.name)))
                _running.add(id(request))
                return
    except Exception as error:  # noqa: BLE001 - the task runs
        warn_once("the scope of a task could not begin (%s): the task's events may have no user", type(error).__name__)


def _scope_of_caller() -> request_scope:
    """Return a scope that starts with all of the acting user's identity."""
    user = current_user()
    if user.user_id is None:
        return request_scope()
    identity = {**user.properties, "user_id": user.user_id, "group_id": user.group_id, "context": user.context}
    return request_scope(lambda: identity)


def _end(*, task: Any, state: str | None = None, **_: object) -> None:
    """Record the use of the task's feature after a success, and close the scope."""
    try:
        request = task.request
        scope, use = vars(request).pop(_RUN, (None, None))
        _running.discard(id(request))
        if scope is not None:
            try:
                if use is not None and state == SUCCESS:
                    use()
            finally:
                scope.__exit__(None, None, None)
        if not _instrumented and not _running:  # undone while tasks ran
            with _lock:
                if not _instrumented:
                    task_postrun.disconnect(_end)
    except Exception as error:  # noqa: BLE001 - the task has run
        warn_once("the scope of a task could not end (%s): the task's feature may not be counted", type(error).__name__)
