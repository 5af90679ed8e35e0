"""Celery in one process: a worker in a thread with a broker in memory, and eager tasks."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress as suppress_errors
from typing import TYPE_CHECKING, Any

import celery
import pytest
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish, task_postrun, task_prerun

from tests.conftest import wait_until
from ts_autotrack import bind_user, clear_user, current_user, request_scope, suppress, track_feature, user_context
from ts_autotrack.integrations.celery import instrument_celery, uninstrument_celery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

Identity = tuple[str | None, str | None]
U: Identity = ("u", "g")
V: Identity = ("v", "h")
NOBODY: Identity = (None, None)

seen: list[tuple[str, Identity]] = []
"""Labels of the runs so far, each with the acting user at its beginning."""


def acting() -> Identity:
    """Return the acting user and account."""
    return current_user()[:2]


def made_app() -> celery.Celery:
    """Return an app with a broker in memory."""
    app = celery.Celery(f"app_{uuid.uuid4().hex}", broker="memory://", backend="cache+memory://", set_as_current=False)
    # The memory transport has one set of queues for all apps.
    app.conf.update(task_default_queue=app.main, broker_transport_options={"polling_interval": 0.01})
    app.conf.worker_hijack_root_logger = False
    return app


def add_task(app: celery.Celery, name: str, function: Any, **options: object) -> Any:
    """Give an app, and no other app, a task."""
    function.__name__ = name
    return app.task(name=name, shared=False, **options)(function)


def note(*labels: object) -> None:
    """Note the acting user."""
    seen.append((str(labels[-1]), acting()))


def fail(label: str) -> None:
    """Note the acting user, and fail."""
    note(label)
    raise ValueError


def publish_as_v(self: Any, label: str, how: str) -> None:
    """Note the acting user, and publish a task as another user, or as nobody."""
    note(label)
    bind_user("v", group_id="h")
    inner = self.app.signature("note", (f"{label} inner",), immutable=True)
    if how == "eager":
        inner.apply()
    elif how == "replace":
        self.replace(inner)
    elif how == "nobody":
        clear_user()
        inner.delay()
    else:
        inner.apply_async(headers=self.request.headers if how == "headers" else None)


def retry_as_v(self: Any, label: str, headers: dict[str, str] | None = None) -> None:
    """Note the acting user, and retry twice as another user."""
    note(label)
    bind_user("v", group_id="h")
    if self.request.retries < 2:
        raise self.retry(**({} if headers is None else {"headers": headers}))


def autoretry_as_v(self: Any, label: str) -> None:
    """Do the same by an exception."""
    note(label)
    bind_user("v", group_id="h")
    if self.request.retries < 2:
        raise ValueError


RETRIES = {"max_retries": 2, "default_retry_delay": 0}


def add_tasks(app: celery.Celery) -> None:
    """Give an app the tasks above."""
    add_task(app, "note", note)
    add_task(app, "fail", fail)
    add_task(app, "publish_as_v", publish_as_v, bind=True)
    add_task(app, "retry_as_v", retry_as_v, bind=True, **RETRIES)
    add_task(app, "autoretry_as_v", autoretry_as_v, bind=True, autoretry_for=(ValueError,), **RETRIES)


@pytest.fixture(scope="module")
def app() -> Iterator[celery.Celery]:
    """An app with a running worker."""
    app = made_app()
    add_tasks(app)
    with start_worker(app, perform_ping_check=False, loglevel="warning"):
        yield app


@pytest.fixture
def eager() -> Iterator[celery.Celery]:
    """An app whose tasks run at the caller's."""
    app = made_app()
    app.conf.task_always_eager = True
    add_tasks(app)
    yield app
    app.close()


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    """The integration, for all apps."""
    seen.clear()
    instrument_celery()
    yield
    uninstrument_celery()


def runs(count: int) -> list[tuple[str, Identity]]:
    """Return the runs of tasks, once there are `count`."""
    wait_until(lambda: len(seen) >= count, f"{count} runs")
    return sorted(seen)


PUBLISHED: dict[str, Callable[[celery.Celery, Any], object]] = {
    "delay": lambda _, note: note.delay(1),
    "send_task": lambda app, _: app.send_task("note", (1,)),
    "countdown": lambda _, note: note.apply_async((1,), countdown=0.01),
    "headers": lambda _, note: note.apply_async((1,), headers={"own": "x"}),
    "set headers": lambda _, note: note.s(1).set(headers={"own": "x"}).delay(),
    "map": lambda _, note: note.map([1]).delay(),
}
"""Ways to publish one run."""
CANVAS: dict[str, Callable[[celery.Celery, Any], Any]] = {
    "chain": lambda _, note: note.si("1") | note.si("2"),
    "group": lambda _, note: celery.group([note.si("1"), note.si("2")]),
    "chord": lambda _, note: celery.chord([note.si("1")], note.si("2")),
    "link": lambda _, note: note.si("1").on_error(note.si("error")).set(link=note.si("2")),
    "link_error": lambda app, note: app.signature("fail", ("1",)).on_error(note.si("2")),
    "nested canvas": lambda _, note: celery.chain(celery.group(note.si("1")), celery.chain(note.si("2"))),
}
"""Ways to publish two runs."""


@pytest.mark.parametrize("how", PUBLISHED)
def test_a_task_runs_for_its_publisher(app: celery.Celery, how: str) -> None:
    """However a task is published, its run starts with user and account of the publisher; the next one with nobody."""
    with user_context("u", group_id="g"):
        PUBLISHED[how](app, app.tasks["note"])
    assert runs(1) == [("1", U)]
    app.tasks["note"].delay(2)
    assert runs(2) == [("1", U), ("2", NOBODY)]


@pytest.mark.parametrize("how", CANVAS)
def test_a_canvas_runs_for_its_publisher(app: celery.Celery, how: str) -> None:
    """Each task of a canvas runs for the publisher of the canvas."""
    with user_context("u", group_id="g"):
        CANVAS[how](app, app.tasks["note"]).delay()
    assert runs(2) == [("1", U), ("2", U)]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("how", ["retry", "retry with headers", "autoretry"])
def test_a_retry_keeps_the_first_user(
    app: celery.Celery, monkeypatch: pytest.MonkeyPatch, how: str, protocol: int
) -> None:
    """Each attempt starts with the user of the first message, not with the user bound by the attempt before."""
    monkeypatch.setattr(app.amqp, "create_task_message", app.amqp.task_protocols[protocol])
    arguments = ("1", {"own": "x"}) if how == "retry with headers" else ("1",)
    for user in (U, NOBODY):
        seen.clear()
        with user_context(user[0], group_id=user[1]):
            app.tasks[f"{how.partition(' ')[0]}_as_v"].delay(*arguments)
        assert runs(3) == [("1", user)] * 3


@pytest.mark.parametrize(
    ("how", "inner"), [("delay", V), ("headers", V), ("replace", V), ("eager", V), ("nobody", NOBODY)]
)
def test_a_nested_task_runs_for_the_user_of_that_moment(app: celery.Celery, how: str, inner: Identity) -> None:
    """A task published inside a task belongs to the user bound there, also if the message's headers are handed on."""
    with user_context("u", group_id="g"):
        app.tasks["publish_as_v"].delay("1", how)
    assert runs(2) == [("1", U), ("1 inner", inner)]


def test_a_linked_task_runs_for_the_user_bound_by_the_task(app: celery.Celery) -> None:
    """The links of a task, and the rest of its chain, belong to the user bound in the task."""
    bound, note = app.signature("publish_as_v", ("1", "eager"), immutable=True), app.tasks["note"].si
    with user_context("u", group_id="g"):
        (bound.set(link=note("2")) | note("3")).delay()
    assert runs(4) == [("1", U), ("1 inner", V), ("2", V), ("3", V)]


def test_headers_stay(app: celery.Celery) -> None:
    """The application's own headers arrive, a message without a user gets none, and a given identity stays then."""
    given: list[dict[str, Any]] = []

    def receiver(headers: dict[str, Any], **_: object) -> None:
        given.append(headers)

    before_task_publish.connect(receiver)
    note = app.tasks["note"]
    with user_context("u"):
        note.apply_async((1,), headers={"own": "x"})
    note.apply_async((2,))
    note.apply_async((3,), headers={"ts_autotrack": '{"user_id": "w"}'})
    runs(3)
    before_task_publish.disconnect(receiver)
    assert (given[0]["own"], given[0]["ts_autotrack"]) == ("x", '{"user_id": "u"}')
    assert given[0].keys() - given[1].keys() == {"own", "ts_autotrack"}
    assert runs(3) == [("1", ("u", None)), ("2", NOBODY), ("3", ("w", None))]


@pytest.mark.parametrize("header", ["no JSON", 5, ["x"], '{"user_id": 5}'])
def test_a_foreign_header_is_nobody(app: celery.Celery, header: object) -> None:
    """A header that the library did not write names nobody, and the task runs."""
    app.tasks["note"].apply_async((1,), headers={"ts_autotrack": header})
    assert runs(1) == [("1", NOBODY)]


def test_named_properties_go_along(app: celery.Celery, inspector: Inspector) -> None:
    """Properties and context named in `properties` arrive, and no others leave; suppression goes along."""
    uninstrument_celery()
    instrument_celery(properties=["plan", "session_id"], features={"note": "noted"})
    with user_context("u", group_id="g", plan="pro", session_id="s", user_email="u@example.com"):
        app.tasks["note"].delay(1)
        runs(1)
        with suppress():
            app.tasks["note"].delay(2)
        runs(2)
    (item,) = wait_until(inspector.items, "the event")
    assert item["properties"] == {"feature_name": "noted", "action": "note", "plan": "pro"}
    assert (item["user_id"], item["context"]["group_id"], item["context"]["session_id"]) == ("u", "g", "s")
    assert "user_email" not in item["properties"]


def test_a_resolver_that_raises_stops_no_task(app: celery.Celery) -> None:
    """A message published in a request whose resolver raises has no user."""

    def resolver() -> str:
        raise ValueError

    with request_scope(resolver):
        app.tasks["note"].delay(1)
    assert runs(1) == [("1", NOBODY)]


@pytest.mark.parametrize("how", ["apply", "delay", "canvas"])
def test_an_eager_task_acts_for_its_caller(eager: celery.Celery, inspector: Inspector, how: str) -> None:
    """An eager task has all of the caller's identity, also bound parts; its own `bind_user` ends with the task."""

    def work() -> None:
        seen.append(("other", current_user()))  # type: ignore[arg-type]
        track_feature("before")(lambda: None)()
        bind_user("v", group_id="h")
        track_feature("after")(lambda: None)()

    other = add_task(eager, "other", work)
    with request_scope(lambda: {"user_id": "u", "device_type": "mobile", "plan": "pro"}):
        bind_user(None, group_id="g")
        before = current_user()
        {"apply": other.apply, "delay": other.delay, "canvas": other.si().delay}[how]()
        assert current_user() == before
    ((_, inside),) = seen
    assert inside[:4] == before[:4] == ("u", "g", {"device_type": "mobile"}, {"plan": "pro"})  # type: ignore[comparison-overlap]
    items = wait_until(lambda: len(inspector.items()) == 2 and inspector.items(), "two events")
    assert [(item["user_id"], item["context"].get("group_id")) for item in items] == [U, V]


@pytest.mark.parametrize("name", ["retry_as_v", "autoretry_as_v"])
def test_an_eager_retry_acts_for_the_caller(eager: celery.Celery, name: str) -> None:
    """Each attempt of an eager task starts with the caller's identity."""
    with user_context("u", group_id="g"):
        eager.tasks[name].delay("1")
        assert acting() == U
    eager.tasks[name].delay("2")
    assert acting() == NOBODY
    assert seen == [("1", U)] * 3 + [("2", NOBODY)] * 3


def test_an_eager_task_in_an_eager_task(eager: celery.Celery) -> None:
    """Each eager task acts for the task around it."""
    with user_context("u", group_id="g"):
        eager.tasks["publish_as_v"].delay("1", "eager")
        assert acting() == U
    assert seen == [("1", U), ("1 inner", V)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, celery.exceptions.Ignore])
def test_an_exception_leaves_the_caller_as_it_was(eager: celery.Celery, error: type[BaseException]) -> None:
    """Whatever ends an eager task, its identity ends with the task."""

    def work() -> None:
        bind_user("v")
        raise error

    end = add_task(eager, "end", work)
    with user_context("u", group_id="g"):
        with suppress_errors(BaseException):
            end.delay()
        assert acting() == U


def test_features_by_configuration(eager: celery.Celery, inspector: Inspector) -> None:
    """Each run that succeeds makes one event, decorated or not; failures, retries and unknown names make none."""
    uninstrument_celery()
    names = ["note", "fail", "retry_as_v", "decorated", "unknown"]
    instrument_celery(eager, features={name: f"use_{name}" for name in names})

    decorated = track_feature("own")(add_task(eager, "decorated", lambda: None))
    with user_context("u", group_id="g"):
        for name in ("note", "fail", "retry_as_v"):
            eager.tasks[name].delay("1")
        decorated.delay()
    items = wait_until(lambda: len(inspector.items()) >= 4 and inspector.items(), "four events")
    assert [(item["properties"]["feature_name"], item["user_id"]) for item in items] == [
        *(("use_note", "u"), ("use_retry_as_v", "v"), ("own", "u"), ("use_decorated", "u"))
    ]
    assert items[0]["properties"] == {"feature_name": "use_note", "action": "note"}


def test_an_app_alone(app: celery.Celery, eager: celery.Celery) -> None:
    """With an app, messages and runs of its tasks are meant; tasks of other apps stay as they are."""
    uninstrument_celery()
    only = made_app()
    add_task(only, "only", lambda: seen.append(("only", acting())))
    instrument_celery(only)
    with user_context("u", group_id="g"):
        app.tasks["note"].delay(1)
        assert runs(1) == [("1", NOBODY)]
        add_task(eager, "bind", lambda: bind_user("v")).delay()
        assert acting() == ("v", None)  # the tasks of this app have no scope
        only.tasks["only"].apply()
    assert runs(2)[-1] == ("only", ("v", None))
    instrument_celery(app)
    seen.clear()
    with user_context("u", group_id="g"):
        app.tasks["note"].delay(1)
    assert runs(1) == [("1", U)]


def receivers() -> list[int]:
    """Return the numbers of receivers of the three signals."""
    return [len(signal.receivers) for signal in (before_task_publish, task_prerun, task_postrun)]


def test_a_second_call_changes_nothing(eager: celery.Celery, inspector: Inspector) -> None:
    """Two calls count once, and one call undoes them; a proxy of an app is the app."""
    uninstrument_celery()
    before = receivers()
    instrument_celery(eager, features={"note": "first"})
    once = receivers()
    instrument_celery(celery.local.Proxy(lambda: eager), features={"note": "second"})
    assert receivers() == once
    with user_context("u"):
        eager.tasks["note"].delay(1)
    (item,) = wait_until(inspector.items, "the event")
    assert item["properties"]["feature_name"] == "first"
    uninstrument_celery()
    assert receivers() == before
    uninstrument_celery()
    with user_context("u"):
        add_task(eager, "bind", lambda: bind_user("v")).delay()
        assert acting() == ("v", None)


def test_the_integration_may_end_inside_a_task(eager: celery.Celery) -> None:
    """The scope of a running task ends with the task, also after `uninstrument_celery`."""

    def work() -> None:
        bind_user("v")
        uninstrument_celery()

    add_task(eager, "end", work).apply()
    assert acting() == NOBODY
    instrument_celery()
    uninstrument_celery()
    connected = [
        receiver for signal in (before_task_publish, task_prerun, task_postrun) for _, receiver in signal.receivers
    ]
    assert not [receiver for receiver in connected if "ts_autotrack" in str(getattr(receiver, "__module__", ""))]


def test_signals_in_another_order(eager: celery.Celery, caplog: pytest.LogCaptureFixture) -> None:
    """An end without a beginning, other receivers that raise, and a user bound by a receiver are no problem."""

    def receiver(**_: object) -> None:
        bind_user("w")
        raise ValueError

    note = eager.tasks["note"]
    task_postrun.send(sender=note, task=note, task_id="1", state="SUCCESS")
    task_prerun.connect(receiver)
    note.delay(1)
    task_prerun.disconnect(receiver)
    assert seen == [("1", ("w", None))]
    assert acting() == NOBODY
    assert not [record for record in caplog.records if record.name == "ts_autotrack"]


def test_a_fault_of_the_integration_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Messages of an unknown form are published, and a warning says once that they have no user."""
    with caplog.at_level(logging.WARNING), user_context("u"):
        for _ in range(2):
            before_task_publish.send(sender="note", headers={}, body=None)
    assert caplog.text.count("the acting user could not be written into a message (TypeError)") == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"app": "myapp"}, TypeError, r"instrument_celery\(app='myapp'\)"),
        ({"properties": "plan"}, TypeError, "properties='plan'"),
        ({"properties": ["user_id"]}, ValueError, "user_id"),
        ({"features": {"": "x"}}, ValueError, "a key must be the name of a task"),
        ({"features": {"note": ""}}, ValueError, "must be a non-empty text"),
    ],
)
def test_wrong_arguments_raise(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """A wrong argument is named, and nothing is instrumented."""
    uninstrument_celery()
    before = receivers()
    with pytest.raises(error, match=message):
        instrument_celery(**arguments)
    assert receivers() == before
