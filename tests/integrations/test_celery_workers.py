"""Celery with real workers and a real Redis: users are never mixed up, and a deploy loses nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import celery
import pytest

from tests.conftest import terminate, wait_until
from tests.integrations.load import ROOT, Request, endless_requests, problems, requests_of_users
from ts_autotrack import user_context
from ts_autotrack.integrations.celery import instrument_celery, uninstrument_celery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

POOLS = {
    "prefork": "-P prefork -c 2 --max-tasks-per-child 60",
    "threads": "-P threads -c 8",
    "solo": "-P solo",
    "gevent": "-P gevent -c 20",
}


class Worker:
    """Runs workers of the application, and publishes tasks for them from the test's own process."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._app = celery.Celery(broker=environment["CELERY_TEST_BROKER"], set_as_current=False)

    @contextlib.contextmanager
    def running(self, options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker; end it by SIGTERM."""
        words = f"-A tests.integrations.apps.celery_app worker -l error {options}".split()
        words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        process = subprocess.Popen([sys.executable, "-m", "celery", *words], cwd=ROOT, env=self._environment)
        try:
            yield process
        finally:
            terminate(process)

    def publish(self, request: Request, task: str = "work") -> None:
        """Publish a task for a user, or for nobody."""
        user = request.user
        known = user_context(user, group_id=f"account-{user}", plan=f"plan-{user}", user_email="x@example.com")
        with known if user else contextlib.nullcontext():
            self._app.send_task(task, (request.number,))

    def done(self, file: str = "done") -> Counter[int]:
        """Return the numbers of finished tasks, each as often as Celery ran it: at a worker's end sometimes twice."""
        path = self._folder / file
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


@pytest.fixture
def worker(redis_url: str, inspector: Inspector, tmp_path: Path) -> Iterator[Worker]:
    """The application's worker, with the library's events for the inspector."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    own = {"CELERY_TEST_BROKER": redis_url, "CELERY_TEST_FOLDER": str(tmp_path), "PYTHONPATH": path}
    instrument_celery(properties=["plan"])
    worker = Worker(tmp_path, {**kept, **own, "THRIVESTACK_ENDPOINT": inspector.endpoint})
    yield worker
    worker.close()
    uninstrument_celery()


def mistakes(worker: Worker, requests: list[Request], items: list[dict[str, Any]]) -> list[str]:
    """Return the differences between the events of finished tasks and the tasks."""
    worked, finished = worker.done("worked"), worker.done()
    with_number: Callable[[str], list[dict[str, Any]]] = lambda name: [  # noqa: E731
        item
        for item in items
        if name in (item["event_name"], item["properties"].get("feature_name")) and "number" in item["properties"]
    ]
    found = problems(requests, with_number("work"), worked) + problems(requests, with_number("finished"), finished)
    users = Counter(item["user_id"] for item in items if item["properties"].get("feature_name") == "finish")
    if users != Counter(request.user for request in requests for _ in range(finished[request.number]) if request.user):
        found.append(f"features by configuration: {users}")
    if len({item["context"]["event_id"] for item in items}) != len(items):
        found.append("an event twice")
    return found


@pytest.mark.parametrize("pool", POOLS)
def test_no_event_has_another_user(worker: Worker, inspector: Inspector, pool: str) -> None:
    """120 tasks of 50 users and of nobody, with retries and nested tasks: each event has its user, none is lost."""
    requests = requests_of_users(120)
    with worker.running(POOLS[pool]), ThreadPoolExecutor(4) as publishers:
        list(publishers.map(worker.publish, requests))
        wait_until(lambda: sum(worker.done().values()) == len(requests), "all tasks done", 60)
    assert mistakes(worker, requests, inspector.items()) == []


@pytest.mark.parametrize("options", ["-P prefork -c 2", "-P threads -c 8"])
def test_sigterm_under_load_loses_nothing(worker: Worker, inspector: Inspector, options: str) -> None:
    """A worker ends under load, and the next worker goes on. Each finished task has its events."""
    published: list[Request] = []
    stopped = threading.Event()

    def publish() -> None:
        for request in endless_requests():
            while not stopped.wait(0.005) and len(published) > len(worker.done()) + 50:
                pass
            if stopped.is_set():
                break
            worker.publish(request)
            published.append(request)

    load = threading.Thread(target=publish)
    load.start()
    try:
        with worker.running(options):
            wait_until(lambda: len(worker.done()) > 100, "100 tasks done", 60)
    finally:
        stopped.set()
        load.join(30)
    with worker.running(options):
        wait_until(lambda: len(worker.done()) == len(published), "all tasks done", 60)
    assert mistakes(worker, published, inspector.items()) == []


def test_a_killed_child_loses_nothing_with_an_outbox(worker: Worker, inspector: Inspector, tmp_path: Path) -> None:
    """Tasks of killed children run again for their users (`acks_late`); each run that ended has its event."""
    worker._environment |= {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_DURABILITY": "event"}
    requests = [Request(number, f"user-{number}") for number in range(15)]

    def arrived() -> dict[str, dict[str, Any]]:  # a child killed while the server answers: its successor sends again
        return {item["context"]["event_id"]: item for item in inspector.items()}

    with worker.running("-P prefork -c 2"):
        for request in requests:
            worker.publish(request, "late")
        wait_until(lambda: len(worker.done()) == len(requests), "all tasks done", 60)
        wait_until(lambda: len(arrived()) >= sum(worker.done().values()), "all events", 60)
    assert len(list(tmp_path.glob("killed-*"))) == 3
    events = Counter((item["properties"]["number"], item["user_id"]) for item in arrived().values())
    assert events == Counter({(number, f"user-{number}"): count for number, count in worker.done().items()})


def test_the_example(redis_url: str, inspector: Inspector) -> None:
    """The commands of the example's README: two features of the user for whom the task was published."""
    environment = {**os.environ, "CELERY_BROKER_URL": redis_url, "THRIVESTACK_ENDPOINT": inspector.endpoint}
    folder = ROOT / "examples" / "celery_app"
    command = f"-m celery --workdir {folder} -A app worker --concurrency 2 -l error".split()
    with subprocess.Popen([sys.executable, *command], env=environment) as process:
        try:
            publish = [sys.executable, str(folder / "app.py"), "ann", "acme", "1"]
            subprocess.run(publish, env=environment, check=True, timeout=60)
            wait_until(lambda: len(inspector.items()) == 2, "two events", 60)
        finally:
            process.terminate()
    found = {
        (item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in inspector.items()
    }
    assert found == {("report_export", "ann", "acme"), ("report_notification", "ann", "acme")}
