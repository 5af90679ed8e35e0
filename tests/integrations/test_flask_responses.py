"""Responses of Flask's view functions: an error that is returned is a failure, as an error that is raised."""

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import flask
import pytest
from flask import Flask, Response
from flask.views import MethodView
from werkzeug.exceptions import NotFound, abort

import ts_autotrack
from tests.integrations.wsgi_events import events
from ts_autotrack import track_feature
from ts_autotrack.integrations.flask import Tracking

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector


class Reports(MethodView):
    """A class-based view."""

    init_every_request = False

    @track_feature("class_get")
    def get(self, status: int) -> tuple[str, int]:
        """Return the status asked for."""
        return "body", status


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorated function, as by `login_required`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


RESULTS: dict[str, tuple[Callable[[], Any], bool]] = {
    "text": (lambda: "x", True),
    "created": (lambda: ("x", 201), True),
    "not_found": (lambda: ("x", 404), False),
    "with_headers": (lambda: ("x", 404, {"X-A": "b"}), False),
    "headers_only": (lambda: ("x", {"X-A": "b"}), True),
    "pairs_only": (lambda: ("x", [("X-A", "b")]), True),
    "reason": (lambda: ("x", "404 NOT FOUND"), False),
    "bare_text": (lambda: ("x", "409"), False),
    "enum": (lambda: ("x", HTTPStatus.CONFLICT), False),
    "no_status": (lambda: ("x", None, {"X-A": "b"}), True),
    "response": (lambda: Response("x", 400), False),
    "response_and_headers": (lambda: (Response("x", 400), {"X-A": "b"}), False),
    "response_and_status": (lambda: (Response("x", 400), 200), True),
    "redirect": (lambda: flask.redirect("/"), True),
    "abort": (lambda: abort(404), False),
    "exception": (NotFound, False),
}


@pytest.mark.parametrize("name", RESULTS)
def test_view_that_returns_an_error_has_failed(inspector: Inspector, name: str) -> None:
    """A response of 400 or more, in each form that Flask takes, sends no event; others do."""
    result, succeeds = RESULTS[name]
    app = Flask(__name__)
    Tracking(app, lambda: "ann")

    @app.get("/")
    @quiet
    @track_feature("view")
    def view() -> Any:
        return result()

    status = app.test_client().get("/").status_code
    assert (status < 400) == succeeds
    assert events(inspector) == [("view", "ann")] * succeeds


def test_class_based_views_that_return_errors(inspector: Inspector) -> None:
    """Methods of a class-based view are view functions, also for HEAD, which Flask answers by `get`."""
    app = Flask(__name__)
    Tracking(app, lambda: "ann")
    app.add_url_rule("/<int:status>", view_func=quiet(Reports.as_view("reports")))
    client = app.test_client()
    for status in (200, 404):
        client.get(f"/{status}")
        client.head(f"/{status}")
    assert events(inspector) == [("class_get", "ann")] * 2


def test_tuples_of_other_functions_are_no_responses(inspector: Inspector) -> None:
    """A function that is not the request's view function may return any tuple, inside and outside of requests."""
    app = Flask(__name__)
    Tracking(app, lambda: "ann")

    @track_feature("helper")
    def helper() -> tuple[str, int]:
        return "rows", 500

    @app.get("/other")
    @track_feature("other_view")
    def other() -> tuple[str, int]:
        return "x", 404

    @app.get("/")
    @track_feature("view")
    def view() -> str:
        helper()
        other()
        return "done"

    app.test_client().get("/")
    with ts_autotrack.user_context("bob"):
        helper()
    assert events(inspector) == [("helper", "ann"), ("other_view", "ann"), ("view", "ann"), ("helper", "bob")]
