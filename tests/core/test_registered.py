"""Tasks and commands of other libraries, with the decorator above: one event for each run, however it is started."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

import celery
import click
import pytest
from celery.app.task import Task
from celery.contrib.testing.worker import start_worker
from click.testing import CliRunner

from tests.conftest import wait_until
from tests.core.conftest import arrived
from ts_autotrack import stats, suppress, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """A Celery application with a broker in memory. Shared tasks of the test end with the test."""
    before = set(celery._state._on_app_finalizers)
    app = celery.Celery(f"app_{uuid.uuid4().hex}", broker="memory://", backend="cache+memory://")
    yield app
    app.close()
    celery._state._on_app_finalizers.intersection_update(before)


def run_each_way(task: Any, *args: object) -> list[object]:
    """Call, apply, delay (eagerly) and run a task."""
    results = [task(*args), task.apply(args).get(), task.run(*args)]
    task.app.conf.task_always_eager = True
    try:
        return [*results, task.delay(*args).get()]
    finally:
        task.app.conf.task_always_eager = False


def made_by(decorator: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes tasks. Celery has no types."""
    made: Callable[[Callable[..., Any]], Any] = decorator(**options)
    return made


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("above", [False, True])
def test_celery_tasks(app: celery.Celery, inspector: Inspector, *, bind: bool, lazy: bool, above: bool) -> None:
    """A task is tracked above and below `@app.task`, before and after the app has made the task."""

    def plain(value: int) -> int:
        return value

    def bound(self: Any, value: int) -> int:
        assert self.name.endswith("bound")
        return value

    make: Any = app.task(bind=bind, lazy=lazy)
    track = track_feature("task", capture=["value"])
    function = bound if bind else plain
    task = track(original := make(function)) if above else make(track(function))
    if above:
        assert task is original
    if lazy:
        assert not app.finalized
    assert isinstance(task, Task)
    assert run_each_way(task, 3) == [3] * 4
    expected = {"feature_name": "task", "action": function.__name__, "value": 3}
    assert arrived(inspector) == [expected] * 4


def test_a_real_celery_worker(app: celery.Celery, inspector: Inspector) -> None:
    """A worker runs the decorated function, in the block that decorates the task."""

    @user_context("user_of_task")
    @track_feature("in_worker")
    @made_by(app.task)
    def work() -> None:
        pass

    # The worker sets the level of the root logger for good, unless the application says that it does so itself.
    app.conf.worker_hijack_root_logger = False
    with start_worker(app, perform_ping_check=False, loglevel="warning"):
        work.delay()
        wait_until(lambda: stats().accepted == 1, "the worker ran the task")
    arrived(inspector)
    assert [item["user_id"] for item in inspector.items()] == ["user_of_task"]


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("succeeds", "outcome"), [(True, "success"), (False, "error")])
def test_retried_celery_tasks(
    app: celery.Celery, inspector: Inspector, *, bind: bool, lazy: bool, succeeds: bool, outcome: str
) -> None:
    """A task with `autoretry_for` makes one event for each decorator above, with the outcome of the last attempt."""

    class Base(Task):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    attempts: list[int] = []

    def plain(value: int) -> int:
        attempts.append(value)
        if len(attempts) < 3 or not succeeds:
            raise ValueError
        return len(attempts)

    def bound(self: Any, value: int) -> int:
        assert self.request.retries == len(attempts)
        return plain(value)

    options = {"autoretry_for": (ValueError,), "max_retries": 2, "default_retry_delay": 0}
    task = made_by(app.task, base=Base, bind=bind, lazy=lazy, **options)(bound if bind else plain)
    unsteady: Any = track_feature("second", on="always")(track_feature("first", on="always", capture=["value"])(task))
    assert (unsteady.apply((7,)).result == 3) is succeeds
    assert attempts == [7, 7, 7]
    first, second = arrived(inspector)
    assert (first["feature_name"], first["value"], first["outcome"]) == ("first", 7, outcome)
    assert (second["feature_name"], second["action"], second["outcome"]) == ("second", task.run.__name__, outcome)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("made", ["lazily", "at once", "shared"])
def test_a_retried_celery_task_succeeds_once(
    app: celery.Celery, inspector: Inspector, made: str, *, above: bool
) -> None:
    """Above and below, for a task of an app and a shared task: the attempt that succeeds makes the event."""
    app.set_current()
    attempts: list[int] = []

    def unsteady() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError
        return len(attempts)

    kind: dict[str, Any] = {"name": uuid.uuid4().hex}
    if made != "shared":
        kind["lazy"] = made == "lazily"
    make = made_by(
        celery.shared_task if made == "shared" else app.task,
        **{"autoretry_for": (ValueError,), "max_retries": 2, "default_retry_delay": 0, **kind},
    )
    track = track_feature("unsteady")
    task: Any = track(make(unsteady)) if above else make(track(unsteady))
    assert task.apply().get() == 3
    assert len(arrived(inspector)) == 1


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", ["Retry", "Ignore", "Reject"])
def test_control_flow_of_celery(app: celery.Celery, inspector: Inspector, name: str, *, above: bool) -> None:
    """A task that raises Retry, Ignore or Reject makes no event: the run has no outcome."""

    def work() -> None:
        raise getattr(celery.exceptions, name)

    for on in ("success", "error", "always"):
        track = track_feature("work", on=on)
        make = made_by(app.task, name=on)
        task: Any = track(make(work)) if above else make(track(work))
        with pytest.raises(celery.exceptions.TaskPredicate):
            task()
    assert arrived(inspector) == []


class Work(Task):  # type: ignore[misc]
    """A task class."""

    name = "work"

    def run(self, value: int) -> int:
        """Return the value."""
        return value


def test_class_based_celery_tasks(app: celery.Celery, inspector: Inspector) -> None:
    """An instance of a task class is tracked by its `run`; other instances are not."""
    task = track_feature("work")(app.register_task(Work()))
    assert run_each_way(task, 5) == [5] * 4
    other = Work()
    assert other(1) == 1
    assert [p["action"] for p in arrived(inspector)] == ["run"] * 4


def test_celery_shared_tasks(app: celery.Celery, inspector: Inspector) -> None:
    """Every app that takes a shared task runs the decorated function, also an app made before or after."""
    app.set_current()
    early = celery.Celery(f"early_{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
    early.finalize()

    @track_feature("twice")
    @track_feature("shared")
    @made_by(celery.shared_task)
    def common() -> int:
        return 4

    assert not app.finalized
    assert run_each_way(common) == [4] * 4
    late = celery.Celery(f"late_{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
    for other in (early, late):
        found = next(task for name, task in other.tasks.items() if name.endswith(".common"))
        assert found.apply().get() == 4
        other.close()
    assert [p["feature_name"] for p in arrived(inspector)] == ["shared", "twice"] * 6


def test_a_wrong_argument_raises_where_a_lazy_task_is_decorated(app: celery.Celery) -> None:
    """The decorator checks `capture` at once, not when the app makes the task."""

    @made_by(app.task)
    def work(value: int) -> int:
        return value

    with pytest.raises(TypeError, match="work has no argument 'other'"):
        track_feature("x", capture=["other"])(work)
    assert work(1) == 1


def test_suppressed_celery_task(app: celery.Celery, inspector: Inspector) -> None:
    """`suppress` above a task holds in each of its runs."""

    @suppress()
    @made_by(app.task)
    def work() -> None:
        inner()

    @track_feature("inner")
    def inner() -> None:
        pass

    run_each_way(work)
    assert arrived(inspector) == []
    assert stats().dropped == {"suppressed": 4}


def test_click_commands(inspector: Inspector) -> None:
    """A command and a group make one event for each run: from a command line, a call, and their callbacks."""

    @track_feature("group", properties={"level": 1})
    @click.group()
    def cli() -> None:
        pass

    @track_feature("command", capture=["count"])
    @cli.command()
    @click.option("--count", default=1)
    @click.pass_context
    def go(context: click.Context, count: int) -> int:
        assert context.command is go
        return count

    assert type(go) is click.Command
    assert cli.commands == {"go": go}
    assert CliRunner().invoke(cli, ["go", "--count", "2"]).exit_code == 0
    assert cli.main(["go"], standalone_mode=False) == 1
    assert go(["--count", "3"], standalone_mode=False) == 3
    assert cli.callback is not None
    cli.callback()
    assert CliRunner().invoke(cli, ["go", "--count", "many"]).exit_code == 2
    features = [(p["feature_name"], p.get("count")) for p in arrived(inspector)]
    group, command = ("group", None), [("command", number) for number in (2, 1, 3)]
    assert features == [group, command[0], group, command[1], command[2], group, group]


def test_a_group_without_a_function_warns(caplog: pytest.LogCaptureFixture) -> None:
    """A group that runs nothing stays as it is, and the warning names the right place."""
    group = click.Group("tools")
    with caplog.at_level(logging.WARNING):
        assert track_feature("tools")(group) is group
    assert "click.core.Group cannot be decorated in place" in caplog.text
    assert "Put the decorator below @click.command, on the function itself" in caplog.text


class ReadOnly(click.Command):
    """A command whose function cannot be replaced."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "callback" and hasattr(self, name):
            message = f"{name} is read-only"
            raise TypeError(message)
        super().__setattr__(name, value)


def one() -> int:
    """Return one."""
    return 1


def test_a_command_that_refuses_warns(caplog: pytest.LogCaptureFixture, inspector: Inspector) -> None:
    """A command with a read-only function stays as it is, and a warning says so once."""
    command = ReadOnly("fixed", callback=one)
    with caplog.at_level(logging.WARNING):
        assert track_feature("fixed")(command) is command
        assert track_feature("fixed")(command) is command
    assert caplog.text.count("(AttributeError: callback is read-only), and stays undecorated") == 1
    assert command.main([], standalone_mode=False) == 1
    assert arrived(inspector) == []


class Job:
    """A job of an unknown queue."""

    def __call__(self) -> int:
        """Return one."""
        return 1

    def delay(self) -> None:
        """Hand the job over to a worker."""


def test_an_unknown_job_is_tracked_where_it_is_called(caplog: pytest.LogCaptureFixture, inspector: Inspector) -> None:
    """Calls of the decorated object make events, and a warning says that calls by a worker may not."""
    with caplog.at_level(logging.WARNING):
        assert track_feature("job")(Job())() == 1
    assert "tests.core.test_registered.Job has a method 'delay'" in caplog.text
    assert len(arrived(inspector)) == 1
