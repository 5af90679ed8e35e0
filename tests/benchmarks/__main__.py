"""Measures the cost of tracking against floors of the same run and, on request, against other SDKs.

    python -m tests.benchmarks                  measure ts_autotrack and print a table; fail beyond the bounds
    python -m tests.benchmarks --short          the same with few rounds, as in CI
    python -m tests.benchmarks --peers          measure other SDKs, too, installed into a scratch environment
    python -m tests.benchmarks --peers --write  also write results.json, results.svg and the tables of the README here

Both floors run in the same processes as the contenders. Floor C: a no-op `wrapt.decorator`, a contextvar's get,
`time_ns` and a deque's append. Floor D: orjson on prebuilt dicts in lists of 500, posted by httpx. An event counts as
delivered when the sink has received the event.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks import _chart, _tasks, _web
from tests.benchmarks._contenders import NOTE, OURS, PEERS
from tests.benchmarks._figures import of_ours, spread
from tests.benchmarks._sink import arrived

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLES = HERE / "README.md"
BEGIN = "<!-- benchmark of {}: python -m tests.benchmarks --peers --write -->\n"
END = "<!-- end of benchmark -->\n"
LOADS = ("at_full_speed", "bursts", "pending", "million", "over_threads", "over_tasks", "sharing")
MODES = {"memory": "ts_autotrack", "outbox": "ts_autotrack, outbox", "event": "ts_autotrack, outbox, durability=event"}
RESIDENT = "int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')"
FOOTPRINT = {
    "ours": "import ts_autotrack as t; t.configure(endpoint={url!r}, api_key='k'); "
    "t.track('benchmark_feature', user_id='u', group_id='g'); t.flush(10)",
    "floor": "import httpx, orjson; httpx.Client(verify=False).post({url!r} + '/track', content=orjson.dumps([]))",
}


class PartRunner:
    """Runs each part of the benchmark in a process of its own, with one interpreter, against one sink."""

    def __init__(self, python: str, url: str) -> None:
        self._python = python
        self.url = url
        # Bytecode is cached as in an installed package.
        self._environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(self, *words: str) -> str:
        """Run Python with these arguments; return its standard output."""
        done = subprocess.run(
            [self._python, *words], cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def module(self, name: str, *words: str) -> Any:
        """Run a module of this package; return the figures printed as JSON."""
        return json.loads(self.run("-m", f"tests.benchmarks.{name}", *words), parse_float=rounded)

    def seconds(self, code: str) -> float:
        """Return the seconds of a whole process."""
        began = time.perf_counter()
        self.run("-c", code)
        return time.perf_counter() - began

    def exit(self, name: str) -> float:
        """Return the seconds from before the import of a contender to the end of the process, with ten events."""
        began = float(self.run("-m", "tests.benchmarks._script", name, self.url))
        return time.monotonic() - began


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """Start a server that accepts every request; yield its URL."""
    with subprocess.Popen([sys.executable, str(HERE / "_sink.py")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def measure_ours(runner: PartRunner, *, turns: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run all parts in turn, several times; return the figures by part."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(turns):
        parts = {"forms": runner.module("_forms", runner.url, str(2 * rounds))}
        parts |= {f"probe {mode}": probe(runner, name, rounds) for mode, name in MODES.items()}
        parts |= {load: runner.module("_load", load, runner.url) for load in LOADS}
        parts |= {"ends": ends(runner, rounds), "footprint": footprint(runner)}
        # Times without a floor: more rounds, since a shared machine is slow for a second or two now and then.
        parts |= {f"web {stack}": request(runner, stack, "ts_autotrack", 4 * rounds) for stack in _web.STACKS}
        parts |= {"tasks": runner.module("_tasks", "ts_autotrack", runner.url, str(4 * rounds))}
        parts |= {
            f"decorated {version}": PartRunner(python, "").module("_decorated", str(rounds))
            for version, python in interpreters().items()
        }
        for part, figures in parts.items():
            for figure, values in figures.items():
                if figure != "version":
                    found.setdefault(part, {}).setdefault(figure, []).extend(values)
    return found


def interpreters() -> dict[str, str]:
    """Return the interpreters of this machine by version: this one, and 3.11 to 3.14 on PATH or of pyenv."""
    found = {platform.python_version().rpartition(".")[0]: sys.executable}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        named = shutil.which(f"python{version}")
        installed = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
        for python in [*([named] if named else []), *map(str, installed)]:
            if version not in found and subprocess.run([python, "-c", ""], check=False).returncode == 0:
                found[version] = python
    return dict(sorted(found.items()))


def probe(runner: PartRunner, name: str, rounds: int) -> dict[str, Any]:
    """Return the cost of one contender."""
    found: dict[str, Any] = runner.module("_probe", name, runner.url, str(rounds))
    return found


def request(runner: PartRunner, stack: str, name: str, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of a request of a bare application, and the microseconds that a contender adds."""
    found: dict[str, list[float]] = runner.module("_web", stack, name, runner.url, str(rounds))
    return found


def ends(runner: PartRunner, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds added to a bare interpreter by the import, and by ten events with the exit."""
    found: dict[str, list[float]] = {"import": [], "bare": [], "exit": [], "exit floor": []}
    for number in range(2 * rounds + 1):
        bare, ours = runner.seconds("pass"), runner.seconds("import ts_autotrack")
        nothing = runner.exit("nothing")
        script, floor = runner.exit("ts_autotrack") - nothing, runner.exit("floor") - nothing
        if number:  # the first round compiles
            for figure, seconds in zip(found, (ours - bare, bare, script, floor), strict=True):
                found[figure].append(rounded(1e3 * seconds))
    return found


def footprint(runner: PartRunner) -> dict[str, list[float]]:
    """Return the MB of resident memory added to a bare interpreter by the import and the first delivery."""
    found = {}
    for name, code in FOOTPRINT.items():
        whole = f"import os; a = {RESIDENT}; {code.format(url=runner.url)}; print({RESIDENT} - a)"
        found[name] = [int(runner.run("-c", whole)) / 1e6]
    return found


def measure_peers(runner: PartRunner, *, turns: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Run all contenders in turn, several times; return the cost of each."""
    found: dict[str, dict[str, Any]] = {}
    contenders = {"ts_autotrack": OURS["ts_autotrack"], **PEERS}
    for turn in range(turns):
        for name, contender in contenders.items():
            print(f"  {turn + 1}/{turns} {name}", file=sys.stderr)
            row = found.setdefault(name, {})
            measured: dict[str, Any] = probe(runner, name, rounds)
            row["version"] = measured.pop("version")
            runner.seconds(contender.imports)  # the first run compiles
            measured["import"] = [
                rounded(1e3 * (runner.seconds(contender.imports) - runner.seconds("pass"))) for _ in range(3)
            ]
            before = arrived(runner.url)
            measured["exit"] = [rounded(1e3 * (runner.exit(name) - runner.exit("nothing")))]
            measured["arrived"] = [arrived(runner.url, before + 10) - before]
            for figure, values in measured.items():
                row.setdefault(figure, []).extend(values)
    return found


def measure_requests(runner: PartRunner, *, turns: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run all contenders with the web frameworks in turn; return the microseconds added to a request."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(turns):
        for name, stacks in _web.COMPARED.items():
            print(f"  {turn + 1}/{turns} requests: {name}", file=sys.stderr)
            for stack in stacks:
                added = request(runner, stack, name, rounds)["added"]
                found.setdefault(name, {}).setdefault(stack, []).extend(added)
    return found


def measure_tasks(runner: PartRunner, *, turns: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run all contenders with Celery in turn; return the microseconds added to publishing and to running a task."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(turns):
        for name in _tasks.CONTENDERS:
            print(f"  {turn + 1}/{turns} tasks: {name}", file=sys.stderr)
            figures = runner.module("_tasks", name, runner.url, str(rounds))
            for figure in ("publish", "run"):
                found.setdefault(name, {}).setdefault(figure, []).extend(figures[f"{figure} added"])
    return found


def install_peers(scratch: Path) -> str:
    """Install the peers and ts_autotrack into a scratch environment; return the path of its interpreter."""
    print("installing the peers ...", file=sys.stderr)
    venv.create(scratch, with_pip=True)
    python = str(scratch / "bin" / "python")
    packages = sorted(
        {package for peer in PEERS.values() for package in peer.packages} | _web.PACKAGES | _tasks.PACKAGES
    )
    subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT), *packages], check=True)
    return python


def table_of_ours(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of figures and bounds of ts_autotrack."""
    lines = ["| | median (quartiles) | beside | ratio | bound |", "|---|---|---|---|---|"]
    for figure in of_ours(found):
        low, high = figure.spread
        middle = f"{digits(figure.median)} {figure.unit}".strip()
        if high > low:
            middle += f" ({digits(low)}-{digits(high)})"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        bound = "" if figure.most is None else f"{figure.most:g}" + ("" if figure.holds else " **exceeded**")
        lines.append(f"| {figure.name} | {middle} | {figure.floor} | {ratio} | {bound} |")
    return "\n".join(lines) + "\n"


def table_of_peers(found: dict[str, dict[str, Any]]) -> str:
    """Return the table of all contenders: medians, and in brackets the ratio to the floor of the same run."""
    c, d = (median(value for row in found.values() for value in row[floor]) for floor in "CD")
    lines = [
        "| | a call, median | 99 % of calls under | CPU of a delivered event | import | script of ten events |",
        "|---|---|---|---|---|---|",
        f"| floor | {c:.2f} us | | {d:.1f} us | | |",
    ]
    for name, row in found.items():
        call, most, cpu = (median(row[figure]) for figure in ("p50", "p99", "cpu"))
        lost = f", {max(row['lost']):.2%} lost" if max(row["lost"]) > 0 else ""
        lost_at_exit = f", {10 - min(row['arrived'])} lost" if min(row["arrived"]) < 10 else ""
        lines.append(
            f"| {name} {row['version']} | {shown(call)} us (x {shown(call / c)}) | {shown(most)} us "
            f"| {shown(cpu)} us (x {shown(cpu / d)}){lost} | {median(row['import']):.0f} ms "
            f"| {median(row['exit']):.0f} ms{lost_at_exit} |"
        )
    return "\n".join(lines) + "\n\n" + NOTE


def table_of_requests(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of the time that each contender adds to a request."""
    lines = ["| added to a request | " + " | ".join(_web.STACKS) + " |", "|---" * (1 + len(_web.STACKS)) + "|"]
    for name, row in found.items():
        cells = [f"{shown(median(row[stack]))} us" if stack in row else "" for stack in _web.STACKS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table_of_tasks(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of the time that each contender adds to a task of Celery; nothing without measurements."""
    lines = ["| added to a task of Celery | publishing | running |", "|---|---|---|"] if found else []
    for name, row in found.items():
        lines.append(f"| {name} | {shown(median(row['publish']))} us | {shown(median(row['run']))} us |")
    return "".join(line + "\n" for line in lines)


def digits(value: float) -> str:
    """Return three digits of a figure."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def rounded(value: float | str) -> float:
    """Return a figure with four significant digits."""
    return float(f"{float(value):.4g}")


def shown(value: float) -> str:
    """Return a figure with at least two digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def results(
    ours: dict[str, Any], peers: dict[str, Any], requests: dict[str, Any], tasks: dict[str, Any]
) -> dict[str, Any]:
    """Return all measurements with medians and quartiles, ready for JSON."""

    def summed_up(figures: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {"median": median(values), "quartiles": spread(values), "rounds": values}
            if isinstance(values, list)
            else values
            for name, values in figures.items()
        }

    machine = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    return {
        "machine": machine,
        "ours": {part: summed_up(figures) for part, figures in ours.items()},
        "contenders": {name: summed_up(row) for name, row in peers.items()},
        "requests": {name: summed_up(row) for name, row in requests.items()},
        "tasks": {name: summed_up(row) for name, row in tasks.items()},
    }


def write_table(name: str, table: str) -> None:
    """Replace one table in the README."""
    before, begin, rest = TABLES.read_text().partition(BEGIN.format(name))
    TABLES.write_text(before + begin + table + END + rest.partition(END)[2])


def committed_table(name: str) -> str:
    """Return one table in the README."""
    return TABLES.read_text().partition(BEGIN.format(name))[2].partition(END)[0]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the tables; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="few rounds, as in CI")
    parser.add_argument("--peers", action="store_true", help="measure other SDKs, too, in a scratch environment")
    parser.add_argument(
        "--write", action="store_true", help="with --peers: write results.json, results.svg and the tables"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="file to write all measurements to")
    options = parser.parse_args(arguments)
    turns, rounds = (1, 3) if options.short else (3, 5)
    peers: dict[str, Any] = {}
    requests: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    with sink() as url, tempfile.TemporaryDirectory() as scratch:
        ours = measure_ours(PartRunner(sys.executable, url), turns=turns, rounds=rounds)
        print(table_of_ours(ours))
        if options.peers:
            runner = PartRunner(install_peers(Path(scratch)), url)
            peers = measure_peers(runner, turns=turns, rounds=rounds)
            requests = measure_requests(runner, turns=turns, rounds=rounds)
            tasks = measure_tasks(runner, turns=turns, rounds=rounds)
            print(table_of_peers(peers), table_of_requests(requests), table_of_tasks(tasks), sep="\n")
    text = json.dumps(results(ours, peers, requests, tasks), indent=1)
    text = re.sub(r"\[[^][{}]*]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"
    if options.json:
        options.json.write_text(text)
    if options.write and peers:
        (HERE / "results.json").write_text(text)
        (HERE / "results.svg").write_text(_chart.draw(peers))
        write_table("peers", table_of_peers(peers))
        write_table("requests", table_of_requests(requests))
        write_table("tasks", table_of_tasks(tasks))
        write_table("ours", table_of_ours(ours))
    failed = [figure for figure in of_ours(ours) if figure.fails]
    for figure in failed:
        print(f"{figure.name}: {figure.compared:.3g}; the bound is {figure.most:g}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
