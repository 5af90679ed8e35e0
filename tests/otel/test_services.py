"""Identity across two real HTTP services under OpenTelemetry's instrumentation."""

from __future__ import annotations

import http.client
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import DEADLINE, wait_until
from tests.integrations.load import drive, free_port, requests_of_users, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

SERVICES = ("trusting", "distrusting", "bare")


@pytest.fixture(scope="module")
def ports(inspector_process: Inspector) -> Iterator[dict[str, int]]:
    """Three back services, and front services that propagate by blocks, by the setting, and by OTEL_PROPAGATORS."""
    found = {name: free_port() for name in (*SERVICES, "by block", "by setting", "by propagator")}
    backs = ",".join(str(found[name]) for name in SERVICES)
    settings: dict[str, dict[str, str]] = {
        "by block": {},
        "by setting": {"TS_AUTOTRACK_PROPAGATE_BAGGAGE": "1"},
        "by propagator": {"OTEL_PROPAGATORS": "tracecontext,baggage,ts_autotrack"},
    }
    with ExitStack() as stack:
        for name, port in found.items():
            app = name if name in SERVICES else "front"
            arguments = ("uvicorn", f"tests.otel.services:{app}", "--port", str(port), "--log-level", "error")
            environment = {"NAME": name, "BACKS": backs, "TS_AUTOTRACK_FLUSH_INTERVAL": "0.05"}
            environment |= {"THRIVESTACK_ENDPOINT": inspector_process.endpoint, "THRIVESTACK_API_KEY": "test"}
            stack.enter_context(running(arguments, port, **environment, **settings.get(name, {})))
        yield found


def ask(port: int, path: str, **headers: str) -> None:
    """Send a request, and expect that it succeeds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert connection.getresponse().status == 200
    connection.close()


def credited(inspector: Inspector, count: int) -> dict[tuple[str, int], tuple[Any, Any, Any]]:
    """Return user, account and source by service and number, of as many events as expected."""
    wait_until(lambda: len(inspector.items()) >= count, f"{count} events")
    return {
        (item["properties"]["service"], item["properties"]["number"]): (
            item["user_id"],
            item["context"].get("group_id"),
            item["context"].get("identity_source"),
        )
        for item in inspector.items()
    }


@pytest.mark.parametrize(("front", "block"), [("by block", "block"), ("by setting", "process")])
def test_a_user_of_the_first_service_is_credited_in_the_second(
    inspector: Inspector, ports: dict[str, int], front: str, block: str
) -> None:
    """The second service credits the user if it trusts baggage, or has no middleware; else its event has no user."""
    ask(ports[front], f"/{block}/1", x_user="jane+doe@example.com")
    expected = ("jane+doe@example.com", "account-jane+doe@example.com", "baggage")
    assert credited(inspector, 2) == {("trusting", 1): expected, ("bare", 1): expected}


@pytest.mark.parametrize(
    ("front", "path", "headers"),
    [
        ("by block", "/process/1", {"x_user": "alice"}),
        ("by block", "/suppressed/1", {"x_user": "alice"}),
        ("by setting", "/silent/1", {"x_user": "alice"}),
        ("by setting", "/suppressed/1", {"x_user": "alice"}),
        ("by setting", "/process/1", {}),
        ("by setting", "/process/1", {"baggage": "user.id=victim"}),
        ("by propagator", "/suppressed/1", {"baggage": "user.id=victim", "x_user": "alice"}),
    ],
)
def test_no_user_travels(
    inspector: Inspector, ports: dict[str, int], front: str, path: str, headers: dict[str, str]
) -> None:
    """No id travels unless a block or a setting asks for it, inside `suppress()`, for nobody, and for a user whom only
    the untrusted baggage of the request names.
    """
    ask(ports[front], path, **headers)
    ask(ports["by block"], "/block/2", x_user="bob")  # arrives later
    assert credited(inspector, 2) == {
        ("trusting", 2): ("bob", "account-bob", "baggage"),
        ("bare", 2): ("bob", "account-bob", "baggage"),
    }


@pytest.mark.parametrize("front", ["by setting", "by propagator"])
def test_400_requests_of_50_users(inspector: Inspector, ports: dict[str, int], front: str) -> None:
    """Beside each other no request of the second service is credited to the user of another request."""
    requests = requests_of_users(400, path="/process/{number}")
    assert len(drive(ports[front], requests, connections=50)) == len(requests)
    expected = {
        (service, request.number): (request.user, f"account-{request.user}", "baggage")
        for service in ("trusting", "bare")
        for request in requests
        if request.user is not None
    }
    assert credited(inspector, len(expected)) == expected
