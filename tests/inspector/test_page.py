"""The inspector's page in a real browser: arrival, history, filters, problems, and the first view."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import wait_until
from tests.inspector.browser import browser
from tests.inspector.page import ZONE, Observed, RunningInspector, contrasts, rows, used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Dialog, Page

__all__ = ["browser"]
pytestmark = pytest.mark.slow

SCREENSHOT = Path(path).resolve() if (path := os.environ.get("SCREENSHOT")) else None
"""File that the test of the screenshot writes; absolute, as each test has a working directory of its own."""

MANY = 50_000
"""Events of the test of size."""
LIVE = 10_000
"""Events of them that arrive while the page is open."""
PATIENCE = 20_000
"""Milliseconds that a busy machine may take for a step."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInspector]:
    """One inspector for the module."""
    started = RunningInspector(tmp_path_factory.mktemp("inspector") / "events.db")
    yield started
    started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of a reader in New York."""
    made = browser.new_context(timezone_id=ZONE, locale="en-US", viewport={"width": 1280, "height": 800})
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


@pytest.fixture
def page(running: RunningInspector, context: BrowserContext) -> Iterator[Page]:
    """The page of an empty inspector. No test may violate the policy, or make the page ask another host."""
    running.clear()
    opened = context.new_page()
    observed = Observed(opened)
    opened.goto(running.url)
    opened.locator("#connection[data-state=live]").wait_for()
    yield opened
    assert observed.faults() == []
    assert observed.elsewhere(running.url) == []


def test_the_empty_page_names_the_way_to_the_first_event(running: RunningInspector, page: Page) -> None:
    """The variables have the right port; the command for a test event works as copied, and the stream appears."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    exports, command = page.locator("#empty pre").all_inner_texts()
    assert f"export THRIVESTACK_ENDPOINT={running.url}/api" in exports
    page.locator("#empty button").nth(1).click()
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert page.locator("#events").is_hidden()
    if shutil.which("curl"):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - the page's
        assert '"success":true' in done.stdout
    else:
        running.send(used("analytics_dashboard", "user_123", "account_456"))
    page.locator("#rows tr").wait_for()
    assert page.locator("#empty").is_hidden()
    assert rows(page)[0][2:5] == ["analytics_dashboard", "user_123", "account_456"]
    assert page.locator("#rows .status").inner_text().startswith("Accepted")


def test_events_appear_without_a_reload(running: RunningInspector, page: Page) -> None:
    """An event is in the table within a second of its request; the test prints each delay."""
    page.evaluate("""() => {
      window.seen = {};
      const note = (row) => window.seen[row.querySelector("button").textContent] = Date.now();
      new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(note)))
        .observe(document.getElementById("rows"), { childList: true });
    }""")
    sent = {}
    for number in range(10):
        feature = f"feature_{number}"
        sent[feature] = time.time()
        running.send(used(feature))
        page.locator(f"#rows tr:nth-child({number + 1})").wait_for()
    seen = page.evaluate("window.seen")
    delays = sorted(seen[feature] / 1000 - at for feature, at in sent.items())
    print("milliseconds from the request to the row:", [round(delay * 1000) for delay in delays])
    assert delays[-1] < 1
    assert [row[2] for row in rows(page)] == [f"feature_{number}" for number in range(9, -1, -1)]
    assert page.locator("#total").inner_text() == "10 items kept"


def test_the_page_catches_up_after_a_restart(context: BrowserContext, tmp_path: Path) -> None:
    """Over a restart, and the sleep of a window, nothing is missing or doubled; a new file is a new stream."""
    inspector = RunningInspector(tmp_path / "events.db")
    page = context.new_page()
    observed = Observed(page)
    try:
        inspector.send(used("before_1"), used("before_2"))
        page.goto(inspector.url)
        page.locator("#rows tr").nth(1).wait_for()
        inspector.stop()
        page.locator("#connection[data-state=lost]").wait_for()
        inspector.start()
        for number in range(3):
            inspector.send(used(f"after_{number}"))
        page.locator("#rows tr").nth(4).wait_for()
        assert [row[2] for row in rows(page)] == ["after_2", "after_1", "after_0", "before_2", "before_1"]
        page.locator("#connection[data-state=live]").wait_for()

        session = context.new_cdp_session(page)
        session.send("Page.setWebLifecycleState", {"state": "frozen"})
        inspector.stop()
        inspector.start()
        inspector.send(used("asleep"))
        session.send("Page.setWebLifecycleState", {"state": "active"})
        page.locator("#rows tr").nth(5).wait_for()
        assert [row[2] for row in rows(page)] == ["asleep", "after_2", "after_1", "after_0", "before_2", "before_1"]

        inspector.stop()
        inspector.database = str(tmp_path / "other.db")
        inspector.start()
        inspector.send(used("elsewhere"))
        page.get_by_role("button", name="elsewhere").wait_for()
        wait_until(lambda: [row[2] for row in rows(page)] == ["elsewhere"], "only the new file's event is shown")
        assert page.locator("#total").inner_text() == "1 item kept"
        assert observed.faults() == []
    finally:
        inspector.close()


def test_an_event_of_markup_stays_text(running: RunningInspector, page: Page) -> None:
    """An event whose every field is markup and script makes no element, no request and no violation."""
    dialogs: list[Dialog] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog)
        dialog.dismiss()

    page.on("dialog", dismiss)
    evil = "<img src=http://evil.invalid/x onerror=alert(1)><script>alert(2)</script>'\"`${7*7}</td></table>"
    item = used(evil, evil, evil, evil)
    item["properties"][evil] = {evil: [evil]}
    item["context"][evil] = evil
    running.send({**item, "event_name": evil}, {**item, evil: evil})
    running.send({**item, "user_id": ""}, status=400)
    page.locator("#rows tr").nth(2).wait_for()
    page.locator("#rows button").last.click()
    page.locator("#detail .json").nth(2).wait_for()
    page.locator("#detail pre").first.wait_for()
    for key in "2341":
        page.keyboard.press(key)
        page.locator(".view:visible").wait_for()
    page.locator("#events").wait_for()
    assert rows(page)[1][2] == evil
    assert page.locator("img, #rows script, #detail script, section script").count() == 0
    assert page.locator("script").count() == 1
    assert dialogs == []


def test_fifty_thousand_events(running: RunningInspector, page: Page) -> None:
    """The page shows its first rows at once, keeps its document small, and filters quickly among 50,000 events."""
    page.goto("about:blank")
    for start in range(0, MANY, 1000):
        if start == MANY - LIVE:
            page.goto(running.url)
        running.send(*(used(f"feature_{n % 50}", f"user_{n}", f"account_{n % 20}") for n in range(start, start + 1000)))
    page.locator("#total", has_text="50,000 items kept").wait_for()
    began = time.monotonic()
    page.reload()
    page.locator("#rows tr").first.wait_for()
    first = time.monotonic() - began
    began = time.monotonic()
    page.locator("[name=user]").fill("user_17")
    page.locator("#rows tr:first-child td.user", has_text="user_17999").wait_for()
    filtered = time.monotonic() - began
    page.locator("[name=user]").fill("")
    page.locator("#rows tr:first-child td.user", has_text="user_49999").wait_for()
    oldest = 50_000
    while oldest > 48_900:  # older pages follow as the reader scrolls
        page.locator("#scroll").evaluate("place => place.scrollTo(0, place.scrollHeight)")
        page.locator(f"#rows tr[data-id='{oldest - 1}']").wait_for()
        oldest = _oldest(page)
    size = page.evaluate("document.querySelectorAll('*').length")
    print(f"{MANY} events: first rows {first:.2f} s, filter {filtered:.2f} s, {size} elements after scrolling")
    assert first < 5
    assert filtered < 5
    assert page.locator("#rows tr").count() <= 600
    assert size < 12_000
    running.send(used("new"))
    page.get_by_role("button", name="1 new event").click()
    page.locator("#rows tr:first-child", has_text="new").wait_for()
    assert page.locator("#rows tr").count() <= 200


def _oldest(page: Page) -> int:
    return int(page.locator("#rows tr").last.get_attribute("data-id") or 0)


def test_problems_name_field_and_reason(running: RunningInspector, page: Page) -> None:
    """Refused items, duplicates and late timestamps are listed; faults are switched from the page."""
    running.send(used("first", event_id="id-1"))
    running.send(used("again", event_id="id-1"), {**used("late"), "timestamp": "2024-10-20T15:51:36.514000Z"})
    running.send({**used("broken"), "timestamp": "yesterday"}, status=400)
    badge = page.locator("#problem-count")
    badge.wait_for()
    assert badge.inner_text() == "3"
    page.keyboard.press("3")
    refused, doubled, late, faults = (page.locator("#view-problems .card").nth(number) for number in range(4))
    assert "timestamp" in refused.inner_text()
    assert "'yesterday' is not of the form" in refused.inner_text()
    assert "again" in doubled.inner_text()
    assert "late" in late.inner_text()
    faults.get_by_label("503", exact=False).first.check()
    wait_until(lambda: httpx.get(f"{running.url}/faults").json()["faults"], "the fault is in force")
    running.send(used("in_vain"), status=503)
    faults.get_by_label("503", exact=False).first.uncheck()
    wait_until(lambda: not httpx.get(f"{running.url}/faults").json()["faults"], "the fault has ended")
    refused.get_by_role("button").click()
    assert "Refused" in page.locator("#detail").inner_text()
    assert "'yesterday' is not of the form" in page.locator("#detail .reason").inner_text()
    page.locator("#detail .json").nth(2).wait_for()
    assert "400" in page.locator("#detail .terms").nth(1).inner_text()
    page.keyboard.press("Escape")
    doubled_row = page.locator("#rows tr", has_text="again")
    assert "duplicate" in doubled_row.inner_text()
    doubled_row.click()
    page.get_by_role("button", name="Show the first").click()
    page.locator("#detail h2", has_text="first").wait_for()
    doubled_row.click()
    page.get_by_role("button", name="Show all").click()
    wait_until(lambda: [row[2] for row in rows(page)] == ["late", "again"], "the stream shows one request")
    page.locator("#request-filter").click()
    page.locator("[name=kind]").select_option("refused")
    wait_until(lambda: len(rows(page)) == 1, "the stream shows the refused item only")


def test_filter_pause_and_the_table_of_accounts(running: RunningInspector, page: Page) -> None:
    """Filters narrow history and new events and survive a reload; pause holds the table; a cell shows its events."""
    running.send(
        used("search", "ann", "acme"), used("search", "bob", "globex"), used("export", "ann", "acme", rows=1234)
    )
    page.locator("#rows tr").nth(2).wait_for()
    page.locator("[name=account]").fill("ACM")
    wait_until(lambda: [row[2:4] for row in rows(page)] == [["export", "ann"], ["search", "ann"]], "account filters")
    running.send(used("search", "cid", "globex"), used("invite", "ann", "acme"))
    page.locator("#rows tr", has_text="invite").wait_for()
    assert [row[2] for row in rows(page)] == ["invite", "export", "search"]
    page.reload()
    page.locator("#rows tr").nth(2).wait_for()
    assert page.locator("[name=account]").input_value() == "ACM"
    page.get_by_role("button", name="Reset").click()
    page.locator("[name=text]").fill("1234")
    wait_until(lambda: [row[2] for row in rows(page)] == ["export"], "free text looks into the item")
    page.get_by_role("button", name="Reset").click()
    wait_until(lambda: len(rows(page)) == 5, "all events are back")

    page.keyboard.press("p")
    assert page.locator("#connection").inner_text() == "Paused"
    running.send(used("while_paused"))
    page.get_by_role("button", name="1 new event").wait_for()
    assert len(rows(page)) == 5
    page.keyboard.press("p")
    page.locator("#rows tr", has_text="while_paused").wait_for()

    page.keyboard.press("2")
    cell = page.locator(".matrix tbody tr", has_text="search").locator(".cell", has=page.get_by_text("2", exact=True))
    cell.wait_for()
    assert cell.locator("svg rect.some").count() >= 1
    cell.click()
    wait_until(lambda: [row[3] for row in rows(page)] == ["cid", "bob"], "the events of the cell are shown")
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Delete").click()
    page.locator("#empty h2").wait_for()
    assert httpx.get(f"{running.url}/events").json()["events"] == []
    running.send(used("after_clear"))
    page.locator("#rows tr", has_text="after_clear").wait_for()


def test_the_keyboard_is_enough(running: RunningInspector, page: Page) -> None:
    """Rows, the item, the filter, pause, views and help are reached by keys; the focus is seen and returns."""
    running.send(*(used(f"feature_{number}") for number in range(5)))
    page.locator("#rows tr").nth(4).wait_for()
    focused = "document.activeElement.textContent"
    page.keyboard.press("j")
    assert page.evaluate(focused) == "feature_4"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "feature_3"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert "feature_3" in page.locator("#detail pre").first.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    assert page.evaluate(focused) == "feature_3"
    page.keyboard.press("/")
    page.keyboard.type("feature_1pj?")
    assert page.locator("[name=text]").input_value() == "feature_1pj?"
    page.locator("#no-match").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#rows tr").nth(4).wait_for()
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    for key, view in (("2", "accounts"), ("3", "problems"), ("4", "processes"), ("1", "stream")):
        page.keyboard.press(key)
        page.locator(f"#view-{view}").wait_for()
    assert page.locator("[name=text]").input_value() == ""
    assert page.get_by_role("table").count() == 1
    assert page.get_by_role("row").count() == 6
    assert page.get_by_role("status").inner_text() == "Live"


def test_times_colours_and_narrow_windows(running: RunningInspector, page: Page) -> None:
    """Times are in the reader's zone with UTC beside; both colour schemes have contrast; no window scrolls sideways."""
    running.send(used("a_feature_with_a_long_name_" * 6, "user_" + "x" * 200, "account_" + "y" * 200, event_id="id"))
    running.send(used("short", account=None), used("twice", event_id="id"))
    running.send({**used("broken"), "timestamp": ""}, status=400)
    page.locator("#rows tr").nth(3).wait_for()
    assert page.locator("#zone").get_attribute("title") == ZONE
    local, utc = (int(text[:2]) for text in rows(page)[0][:2])
    assert (utc - local) % 24 in (4, 5)
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for key in "1234":
            page.keyboard.press(key)
            page.locator(".view:visible").wait_for()
            if key == "1":
                page.locator("#rows button").first.click()
            weak = {text: contrast for text, contrast in contrasts(page) if contrast < 4.5}
            assert weak == {}, (scheme, key)
            page.keyboard.press("Escape")
    assert len(grounds) == 2
    for width in (320, 700, 1000):
        page.set_viewport_size({"width": width, "height": 640})
        for key in "1234":
            page.keyboard.press(key)
            page.locator(".view:visible").wait_for()
            if key == "1":
                page.locator("#rows button").first.click()
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.keyboard.press("Escape")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, key)
        assert re.match(r"\d\d:\d\d:\d\d", page.locator("#rows time").first.inner_text())


PROGRAM = """
import sys
from ts_autotrack import track_feature, user_context

@track_feature("report_export")
def export_report(): ...

def view(): export_report()

for _ in range(3): view()
print("called", flush=True)
sys.stdin.readline()
with user_context("ann", group_id="acme"): view()
sys.stdin.readline()
"""


def test_an_application_without_a_user_is_explained(running: RunningInspector, page: Page, tmp_path: Path) -> None:
    """A process whose events lack a user is named on the empty page with its line, and its event turns the page."""
    program = tmp_path / "myapp.py"
    program.write_text(PROGRAM)
    variables = {"THRIVESTACK_ENDPOINT": f"{running.url}/api", "THRIVESTACK_API_KEY": "k", "TS_AUTOTRACK_IN_TESTS": "1"}
    with subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        try:
            silent = page.locator("#empty .silent li", has_text="myapp.py").first
            silent.wait_for()
            page.locator("#empty .places", has_text=re.compile(r"line \d+ report_export, 3 calls")).wait_for()
            assert f"pid {process.pid}" in silent.inner_text()
            process.stdin.write("go on\n")
            process.stdin.flush()
            page.locator("#rows tr", has_text="ann").wait_for()
            page.keyboard.press("4")
            card = page.locator(".process", has_text=f"pid {process.pid}")
            card.locator(".figures div", has_text=re.compile("1\\s*delivered")).wait_for()
            assert "unattributed 3" in card.inner_text()
            card.get_by_text("Settings").click()
            assert running.url in card.locator("details[open]").inner_text()
        finally:
            process.stdin.close()


@pytest.mark.skipif(SCREENSHOT is None, reason="SCREENSHOT names no file")
def test_screenshot(running: RunningInspector, page: Page) -> None:
    """The picture in README is made from the page itself: `SCREENSHOT=examples/inspector.png pytest -k screenshot`."""
    usage: list[tuple[str, str, str, dict[str, Any]]] = [
        ("report_export", "maria", "acme", {"file_format": "pdf", "rows": 120}),
        ("analytics_dashboard", "jonas", "globex", {}),
        ("search", "maria", "acme", {"results": 14}),
        ("bulk_import", "chen", "initech", {"rows": 2400}),
        ("analytics_dashboard", "aisha", "umbrella", {}),
        ("api_key_created", "tom", "globex", {"interface": "api"}),
        ("report_shared", "maria", "acme", {"recipients": 3}),
        ("search", "lena", "umbrella", {"results": 0}),
        ("dashboard_created", "jonas", "globex", {"widgets": 6}),
        ("invite_sent", "chen", "initech", {"role": "admin"}),
        ("analytics_dashboard", "maria", "acme", {}),
        ("alert_configured", "tom", "globex", {"channel": "email"}),
        ("report_export", "lena", "umbrella", {"file_format": "xlsx", "rows": 88}),
        ("search", "jonas", "globex", {"results": 5}),
    ]
    for number, (feature, user, account, properties) in enumerate(usage):
        item = used(feature, user, account, f"0191-{number:04x}", **properties)
        item["context"]["source"] = "product"
        if number == 8:
            running.send({**item, "timestamp": "26.11.2026 14:03"}, status=400)
        running.send(item)
        page.locator(f"#rows tr:nth-child({number + 1})").wait_for()
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": 1200, "height": 700})
    page.locator("#rows button", has_text="report_export").first.click()
    page.locator("#detail .json").nth(2).wait_for()
    page.locator("#problem-count").wait_for()
    picture = page.screenshot(path=SCREENSHOT)
    assert len(picture) < 150_000
