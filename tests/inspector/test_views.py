"""What the inspector tells of received events: entries, requests, figures, problems, and the latest event."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import DEADLINE
from tests.inspector.conftest import GROUP, KEY, TRACK, get, post
from ts_autotrack.inspector._stream import MOST_READERS

if TYPE_CHECKING:
    from tests.conftest import Inspector


def feature(name: str, user: str = "u", account: str = "a", **context: Any) -> dict[str, Any]:
    """Return an event of a feature without remarks of the contract."""
    context = {"group_id": account, "event_id": f"{name}{user}{account}", "source": "product", **context}
    return {**TRACK, "event_name": "feature_used", "user_id": user, "properties": {"feature_name": name}} | {
        "context": context
    }


def test_entries_are_filtered_and_paged(cleared: Inspector) -> None:
    """GET /entries returns accepted and refused entries, newest first; filters find parts of texts in any case."""
    post(cleared, "/track", [feature("report_export", "Ann", "acme"), feature("search", "Bob", "Zeta")])
    post(cleared, "/group", [GROUP])
    post(cleared, "/track", [{"event_name": "broken"}])
    answer = get(cleared, "/entries")
    assert [entry["feature"] for entry in answer["entries"]] == ["broken", "group", "search", "report_export"]
    assert (answer["total"], answer["last_id"]) == (4, answer["entries"][0]["id"])
    for query, expected in (
        ({"kind": "refused"}, ["broken"]),
        ({"feature": "EXPORT"}, ["report_export"]),
        ({"feature": "feature_us"}, ["search", "report_export"]),
        ({"user": "bO"}, ["search"]),
        ({"account": "zet"}, ["search"]),
        ({"text": '"Group_Type"'}, ["group"]),
        ({"text": "is required"}, ["broken"]),
        ({"request": answer["entries"][3]["request"]}, ["search", "report_export"]),
        ({"limit": 1}, ["broken"]),
        ({"before": answer["entries"][2]["id"], "limit": 5}, ["report_export"]),
        ({"user": "100%_"}, []),
    ):
        found = get(cleared, "/entries", **query)["entries"]
        assert [entry["feature"] for entry in found] == expected, query


def test_filters_know_the_letters_of_all_languages(cleared: Inspector) -> None:
    """Filters ignore the case of letters beyond ASCII, too."""
    post(cleared, "/track", [feature("Ölwechsel", "MÜLLER", "Łódź")])
    for query in ({"user": "müller"}, {"account": "łÓDŹ"}, {"feature": "öl"}, {"text": "müLL"}):
        assert len(get(cleared, "/entries", **query)["entries"]) == 1, query


@pytest.mark.parametrize("query", ["limit=x", "nonsense=1", "before=-1", "request=a", "user=a&user=b"])
def test_bad_queries_are_refused(inspector: Inspector, query: str) -> None:
    """A query value without a meaning is refused with the reason."""
    answer = httpx.get(f"{inspector.url}/entries?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_remarks_on_accepted_items(cleared: Inspector) -> None:
    """An accepted item has notes: missing recommended fields, wrong types, and names unknown to ThriveStack."""
    item = feature("Report export")
    item["properties"] |= {"revenue": "3", "groupId": 1, "interface": "web", "user_role": 7, "own_key": True}
    item["context"] = {"event_id": "1", "user_email": "a@b.example", "region": "eu"}
    post(cleared, "/track", [{**item, "extra": 1, "properties.": 2}, feature("search")])
    clean, entry = get(cleared, "/entries")["entries"]
    assert clean["notes"] == []
    assert {note["field"]: note["text"] for note in entry["notes"]} == {
        "extra": "is unknown and is ignored",
        "properties.": "is unknown and is ignored",
        "context.group_id": "is missing; account-level reports need it",
        "context.source": 'is missing; "product" is recommended for events of a back end',
        "context.user_email": "is unknown here; ThriveStack knows properties.user_email",
        "properties.feature_name": "should be a noun, or noun_verb, in snake_case",
        "properties.groupId": "is unknown here; ThriveStack knows context.group_id",
        "properties.interface": "should be one of api, cli, agent",
        "properties.revenue": "should be a number",
        "properties.user_role": "should be a text",
    }


def test_requests_are_shown_without_credentials(cleared: Inspector) -> None:
    """GET /requests/NUMBER shows headers, answer and entries; credentials are masked."""
    secrets = {"x-api-key": "key-5ecret", "authorization": "Bearer t0ken", "cookie": "sid=c00kie", "x-trace": "seen"}
    post(cleared, "/track", [feature("a"), feature("b")], secrets)
    entry = get(cleared, "/entries")["entries"][0]
    assert (entry["position"], entry["batch_size"]) == (1, 2)
    answer = httpx.get(f"{cleared.url}/requests/{entry['request']}")
    found = answer.json()
    assert (found["status"], found["path"], found["answer"]["success"]) == (200, "/track", True)
    assert found["entries"] == [entry["id"] - 1, entry["id"]]
    assert found["headers"]["x-trace"] == "seen"
    assert found["headers"]["x-api-key"] == "*** (10 characters)"
    assert not any(secret in answer.text for secret in ("5ecret", "t0ken", "c00kie"))
    for number in (entry["request"] + 1, 10**30):
        assert httpx.get(f"{cleared.url}/requests/{number}").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "item"),
    [
        ("/track", b"{\xff<b>", "{\ufffd<b>"),
        ("/track", b"[" * 100_000, "[" * 20_000),
        ("/track", b'{"a": 1}', '{"a": 1}'),
        ("/track", [TRACK, {**TRACK, "user_id": "\ud800"}], {**TRACK, "user_id": "\ud800"}),
        ("/track", [{**TRACK, "user_id": 7, "context": "x"}], {**TRACK, "user_id": 7, "context": "x"}),
    ],
)
def test_refused_bodies_are_kept(cleared: Inspector, path: str, body: Any, item: Any) -> None:
    """A refused request is an entry: the faulty item, or the text of a body without items, cut to 20,000 characters."""
    assert post(cleared, path, body).status_code == 400
    (entry,) = get(cleared, "/entries")["entries"]
    assert (entry["kind"], entry["item"]) == ("refused", item)
    assert entry["reason"]


def test_problems(cleared: Inspector) -> None:
    """GET /problems lists refused requests, duplicates by event_id, and timestamps out of order."""
    late = {**feature("a"), "timestamp": "2023-10-20T15:51:36.514000Z", "context": {"event_id": "other"}}
    post(cleared, "/track", [feature("a"), feature("b")])
    post(cleared, "/track", [feature("a"), late, feature("c"), feature("c")])
    post(cleared, "/track", [{}])
    found = get(cleared, "/problems")
    first = get(cleared, "/entries")["entries"][-1]["id"]
    duplicates = [(entry["id"], entry["duplicate_of"]) for entry in found["duplicates"]["entries"]]
    assert duplicates == [(first + 5, first + 4), (first + 2, first)]
    assert [entry["id"] for entry in found["out_of_order"]["entries"]] == [first + 3]
    assert [entry["id"] for entry in found["refused"]["entries"]] == [first + 6]
    assert [found[name]["count"] for name in ("refused", "duplicates", "out_of_order")] == [1, 2, 1]
    assert found["faults"] == []


def test_matrix_and_counts(cleared: Inspector) -> None:
    """GET /matrix counts features by accounts, busiest first; GET /counts sums them up; filters narrow the matrix."""
    items = [feature("a", "u1", "x"), feature("a", "u2", "x"), feature("b", "u1", "y"), {**TRACK, "event_name": "c"}]
    post(cleared, "/track", items)
    post(cleared, "/group", [GROUP])
    post(cleared, "/track", [{}])
    assert get(cleared, "/counts") == {"accepted": 5, "refused": 1, "by_feature": {"a": 2, "b": 1, "c": 1}}
    matrix = get(cleared, "/matrix")
    assert (matrix["features"], matrix["accounts"]) == (["a", "b", "c"], ["x", "y", None])
    cells = [(cell["feature"], cell["account"], cell["count"]) for cell in matrix["cells"]]
    assert cells == [("a", "x", 2), ("b", "y", 1), ("c", None, 1)]
    assert all(len(cell["per_minute"]) == 30 and sum(cell["per_minute"]) == cell["count"] for cell in matrix["cells"])
    narrowed = get(cleared, "/matrix", user="U1")["cells"]
    assert [(cell["feature"], cell["count"], sum(cell["per_minute"])) for cell in narrowed] == [
        ("a", 1, 1),
        ("b", 1, 1),
    ]


def test_latest_event_is_awaited(cleared: Inspector) -> None:
    """GET /events/latest answers as soon as a matching event arrives, or 404 after the timeout, with a message."""
    post(cleared, "/track", [feature("a", "u1"), feature("a", "u2"), feature("b", "u1")])
    assert get(cleared, "/events/latest", feature="a")["user_id"] == "u2"
    assert get(cleared, "/events/latest", event_name="feature_used", user_id="u1", group_id="a")["feature"] == "b"
    url = f"{cleared.url}/events/latest"
    missing = httpx.get(url, params={"user_id": "u3", "timeout": 0.05})
    assert missing.status_code == 404
    assert missing.json()["message"] == "no event with user_id=u3 has arrived; waited 0.05 s"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(httpx.get, url, params={"user_id": "u3", "timeout": 60}, timeout=60)
        began = time.monotonic()
        while not waiting.done():
            post(cleared, "/track", [feature("a", "u4"), feature("a", "u3")])
            threading.Event().wait(0.02)
            assert time.monotonic() - began < 30
    assert waiting.result().json()["user_id"] == "u3"
    for query in ("timeout=x", "timeout=-1", "timeout=1e3", "nonsense=1"):
        assert httpx.get(f"{url}?{query}").status_code == 400


def test_faults_leave_the_page_alone(cleared: Inspector) -> None:
    """A fault hits requests with events; figures, reports and the end of the fault work all the same."""
    httpx.put(f"{cleared.url}/faults?fault=503")
    try:
        assert post(cleared, "/track", [TRACK]).status_code == 503
        report = httpx.post(f"{cleared.endpoint}/reports", json={"pid": 1, "program": "p"})
        assert report.status_code == 200
        assert get(cleared, "/problems")["faults"][0]["kind"] == "503"
    finally:
        httpx.put(f"{cleared.url}/faults")
    assert post(cleared, "/track", [TRACK]).status_code == 200


def test_every_answer_names_the_inspector(cleared: Inspector) -> None:
    """Each answer has the header by which applications know an inspector: refusals, faults and foreign hosts, too."""
    answers = [
        post(cleared, "/track", [TRACK]),
        post(cleared, "/track", [{}]),
        httpx.get(f"{cleared.url}/nowhere"),
        httpx.get(f"{cleared.url}/events", headers={"host": "evil.example"}),
        httpx.put(f"{cleared.url}/faults?fault=429"),
        post(cleared, "/track", [TRACK]),
        httpx.put(f"{cleared.url}/faults"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 404, 421, 200, 429, 200]
    assert {answer.headers["x-ts-autotrack-inspector"] for answer in answers} == {"1"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/stream"),
        ("GET", "/entries"),
        ("DELETE", "/events"),
        ("POST", "/reports"),
        ("GET", "/"),
        ("GET", "/counts"),
    ],
)
def test_foreign_pages_are_refused_everywhere(inspector: Inspector, method: str, path: str) -> None:
    """Pages of other sites, and foreign names of this machine, get nothing."""
    for headers, status in (({"origin": "https://evil.example"}, 403), ({"host": "evil.example"}, 421)):
        answer = httpx.request(method, inspector.url + path, headers={**KEY, **headers})
        assert answer.status_code == status


def test_page_is_served_to_browsers(inspector: Inspector) -> None:
    """A browser gets the page, which loads nothing from elsewhere; other programs get a text."""
    page = httpx.get(f"{inspector.url}/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["x-content-type-options"], page.headers["cache-control"]) == ("nosniff", "no-store")
    script = httpx.get(f"{inspector.url}/page.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["content-security-policy"] == policy
    for path in ("/_app.py", "/..%2f_app.py", "/page/index.html"):
        assert httpx.get(inspector.url + path).status_code == 404
    assert httpx.get(f"{inspector.url}/").text.startswith("ts-autotrack inspector")


@pytest.mark.parametrize("depth", range(955, 975))
def test_any_accepted_event_is_shown(cleared: Inspector, depth: int) -> None:
    """GET /events returns each accepted item, however deeply nested."""
    body = b'[{"event_name": "e", "user_id": "u", "timestamp": "%s", "deep": %s%s}]'
    post(cleared, "/track", body % (TRACK["timestamp"].encode(), b"[" * depth, b"]" * depth))
    assert httpx.get(f"{cleared.url}/events").status_code == 200
    httpx.delete(f"{cleared.url}/events")  # Python's own json does not read it


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 19, "-1", "x"])
def test_unknown_request_is_not_found(inspector: Inspector, number: str) -> None:
    """A number that no request has is answered with 404."""
    assert httpx.get(f"{inspector.url}/requests/{number}").status_code == 404


def test_clients_that_vanish_free_their_places(cleared: Inspector) -> None:
    """More clients than are served may go away while they wait for an event: others are served soon."""
    host, port = cleared.url.removeprefix("http://").split(":")
    for _ in range(MOST_READERS + 10):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /events/latest?timeout=60 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    end = time.monotonic() + DEADLINE
    while httpx.get(f"{cleared.url}/events/latest").status_code != 404:
        assert time.monotonic() < end
