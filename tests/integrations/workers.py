"""Real workers of task queues under load: restarted in the middle, with every event compared with the work done."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis

from tests.conftest import terminate, wait_until
from tests.integrations.apps.queue_work import DONE
from tests.integrations.load import ROOT, requests_of_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector, ScriptedServer


class Queue:
    """A task queue under test: its application, and the arguments of `python -m` that start its workers."""

    def __init__(self, server: Inspector | ScriptedServer, url: str, app: str, worker: str, **environment: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self._app = f"tests.integrations.apps.{app}"
        self._worker = worker.format(app=self._app, url=url).split()
        self._published = 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTO", "THRIVESTACK"))}
        path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
        added = {"REDIS_URL": url, "THRIVESTACK_ENDPOINT": server.endpoint, "THRIVESTACK_API_KEY": "test"}
        self._environment = {**kept, "PYTHONPATH": path, **added, **environment}

    def publish(self, count: int) -> None:
        """Publish messages of 50 users and of nobody, from another process."""
        publisher = [sys.executable, "-m", "tests.integrations.apps.queue_work", self._app]
        arguments = [*publisher, str(count), str(self._published)]
        subprocess.run(arguments, cwd=ROOT, env=self._environment, check=True, timeout=60)
        self._published += count

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Run workers; SIGTERM ends them."""
        with subprocess.Popen(
            [sys.executable, "-m", *self._worker],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
                assert process.poll() is None, f"the worker ended with {process.returncode}"
            finally:
                terminate(process)

    def wait_for(self, count: int) -> None:
        """Wait until so much work is done."""
        wait_until(lambda: self.redis.llen(DONE) >= count, f"{count} tasks are done", 60)

    def differences(self, inspector: Inspector) -> list[str]:
        """Compare the events that arrived with the work done; return the differences."""
        users = {request.number: request.user for request in requests_of_users(self._published)}
        done = Counter(int(number) for number in self._done())
        assert sorted(done) == sorted(users), "each message is worked on"
        items = inspector.items()
        seen: dict[int, list[tuple[Any, ...]]] = {}
        for item in items:
            properties = item["properties"]
            event = item["user_id"], item["context"].get("group_id"), properties.get("plan")
            seen.setdefault(int(properties["number"]), []).append(event)
        found = [
            f"task {number} of {user}: events of {events}"
            for number, user in users.items()
            if (events := seen.get(number, []))
            != ([] if user is None else [(user, f"account-{user}", f"plan-{user}")] * done[number])
        ]
        repeated = len(items) - len({item["context"]["event_id"] for item in items})
        return [*found, *([f"{repeated} ids came twice"] if repeated else [])]

    def _done(self) -> list[bytes]:
        numbers: Any = self.redis.lrange(DONE, 0, -1)
        return list(numbers)


def work_through_a_restart(queue: Queue, count: int = 300, arrived: Callable[[], bool] | None = None) -> None:
    """Publish twice; end the workers in the middle of the work, and start others for the rest.

    Args:
        queue: The task queue.
        count: Messages before the restart.
        arrived: Condition to wait for before the last workers end: for workers that deliver later than the work.
    """
    with queue.working():
        queue.publish(count)
        queue.wait_for(count // 4)
    with queue.working():
        queue.publish(count // 3)
        queue.wait_for(count + count // 3)
        if arrived is not None:
            wait_until(arrived, "all events have arrived", 60)
