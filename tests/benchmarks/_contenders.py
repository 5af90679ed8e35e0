"""The contenders: how to start each, track an event, and deliver all tracked events.

All contenders send the same event: the same name, user and account, four properties and three context values. Each
contender has its default settings, apart from the exceptions in `NOTE`. Functions import modules on first use, even
from the standard library: each contender runs in its own process, and the cost of an otherwise empty script is
measured, too.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any

FEATURE = "benchmark_feature"
USER, GROUP = "user_1", "account_1"
PROPERTIES: dict[str, Any] = {
    "feature_name": FEATURE,
    "feature_type": "core",
    "action": "call",
    "user_email": "jane@example.com",
}
CONTEXT: dict[str, Any] = {"source": "product", "device_type": "mobile", "group_id": GROUP}
NOTE = """\
All send an event with the same name, user, account, four properties and three of context, and are at their default
settings, but for two that would send on the caller's thread. mixpanel has its `BufferedConsumer`, which still does so,
but with 50 events at a time instead of each. snowplow has its `AsyncEmitter`, which has a thread of its own; its
structured event carries the name and two of the properties, and a context entity the other five. The vendor's helper is
what the vendor's guide shows: a blocking request for each event; its rounds have 100 events, those of the others 2,000.
"""
"""Text below the table of contenders."""


class Started:
    """A started contender.

    Attributes:
        call: Does the application's work for an event.
        finish: Returns when all events so far have been delivered.
    """

    def __init__(self, call: Callable[[], object], finish: Callable[[], object]) -> None:
        self.call = call
        self.finish = finish

    def deliver(self, events: int) -> None:
        """Track `events` events and wait for their delivery."""
        call = self.call
        for _ in range(events):
            call()
        self.finish()


def item(number: int = 0) -> dict[str, Any]:
    """Return an event in ThriveStack's form."""
    return {
        "event_name": "feature_used",
        "properties": PROPERTIES,
        "user_id": USER,
        "timestamp": "2024-10-20T15:51:36.514000Z",
        "context": {**CONTEXT, "event_id": f"0123456789abcdef-{number:08x}"},
    }


def caller_floor() -> Started:
    """Return floor C: the least work on the caller's thread to leave an event behind, without delivery."""
    from collections import deque  # noqa: PLC0415

    waiting: deque[Any] = deque()
    return Started(floor_call(waiting, lambda: None), waiting.clear)


def delivery_floor(url: str) -> Callable[[int], None]:
    """Return floor D: a function to encode `events` prepared dicts, in lists of 500, and post them."""
    import httpx  # noqa: PLC0415
    import orjson  # noqa: PLC0415

    client = httpx.Client(headers={"x-api-key": "k", "content-type": "application/json"})
    client.post(f"{url}/track", content=b"[]")
    made = [item(number) for number in range(500)]

    def deliver(events: int) -> None:
        for start in range(0, events, len(made)):
            client.post(f"{url}/track", content=orjson.dumps(made[: events - start]))

    return deliver


def floor_call(waiting: deque[Any], function: Callable[[], object]) -> Callable[[], object]:
    """Return `function` with a minimal decorator of the common kind, which leaves an event in `waiting`."""
    import contextvars  # noqa: PLC0415

    import wrapt  # noqa: PLC0415

    acting: contextvars.ContextVar[str] = contextvars.ContextVar("acting", default=USER)
    append, now, who = waiting.append, time.time_ns, acting.get

    @wrapt.decorator
    def tracked(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        result = wrapped(*args, **kwargs)
        append((FEATURE, who(), now()))
        return result

    decorated: Callable[[], object] = tracked(function)
    return decorated


def late_floor(url: str) -> Started:
    """Return the least work of a script with delivery at its end: load an HTTP client, encode and send all events."""
    waiting: list[dict[str, Any]] = []

    def finish() -> None:
        import httpx  # noqa: PLC0415
        import orjson  # noqa: PLC0415

        headers = {"x-api-key": "k", "content-type": "application/json"}
        with httpx.Client(headers=headers, verify=False) as client:  # noqa: S501 - plain HTTP
            client.post(f"{url}/track", content=orjson.dumps(waiting))

    return Started(lambda: waiting.append(item()), finish)


def ts_autotrack(url: str, **settings: Any) -> Started:
    """Return ts_autotrack: a decorated function, called by a known user."""
    from ts_autotrack import bind_user, configure, flush, track_feature  # noqa: PLC0415

    configure(endpoint=url, api_key="k", **settings)
    bind_user(USER, group_id=GROUP, device_type="mobile", user_email="jane@example.com")

    @track_feature(FEATURE, feature_type="core")
    def call() -> None: ...

    return Started(call, lambda: flush(60))


def with_outbox(url: str, durability: str = "batch") -> Started:
    """Return ts_autotrack with an outbox."""
    import tempfile  # noqa: PLC0415

    return ts_autotrack(url, outbox=tempfile.mkdtemp(), durability=durability)


def with_each_event_on_disk(url: str) -> Started:
    """Return ts_autotrack with durability=event: an event is in the outbox when its call returns."""
    return with_outbox(url, "event")


def vendor(url: str) -> Started:
    """Return the helper of the vendor's back-end guide: a blocking request for each event."""
    from contextlib import suppress  # noqa: PLC0415

    import requests  # type: ignore[import-untyped, unused-ignore] # noqa: PLC0415

    headers = {"x-api-key": "k", "Content-Type": "application/json"}

    def call() -> None:
        with suppress(requests.RequestException):
            requests.post(f"{url}/track", json=[item()], headers=headers, timeout=3).raise_for_status()

    return Started(call, lambda: None)


def mixpanel(url: str) -> Started:
    """Return mixpanel with the consumer of its guide for busy servers: 50 events at a time, sent on the caller's
    thread.
    """
    from mixpanel import BufferedConsumer, Mixpanel  # type: ignore[import-not-found] # noqa: PLC0415

    consumer = BufferedConsumer(events_url=f"{url}/track")
    client = Mixpanel("token", consumer)
    return Started(lambda: client.track(USER, "feature_used", {**PROPERTIES, **CONTEXT}), consumer.flush)


def opentelemetry(url: str) -> Started:
    """Return OpenTelemetry's log events over OTLP."""
    from opentelemetry._logs import LogRecord, SeverityNumber  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[import-not-found] # noqa: PLC0415
        OTLPLogExporter,
    )
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415

    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs")))
    logger = provider.get_logger("benchmark")

    def call() -> None:
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body="feature_used",
                attributes={"user.id": USER, **PROPERTIES, **CONTEXT},
            )
        )

    return Started(call, lambda: provider.force_flush(60_000))


def segment(url: str) -> Started:
    """Return segment."""
    from segment.analytics import Client  # type: ignore[import-not-found] # noqa: PLC0415

    client = Client("key", host=url)
    return Started(lambda: client.track(USER, "feature_used", PROPERTIES, CONTEXT), client.flush)


def rudder(url: str) -> Started:
    """Return RudderStack."""
    from rudderstack.analytics.client import Client  # type: ignore[import-not-found] # noqa: PLC0415

    client = Client("key", host=url)
    return Started(lambda: client.track(USER, "feature_used", PROPERTIES, CONTEXT), client.flush)


def snowplow(url: str) -> Started:
    """Return snowplow with its threaded emitter, which sends ten events at a time.

    The sink finds the feature's name in the structured event only: the entity goes out in base64.
    """
    from snowplow_tracker import (  # type: ignore[import-not-found] # noqa: PLC0415
        AsyncEmitter,
        SelfDescribingJson,
        StructuredEvent,
        Subject,
        Tracker,
    )

    host, port = url.removeprefix("http://").split(":")
    subject = Subject()
    subject.set_user_id(USER)
    tracker = Tracker("benchmark", AsyncEmitter(host, protocol="http", port=int(port)), subject)
    others = {key: PROPERTIES[key] for key in ("feature_type", "user_email")}

    def call() -> None:
        entity = SelfDescribingJson("iglu:com.example/feature_used/jsonschema/1-0-0", {**others, **CONTEXT})
        tracker.track(StructuredEvent("feature_used", PROPERTIES["action"], label=FEATURE, context=[entity]))

    return Started(call, lambda: tracker.flush(is_async=False))


def amplitude(url: str) -> Started:
    """Return amplitude."""
    from amplitude import Amplitude, BaseEvent, Config  # type: ignore[import-not-found] # noqa: PLC0415

    client = Amplitude("key", Config(server_url=f"{url}/track"))

    def call() -> None:
        client.track(BaseEvent("feature_used", user_id=USER, event_properties={**PROPERTIES, **CONTEXT}))

    def finish() -> None:
        for future in client.flush():
            if future is not None:
                future.result()

    return Started(call, finish)


def posthog(url: str) -> Started:
    """Return posthog."""
    from posthog import Posthog  # type: ignore[import-not-found] # noqa: PLC0415

    client = Posthog("key", host=url)

    def call() -> None:
        client.capture("feature_used", distinct_id=USER, properties={**PROPERTIES, **CONTEXT})

    return Started(call, client.flush)


class Contender:
    """A compared SDK.

    Attributes:
        start: Starts the contender, given the URL of the sink.
        packages: Packages for pip to install; the first package gives the displayed version.
        imports: The import statement of an application.
    """

    def __init__(self, start: Callable[[str], Started], packages: tuple[str, ...], imports: str) -> None:
        self.start = start
        self.packages = packages
        self.imports = imports


OURS = {
    "ts_autotrack": Contender(ts_autotrack, ("ts_autotrack",), "import ts_autotrack"),
    "ts_autotrack, outbox": Contender(with_outbox, ("ts_autotrack",), "import ts_autotrack"),
    "ts_autotrack, outbox, durability=event": Contender(
        with_each_event_on_disk, ("ts_autotrack",), "import ts_autotrack"
    ),
}
PEERS = {
    "vendor's helper": Contender(vendor, ("requests",), "import requests"),
    "mixpanel": Contender(mixpanel, ("mixpanel",), "import mixpanel"),
    "opentelemetry": Contender(
        opentelemetry,
        ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
        "import opentelemetry.sdk._logs, opentelemetry.exporter.otlp.proto.http._log_exporter",
    ),
    "segment": Contender(segment, ("segment-analytics-python",), "import segment.analytics"),
    "rudder": Contender(rudder, ("rudder-sdk-python",), "import rudderstack.analytics"),
    "snowplow": Contender(snowplow, ("snowplow-tracker",), "import snowplow_tracker"),
    "amplitude": Contender(amplitude, ("amplitude-analytics",), "import amplitude"),
    "posthog": Contender(posthog, ("posthog",), "import posthog"),
}
ALL = {**OURS, **PEERS}
