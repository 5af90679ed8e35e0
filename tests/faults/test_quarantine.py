"""Refused items: their quarantine, its commands, and its own faults."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Answer, run_python
from tests.faults._outboxes import APP, events_files, numbers, succeed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Inspector, Request, ScriptedServer

pytestmark = pytest.mark.slow


def test_quarantine_and_its_commands(
    server: ScriptedServer,
    inspector: Inspector,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
    guarantee: Any,
) -> None:
    """Refused items are kept with the server's message; the commands list, export, resend and delete them beside a live
    process.
    """
    bad, accepted = {2, 5, 7}, []

    def strict(request: Request) -> Answer:
        numbers = [item["properties"]["n"] for item in request.items]
        if bad.intersection(numbers):
            return Answer(422, b"n is odd")
        accepted.extend(numbers)
        return Answer()

    server.always = strict
    code = f"{APP}ten(); print(ts_autotrack.flush(10), ts_autotrack.stats().rejected, flush=True); sys.stdin.read()"
    environment = {**os.environ, **alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "True 3\n"
        assert f"{outbox}: waiting 0, refused 3\n" in cli("status")
        assert "in use" in cli("status")
        lines = cli("list").splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2", "3"]
        assert all(line.endswith("feature_used  user=u  422: n is odd") for line in lines)
        exported = [json.loads(line) for line in cli("export").splitlines()]
        assert [line["item"]["properties"]["n"] for line in exported] == [2, 5, 7]
        assert {line["reason"] for line in exported} == {"422: n is odd"}
        assert cli("export", "3", "1").count("\n") == 2
        assert "there is no refused item 9" in cli("export", "9", status=1)
        assert "name the ids" in cli("purge", status=2)
        assert cli("purge", "2") == "1 item deleted\n"
        server.always = lambda _: Answer(503)  # otherwise the live process might send the items before the check
        assert cli("retry") == "2 items wait for a process that uses this outbox\n"
        assert "waiting 2, refused 0" in cli("status")
        bad.clear()  # the server accepts all items again
        server.always = strict
        process.stdin.close()
        process.wait(30)
    guarantee("items refused with 422, the rest", "outbox", {*range(-1, 10)} - {2, 5, 7}, {*accepted} - {2, 7})
    pending = [json.loads(line)["item"]["properties"]["n"] for line in cli("export", "--pending").splitlines()]
    if pending:  # otherwise the live process has adopted and delivered the items
        assert pending == [2, 7]
        succeed(alive, outbox)
    assert sorted(accepted + numbers(inspector)) == sorted({*range(-1, 10)} - {5})


def test_commands_without_an_outbox(cli: Callable[..., str]) -> None:
    """A missing directory is reported as an error."""
    assert "there is no directory" in cli("status", status=1)


def test_quarantine_that_cannot_be_written(server: ScriptedServer, alive: dict[str, str], outbox: Path) -> None:
    """A locked quarantine is waited for, with its own warning; the account still closes."""
    outbox.mkdir()
    server.always = lambda _: Answer(400, b"no")
    with contextlib.closing(sqlite3.connect(outbox / "rejected.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        done = run_python(
            APP + "print(ts_autotrack.stats().rejected, len(ts_autotrack.rejected()))",
            **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint},
        )
    assert done.stdout == "1 1\n"
    assert done.stderr.count("rejected.db cannot be written to (database is locked)") == 1


def test_corrupt_quarantine_is_set_aside(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """An unreadable quarantine is replaced by a new quarantine, which keeps the items; events are not affected."""
    outbox.mkdir()
    (outbox / "rejected.db").write_bytes(b"no database " * 1000)
    server.always = lambda _: Answer(422, b"no")
    done = run_python(f"{APP}ten()", **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint})
    assert done.stderr.count("it was set aside as") == 1
    assert "does not work" not in done.stderr
    assert (outbox / "rejected.db.1.corrupt").read_bytes() == b"no database " * 1000
    assert "waiting 0, refused 11" in cli("status")


def test_quarantine_that_is_locked_for_a_while(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """Items refused while the quarantine is locked wait in memory, and reach the quarantine in the end."""
    outbox.mkdir()
    server.always = lambda _: Answer(400, b"no")
    code = f"{APP}print('refused', flush=True); sys.stdin.readline(); time.sleep(1.1); ten()"
    environment = {**os.environ, **alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    with contextlib.closing(sqlite3.connect(outbox / "rejected.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "refused\n"
        database.execute("ROLLBACK")
    process.communicate("\n", timeout=30)
    assert "refused 11" in cli("status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_retry_as_root_leaves_the_items_to_the_application(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """Files written by `sudo ts-autotrack outbox retry` belong to the owner of the directory."""
    server.always = lambda _: Answer(400)
    run_python(f"{APP}ten()", **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint})
    os.chown(outbox, 65_534, 65_534)
    assert "11 items wait" in cli("retry")
    (path,) = events_files(outbox)
    assert (path.stat().st_uid, path.stat().st_gid) == (65_534, 65_534)
