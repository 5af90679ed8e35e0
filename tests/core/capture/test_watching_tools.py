"""Watched functions beside other tools: profilers, tracers, coverage, other users of sys.monitoring."""

from __future__ import annotations

import cProfile
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.core.conftest import arrived
from ts_autotrack import track_feature
from ts_autotrack._core.capture import monitor as monitor_module

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = [
    pytest.mark.usefixtures("acting"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12"),
]

monitoring: Any = getattr(sys, "monitoring", None)


def features(inspector: Inspector) -> list[str]:
    """Return the features of the arrived events."""
    return [properties["feature_name"] for properties in arrived(inspector)]


def test_beside_profilers_tracers_and_debuggers(inspector: Inspector) -> None:
    """Events come under cProfile, sys.setprofile and sys.settrace, and the tools see the function's own lines."""

    @track_feature("f")
    def function() -> int:
        return 1

    profile = cProfile.Profile()
    profile.runcall(function)
    lines: list[int] = []

    def trace(frame: Any, event: str, _: object) -> Any:
        if frame.f_code is function.__code__ and event == "line":
            lines.append(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    assert lines == [function.__code__.co_firstlineno + 2]
    assert features(inspector) == ["f"] * 2


def test_beside_another_tool_that_disables_its_events(inspector: Inspector) -> None:
    """Another tool of sys.monitoring that returns DISABLE for the same event does not end the watching."""

    @track_feature("f")
    def function() -> None:
        """Do nothing."""

    tool, event = 5, monitoring.events.PY_RETURN
    monitoring.use_tool_id(tool, "other")
    try:
        monitoring.register_callback(tool, event, lambda *_: monitoring.DISABLE)
        monitoring.set_events(tool, event)
        for _ in range(3):
            function()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert features(inspector) == ["f"] * 3


def test_another_tool_frees_the_id(inspector: Inspector) -> None:
    """The library takes an id again, at the next decoration or delivery, and goes on with all watched functions."""

    @track_feature("f")
    def function() -> None:
        """Do nothing."""

    function()
    freed = monitor_module.monitor._tool
    monitoring.free_tool_id(freed)
    monitoring.use_tool_id(freed, "other")
    try:

        @track_feature("g")
        def later() -> None:
            """Do nothing."""

        function()
        later()
        assert features(inspector) == ["f", "f", "g"]
    finally:
        monitoring.free_tool_id(freed)


def test_events_that_another_tool_has_left_behind() -> None:
    """Python keeps the events of a freed id: calls of foreign code make no event, and cost no other event."""
    code = """
import sys
monitoring = sys.monitoring
def foreign(): pass
monitoring.use_tool_id(4, "other")
monitoring.set_local_events(4, foreign.__code__, monitoring.events.PY_RETURN)
monitoring.free_tool_id(4)
import ts_autotrack
@ts_autotrack.track_feature("f")
def function(): pass
with ts_autotrack.user_context("u", group_id="g"):
    function(); ts_autotrack.flush(5)
    for _ in range(5): function(); foreign()
    ts_autotrack.flush(5)
    foreign(); function(); ts_autotrack.flush(5)
print(monitoring.get_tool(4), ts_autotrack.stats().delivered, ts_autotrack.stats().dropped)
"""
    done = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_JSONL_PATH=os.devnull)
    left = {} if sys.version_info >= (3, 14) else {"invalid": 5}
    assert done.stdout == f"ts_autotrack 7 {left}\n", done.stderr
    assert ("left its events on foreign" in done.stderr) == bool(left)


def test_without_a_free_id_functions_are_wrapped() -> None:
    """If other tools hold the ids 3, 4 and 5, tracked functions are wrapped; the debug log says so."""
    code = """
import sys
for tool in (3, 4, 5): sys.monitoring.use_tool_id(tool, "other")
import ts_autotrack
@ts_autotrack.track_feature("f")
def function(): pass
print(hasattr(function, "__wrapped__"))
with ts_autotrack.user_context("u", group_id="g"): function()
ts_autotrack.flush(5)
"""
    done = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_DEBUG="1")
    assert done.stdout.splitlines()[0] == "True"
    assert json.loads(done.stdout.splitlines()[1])["item"]["properties"]["feature_name"] == "f"
    assert "functions are wrapped: other tools hold the ids (4, 3, 5)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("core", ["ctrace", "sysmon"])
def test_under_coverage(core: str, tmp_path: Any) -> None:
    """Coverage of a module is the same with tracked functions, and events come, with both cores of coverage."""
    body = "def f(x):\n    if x:\n        return 1\n    return 2\nf(1)\nf(0)\n"
    plain, tracked = tmp_path / "plain.py", tmp_path / "tracked.py"
    plain.write_text("import ts_autotrack\nts_autotrack.bind_user('u', group_id='g')\n#\n" + body)
    tracked.write_text(
        "import ts_autotrack\nts_autotrack.bind_user('u', group_id='g')\n@ts_autotrack.track_feature('f')\n" + body
    )
    environment = {**os.environ, "COVERAGE_CORE": core, "TS_AUTOTRACK_EXPORTER": "jsonl", "COVERAGE_PROCESS_START": ""}
    missing = {}
    for path in (plain, tracked):
        command = [sys.executable, "-m", "coverage", "run", f"--data-file={path}.data", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        report = [
            sys.executable,
            "-m",
            "coverage",
            "json",
            f"--data-file={path}.data",
            "-o",
            f"{path}.json",
            "--include",
            str(path),
        ]
        subprocess.run(report, env=environment, capture_output=True, check=True, cwd=tmp_path)
        (found,) = json.loads((tmp_path / f"{path.name}.json").read_text())["files"].values()
        missing[path.name] = found["missing_lines"], len(done.stdout.splitlines())
    assert missing == {"plain.py": ([], 0), "tracked.py": ([], 2)}
