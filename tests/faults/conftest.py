"""Fixtures of the fault tests: storage of events, accounts of ending processes, and the ledger.

Every row of README's table of guarantees is an observation of these tests: see `python -m tests.faults`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.conftest import Inspector

LEDGER = "AUTOTRACK_FAULTS_LEDGER"
"""Environment variable with the path of the ledger; read once, since each test runs without the library's variables."""

_path = os.environ.get(LEDGER)


@pytest.fixture(params=["memory", "outbox"])
def kept(request: pytest.FixtureRequest) -> str:
    """Storage of waiting events; a test with this fixture runs with both."""
    return str(request.param)


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Path]:
    """A directory for the accounts written by ending processes; each account has to close."""
    directory = tmp_path / "accounts"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        account = json.loads(path.read_text())
        left = account["pending"] + account["rejected"] + account["handed_over"] + sum(account["dropped"].values())
        assert account["accepted"] == account["delivered"] + left, account


@pytest.fixture
def environment(request: pytest.FixtureRequest, accounts: Path, tmp_path: Path) -> dict[str, str]:
    """Variables of a process under test: the outbox, depending on `kept`, and the directory for its account."""
    variables = {"ACCOUNTS": str(accounts)}
    if "kept" in request.fixturenames and request.getfixturevalue("kept") == "outbox":
        variables["TS_AUTOTRACK_OUTBOX"] = str(tmp_path / "outbox")
    return variables


@pytest.fixture
def guarantee(accounts: Path) -> Callable[..., None]:
    """Check the arrival of all events of a fault, and append the observation to the ledger.

    At least `processes` tracking processes must have left an account; `accounts` checks the accounts. Without
    `counted`, the number of events varies between runs. With `twice`, events may arrive twice, with the same ids.
    """

    def check(
        fault: str,
        kept: str,
        expected: Iterable[Any],
        arrived: Iterable[Any],
        *,
        processes: int = 1,
        counted: bool = True,
        twice: bool = False,
    ) -> None:
        left = [json.loads(path.read_text())["accepted"] for path in accounts.iterdir()]
        assert len([accepted for accepted in left if accepted]) >= processes, f"{fault}: accounts are missing: {left}"
        wanted, seen = set(expected), Counter(arrived)
        duplicated = seen.total() - len(seen)
        lost = len(wanted - set(seen))
        row = {"fault": fault, "kept": kept, "events": len(wanted), "lost": lost, "duplicated": duplicated}
        if _path:
            with Path(_path).open("a") as ledger:  # a line for each observation: several processes may run the tests
                ledger.write(json.dumps({**row, "counted": counted, "twice": twice}) + "\n")
        assert set(seen) == wanted, f"{fault}: {lost} lost, {set(seen) - wanted} unknown"
        assert twice or not duplicated, f"{fault}: {duplicated} duplicated"

    return check


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Path of the outbox; the directory does not exist yet."""
    return tmp_path / "outbox"


@pytest.fixture
def dead(dead_endpoint: str, accounts: Path, outbox: Path) -> dict[str, str]:
    """Variables of an application with an outbox and a dead server."""
    return {"THRIVESTACK_ENDPOINT": dead_endpoint, "ACCOUNTS": str(accounts), "TS_AUTOTRACK_OUTBOX": str(outbox)}


@pytest.fixture
def alive(dead: dict[str, str], inspector: Inspector) -> dict[str, str]:
    """Variables of an application with an outbox and a live server."""
    return {**dead, "THRIVESTACK_ENDPOINT": inspector.endpoint}


@pytest.fixture
def cli(outbox: Path) -> Callable[..., str]:
    """Run `ts-autotrack outbox` and return its output."""

    def run(*words: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "ts_autotrack.cli", "outbox", *words, "--directory", str(outbox)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout or done.stderr

    return run


@pytest.fixture
def target(inspector: Inspector, environment: dict[str, str]) -> dict[str, str]:
    """Variables of an application with delivery to the inspector."""
    # Time enough for a slow machine: other tests check events not delivered in time.
    return {**environment, "THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "15"}
