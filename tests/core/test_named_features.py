"""The setting `features`: its forms, and a message with a suggestion for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ts_autotrack import configure, settings
from ts_autotrack._core.config import read

FORMS = {
    "myapp.reports:export": {"feature": "report_export"},
    "myapp.reports:Report.save": {"feature": "report_save"},
    "GET /reports/{id}": {"feature": "report_view"},
    "* /search?q=x": {"feature": "search"},
    "myapp.tasks.sync": {"feature": "sync"},
    "report export": {"feature": "cli_export"},
    "/reports.Reports/Export": {"feature": "rpc_export"},
    "myapp.views:*": {"feature": "*"},
}


def test_forms_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text, a JSON object, a table in a file and an argument name the same features; spaces do not count."""
    names: dict[str, str] = {key: str(options["feature"]) for key, options in FORMS.items()}
    text = " ; ".join(f"{key} = {name}" for key, name in names.items()).replace("GET ", "get   ") + ";"
    for value in (text, json.dumps(names), json.dumps(FORMS)):
        monkeypatch.setenv("TS_AUTOTRACK_FEATURES", value)
        assert read({})["features"] == FORMS
    monkeypatch.delenv("TS_AUTOTRACK_FEATURES")
    table = "\n".join(f"{json.dumps(key)} = {json.dumps(name)}" for key, name in names.items())
    Path("ts_autotrack.toml").write_text(f"[features]\n{table}\n", "utf-8")
    assert read({}, str(Path.cwd()))["features"] == FORMS
    assert settings(features=names)["features"] == FORMS


def test_options_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table has the options of `track_feature`."""
    options: dict[str, Any] = {
        "feature": "report_export",
        "feature_type": "core",
        "action": "export",
        "capture": ["file_format"],
        "on": "always",
        "properties": {"source": "web"},
    }
    monkeypatch.setenv("TS_AUTOTRACK_FEATURES", json.dumps({"myapp.reports:export": options}))
    assert read({})["features"] == {"myapp.reports:export": options}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("myapp:", "a", 'expected "package.module:function", "package.module:Class.method" or "package.module:*"'),
        ("my-app:export", "a", 'expected "package.module:function"'),
        ("myapp:a=b,myapp:c", "d", 'entries have ";" between them'),
        ("GTE /reports", "a", "'GTE' is no HTTP method: did you mean 'GET'?"),
        ("/reports/{id}", "a", 'a route begins with its method: "GET /reports/{id}"'),
        (" ", "a", "expected a name that is not empty"),
        ("myapp:a", "", "expected the name of the feature, or a table"),
        ("myapp:a", 7, "expected the name of the feature, or a table"),
        ("myapp:a", {"feature_type": "core"}, "the feature needs a name"),
        ("GET /a", "*", 'the feature "*" names features after functions'),
        ("myapp:a", {"feature": "a", "featuretype": "core"}, "no option 'featuretype': did you mean 'feature_type'?"),
        ("myapp:a", {"feature": "a", "feature_type": "cor"}, "feature_type='cor': expected one of core, sticky"),
        ("myapp:a", {"feature": "a", "on": "errors"}, "expected one of success, error, always: did you mean 'error'?"),
        ("myapp:a", {"feature": "a", "capture": 7}, "capture=...: expected names of arguments"),
        ("myapp:a", {"feature": "a", "properties": "x"}, "properties=...: expected a dict"),
        ("myapp:a", {"feature": "a", "action": ""}, "action='': expected a text that is not empty"),
    ],
)
def test_a_bad_entry_is_left_out(
    key: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad entry is a warning with its source and key, the other entries count; as an argument it raises."""
    given = {key: value, "myapp:good": "good"}
    monkeypatch.setenv("TS_AUTOTRACK_FEATURES", json.dumps(given))
    assert read({})["features"] == {"myapp:good": {"feature": "good"}}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"ts_autotrack: TS_AUTOTRACK_FEATURES: {key!r}: ")
    assert message in record.getMessage()
    with pytest.raises(ValueError, match=r"configure\(features="):
        configure(features=given)  # type: ignore[arg-type]  # a mistake


def test_bad_texts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An entry without a name and a name given twice are warnings; a value that is no mapping is ignored as a whole."""
    monkeypatch.setenv("TS_AUTOTRACK_FEATURES", "myapp:a;myapp:b=b;myapp:b=c")
    assert read({})["features"] == {"myapp:b": {"feature": "b"}}
    assert "'myapp:a': expected \"name=feature\"" in caplog.text
    assert "'myapp:b' is named twice" in caplog.text
    caplog.clear()
    monkeypatch.setenv("TS_AUTOTRACK_FEATURES", '{"myapp:a"')
    assert read({})["features"] == {}
    assert "TS_AUTOTRACK_FEATURES='{\"myapp:a\"' is ignored: expected features by name" in caplog.text


def test_user_names_a_function(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The setting `user` has the form "package.module:function"; another form is a warning."""
    monkeypatch.setenv("TS_AUTOTRACK_USER", " myapp.auth:Users.current ")
    assert read({})["user"] == "myapp.auth:Users.current"
    for bad in ("myapp.auth.current", "myapp:", ":current", "my app:x"):
        monkeypatch.setenv("TS_AUTOTRACK_USER", bad)
        assert read({})["user"] is None
    (record,) = caplog.records
    assert 'is ignored: expected a text of the form "package.module:function"' in record.getMessage()
