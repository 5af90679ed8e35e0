"""Values of the process for all of its events: `interface`, `context` and `properties`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ts_autotrack
from tests.conftest import run_python
from ts_autotrack import group, identify, request_scope, track, track_feature, user_context
from ts_autotrack._core.config import load

if TYPE_CHECKING:
    from tests.conftest import Inspector


def tracked(inspector: Inspector) -> list[dict[str, Any]]:
    """Return all arrived items after a flush."""
    assert ts_autotrack.flush()
    return inspector.items()


def test_all_events_carry_the_values(inspector: Inspector) -> None:
    """Features, custom events and requests carry the process's context and properties."""
    ts_autotrack.configure(interface="cli", context={"environment": "staging"}, properties={"edition": "eu"})

    @track_feature("export")
    def export() -> None: ...

    with user_context("u", group_id="g"):
        export()
        track("clicked", {"color": "red"})
    with request_scope(lambda: ("v", "h")):
        export()
    items = tracked(inspector)
    assert [item["context"]["environment"] for item in items] == ["staging"] * 3
    assert [item["properties"]["edition"] for item in items] == ["eu"] * 3
    assert [item["properties"]["interface"] for item in items] == ["cli"] * 3
    assert items[1]["properties"]["color"] == "red"


def test_everything_else_wins(inspector: Inspector) -> None:
    """A block, a decorator and a call win over the process."""
    ts_autotrack.configure(interface="cli", context={"environment": "staging"}, properties={"a": 1, "b": 1, "c": 1})

    @track_feature("export", interface="agent", properties={"b": 2})
    def export() -> None: ...

    with user_context("u", context={"environment": "test"}, a=2):
        export()
        track("clicked", {"c": 2})
    first, second = tracked(inspector)
    assert first["context"]["environment"] == second["context"]["environment"] == "test"
    assert first["properties"] == {
        "a": 2,
        "b": 2,
        "c": 1,
        "interface": "agent",
        "feature_name": "export",
        "action": "export",
    }
    assert second["properties"] == {"a": 2, "b": 1, "c": 2, "interface": "cli"}


def test_traits_are_left_alone(inspector: Inspector) -> None:
    """`identify` and `group` carry the context, and no properties."""
    ts_autotrack.configure(interface="cli", context={"environment": "staging"}, properties={"edition": "eu"})
    with user_context("u"):
        identify({"plan": "pro"})
        group("g", {"seats": 5})
    first, second = sorted(tracked(inspector), key=lambda item: "group_id" in item)
    assert (first["traits"], second["traits"]) == ({"plan": "pro"}, {"seats": 5, "group_type": "Account"})
    assert first["context"]["environment"] == "staging"


def test_later_settings_count_from_then_on(inspector: Inspector) -> None:
    """`configure` replaces the values of the process, also for a scope that has sent events before."""
    with user_context("u"):
        for environment in ("one", "two", None):
            ts_autotrack.configure(context={"environment": environment} if environment else {})
            track("clicked")
            assert ts_autotrack.flush()
    found = [item["context"].get("environment") for item in inspector.items()]
    assert found == ["one", "two", None]


def test_values_are_copied(inspector: Inspector) -> None:
    """A later change of the given mapping changes no event."""
    given = {"environment": "staging"}
    ts_autotrack.configure(context=given)
    given["environment"] = "changed"
    track("clicked", user_id="u")
    assert tracked(inspector)[0]["context"]["environment"] == "staging"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("environment=staging,release=1.4.2", {"environment": "staging", "release": "1.4.2"}),
        (" environment = staging , ", {"environment": "staging"}),
        ("query=a=b", {"query": "a=b"}),
        ('{"release": "1,4", "canary": true}', {"release": "1,4", "canary": True}),
    ],
)
def test_forms_in_the_environment(text: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable has pairs, or a JSON object."""
    monkeypatch.setenv("TS_AUTOTRACK_CONTEXT", text)
    monkeypatch.setenv("TS_AUTOTRACK_PROPERTIES", text)
    config = load({})
    assert config.defaults.context == config.defaults.properties == expected


def test_pyproject_has_tables() -> None:
    """pyproject.toml has tables, and the interface."""
    Path("pyproject.toml").write_text(
        '[tool.ts_autotrack]\ninterface = "api"\ncontext = {environment = "staging"}\n', "utf-8"
    )
    config = load({}, str(Path.cwd()))
    assert config.defaults.context == {"environment": "staging"}
    assert config.defaults.properties == {"interface": "api"}


@pytest.mark.parametrize(
    "text", ["staging", "a=1,b", '{"a": ', '["a"]', "=1", "group_id=g", "note=" + "x" * 10_000, "[" * 100_000]
)
def test_bad_variable_warns(text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A variable of another form is ignored with a warning that names the variable."""
    monkeypatch.setenv("TS_AUTOTRACK_CONTEXT", text)
    assert load({}).defaults.context == {}
    assert "TS_AUTOTRACK_CONTEXT=" in caplog.text


@pytest.mark.parametrize("given", ["staging", 5, {1: 2}, {"group_id": "g"}, {"": 1}])
def test_bad_argument_raises(given: Any) -> None:
    """A bad argument is named in the error, and changes no setting."""
    with pytest.raises(ValueError, match=r"configure\(context="):
        ts_autotrack.configure(context=given)


def test_variables_of_a_process(inspector: Inspector) -> None:
    """Variables of the environment set the values for a program without any call of `configure`."""
    done = run_python(
        "from ts_autotrack import track; track('e', user_id='u', group_id='g')",
        THRIVESTACK_ENDPOINT=inspector.endpoint,
        TS_AUTOTRACK_INTERFACE="cli",
        TS_AUTOTRACK_CONTEXT="environment=staging",
        TS_AUTOTRACK_PROPERTIES=json.dumps({"edition": "eu"}),
    )
    assert done.stderr == ""
    (item,) = inspector.items()
    assert (item["context"]["environment"], item["properties"]) == ("staging", {"interface": "cli", "edition": "eu"})
