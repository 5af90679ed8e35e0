"""The schema extension of Strawberry: features by field and operation, and who acts in an operation."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncGenerator  # noqa: TC003 - Strawberry reads the annotations
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import strawberry
from graphql import GraphQLError
from strawberry.dataloader import DataLoader
from strawberry.extensions import SchemaExtension

import ts_autotrack
from tests.integrations.test_grpc import events
from ts_autotrack import bind_user, request_scope, track, track_feature, user_context
from ts_autotrack.integrations.strawberry import tracking_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector

USERS = [f"user-{number}" for number in range(50)]


async def load_names(keys: list[int]) -> list[str]:
    """Load names, all at once."""
    track("batch")
    return [f"report {key}" for key in keys]


@strawberry.type
class Report:
    """A report with a plain field, a resolver and a loader."""

    number: int

    @strawberry.field
    def rows(self, fail: bool = False) -> list[int]:  # noqa: FBT001, FBT002 - an argument of the schema
        """Return rows, or fail."""
        if fail:
            raise LookupError
        return [self.number]

    @strawberry.field
    async def name(self, info: strawberry.Info) -> str:
        """Load the name with the names of other reports."""
        name: str = await info.context["names"].load(self.number)
        return name


@strawberry.type
class Query:
    """Fields of all kinds."""

    @strawberry.field
    def reports(self, count: int = 2) -> list[Report]:
        """Return reports."""
        return [Report(number=number) for number in range(count)]

    @strawberry.field
    async def slow_report(self, number: int = 1) -> Report | None:
        """Return a report, after a while; an error for a negative number."""
        await asyncio.sleep(0.001)
        if number < 0:
            raise LookupError
        return Report(number=number)

    @strawberry.field
    def returned_error(self) -> str | None:
        """Return an error, as graphql-core allows."""
        return GraphQLError("no such report")  # type: ignore[return-value]

    @strawberry.field
    def secret(self) -> str | None:
        """Be forbidden."""
        raise PermissionError


@strawberry.type
class Mutation:
    """Changes."""

    @strawberry.mutation
    def export_report(self, fail: bool = False) -> str:  # noqa: FBT001, FBT002 - an argument of the schema
        """Export."""
        if fail:
            raise LookupError
        return "done"

    @strawberry.mutation
    def log_in(self, user: str) -> bool:
        """Bind the user."""
        bind_user(user)
        return True


@strawberry.type
class Subscription:
    """Streams."""

    @strawberry.subscription
    async def ticks(self, count: int, fail: bool = False) -> AsyncGenerator[int, None]:  # noqa: FBT001, FBT002
        """Count."""
        for number in range(count):
            await asyncio.sleep(0)
            yield number
        if fail:
            raise LookupError


FEATURES = {
    "Query.reports": "report_list",
    "Query.slowReport": "report_view",
    "Query.returnedError": "error",
    "Query.secret": "secret",
    "Report.rows": "rows",
    "Report.number": "number",
    "Mutation.exportReport": "report_export",
    "Subscription.ticks": "ticks",
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Hide the log of errors in resolvers."""
    logger = logging.getLogger("strawberry.execution")
    logger.disabled = True
    yield
    logger.disabled = False


def schema_with(*extensions: Any) -> strawberry.Schema:
    """Return a schema with extensions."""
    return strawberry.Schema(Query, Mutation, Subscription, extensions=extensions)


def run(schema: strawberry.Schema, query: str, user: str | None = "ann", **arguments: Any) -> Any:
    """Execute an operation on an event loop, in a request of a user; return its result."""

    async def execute() -> Any:
        context = {"names": DataLoader(load_fn=load_names)}
        async with request_scope(lambda: user):
            return await schema.execute(query, context_value=context, **arguments)

    return asyncio.run(execute())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{ reports { name } }", ["batch", "report_list"]),
        ("{ a: reports { __typename } b: reports { __typename } }", ["report_list", "report_list"]),
        ("query { ...f } fragment f on Query { reports { __typename } }", ["report_list"]),
        ("{ reports @skip(if: true) { __typename } slowReport { number } }", ["number", "report_view"]),
        ("{ slowReport(number: -1) { number } reports(count: 0) { rows } }", ["report_list"]),
        ("{ reports(count: 3) { rows } }", ["report_list", "rows", "rows", "rows"]),
        ("{ reports { rows(fail: true) } }", ["report_list"]),
        ("{ returnedError secret }", []),
        ("{ reports { missing } }", []),
        ("{ reports {", []),
        ("mutation { exportReport }", ["report_export"]),
        ("mutation { a: exportReport b: exportReport }", ["report_export", "report_export"]),
        ("mutation { exportReport(fail: true) }", []),
    ],
)
def test_features_by_field(inspector: Inspector, query: str, expected: list[str]) -> None:
    """An event for each resolver of a listed field that returns without an error."""
    run(schema_with(tracking_extension(features=FEATURES)), query)
    assert events(inspector) == [(name, "ann") for name in expected]


def test_schema_without_event_loop(inspector: Inspector) -> None:
    """`execute_sync` on many threads: each event has the user of its thread's request."""
    schema = schema_with(tracking_extension(features=FEATURES))

    def execute(user: str) -> None:
        with request_scope(lambda: user):
            schema.execute_sync("{ reports(count: 1) { rows } }")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(execute, USERS))
    assert events(inspector) == sorted((name, user) for name in ("report_list", "rows") for user in USERS)
    assert inspector.items()[0]["properties"]["action"] in FEATURES


def test_user_of_operations_outside_of_a_request(inspector: Inspector) -> None:
    """`user=` gets the context, 50 users at the same time; a user who is known already goes on acting."""
    schema = schema_with(tracking_extension(lambda context: context["user"], features=FEATURES))
    query = "{ slowReport { number } }"

    async def execute() -> None:
        await asyncio.gather(*(schema.execute(query, context_value={"user": user}) for user in (*USERS, None)))
        with user_context("bob"):
            await schema.execute(query, context_value={"user": "wrong"})

    asyncio.run(execute())
    assert events(inspector) == sorted((name, user) for name in ("number", "report_view") for user in (*USERS, "bob"))
    assert ts_autotrack.stats().dropped == {"unattributed": 2}


def test_login_mutation_binds_the_user_of_the_operation(inspector: Inspector) -> None:
    """`bind_user` in a resolver holds for the rest of the operation, and ends with the operation."""
    schema = schema_with(tracking_extension(lambda _: None, features=FEATURES))
    schema.execute_sync('mutation { logIn(user: "ann") exportReport }')
    schema.execute_sync("mutation { exportReport }")
    assert events(inspector) == [("report_export", "ann")]
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_features_by_operation(inspector: Inspector) -> None:
    """An event when the named operation ends without any error, in either kind of execution."""
    schema = schema_with(tracking_extension(operations={"Export": "report_export"}))
    for query in ("mutation Export { exportReport }", "mutation Export { exportReport(fail: true) }", "query Export {"):
        run(schema, query)
        with user_context("bob"):
            schema.execute_sync(query)
    document = "mutation Export { exportReport } query Other { reports { number } }"
    run(schema, document, "eve", operation_name="Export")
    run(schema, document, "eve", operation_name="Other")
    run(schema, "mutation { exportReport }", "eve")
    assert events(inspector) == [("report_export", "ann"), ("report_export", "bob"), ("report_export", "eve")]


def test_subscriptions_count_once_at_their_end(inspector: Inspector) -> None:
    """A subscription is one use, also if the client leaves early; none if it fails."""
    schema = schema_with(tracking_extension(lambda c: c, features=FEATURES, operations={"Ticks": "tick_operation"}))

    async def subscribe(user: str, arguments: str, steps: int | None = None) -> None:
        stream: Any = await schema.subscribe(f"subscription Ticks {{ ticks({arguments}) }}", context_value=user)
        async with contextlib.aclosing(stream):
            count = 0
            async for _ in stream:
                count += 1
                if count == steps:
                    break

    async def all_of_them() -> None:
        await asyncio.gather(
            *(subscribe(user, "count: 3") for user in USERS),
            subscribe("early", "count: 1000", 2),
            subscribe("fails", "count: 2, fail: true"),
        )

    asyncio.run(all_of_them())
    names = ("ticks", "tick_operation")
    assert events(inspector) == sorted((name, user) for name in names for user in (*USERS, "early"))


def test_tracked_resolver_needs_no_extension(inspector: Inspector) -> None:
    """`@track_feature` below `@strawberry.field` counts once, also if another extension wraps all resolvers."""

    class Uppercase(SchemaExtension):
        def resolve(self, _next: Any, root: Any, info: Any, *args: Any, **kwargs: Any) -> Any:
            return _next(root, info, *args, **kwargs)

    @strawberry.type
    class Tracked:
        @strawberry.field
        @track_feature("greeting")
        def hello(self, name: str) -> str:
            """Greet."""
            return f"hello {name}"

    cases: list[list[Any]] = [[], [Uppercase, tracking_extension(features={"Tracked.hello": "hello"})]]
    for extensions in cases:
        schema = strawberry.Schema(Tracked, extensions=extensions)
        with user_context("ann"):
            result = schema.execute_sync('{ hello(name: "x") }')
        assert result.data == {"hello": "hello x"}
    assert events(inspector) == [("greeting", "ann"), ("greeting", "ann"), ("hello", "ann")]


def test_two_extensions_and_two_schemas(inspector: Inspector) -> None:
    """A field makes one event of a feature, whichever number of extensions lists it; other schemas are untouched."""
    first, second = (tracking_extension(features={"Query.reports": "report_list"}) for _ in range(2))
    query = "{ reports { number } }"
    schema, other, plain = schema_with(first, second), schema_with(first), schema_with()
    for each in (schema, schema, other, plain):
        run(each, query)
    assert events(inspector) == [("report_list", "ann")] * 3


def test_schema_is_released(inspector: Inspector) -> None:
    """An extension keeps no schema alive."""
    extension = tracking_extension(features={"Query.reports": "report_list"})
    run(schema_with(extension), "{ reports { number } }")
    gc.collect()
    assert len(extension.options.seen) == 0  # type: ignore[attr-defined]
    assert events(inspector) == [("report_list", "ann")]


def test_unknown_field_is_named_once(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is no field of the schema is logged with the first operation; the other fields count."""
    features = {"Query.report": "a", "Missing.field": "b", "Query.reports": "c"}
    schema = schema_with(tracking_extension(features=features))
    for _ in range(2):
        run(schema, "{ reports { number } }")
    warnings = [record.getMessage() for record in caplog.records if "no object type" in record.getMessage()]
    assert len(warnings) == 2
    assert "'Query.report'" in warnings[0]
    assert "'Missing.field'" in warnings[1]
    assert events(inspector) == [("c", "ann")] * 2


def test_exception_in_the_resolver_never_reaches_the_operation(inspector: Inspector) -> None:
    """The events of the operation are counted as unattributed."""
    schema = schema_with(tracking_extension(lambda context: context["missing"], features=FEATURES))
    result = schema.execute_sync("mutation { exportReport }", context_value={})
    assert result.data == {"exportReport": "done"}
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_wrong_arguments_are_named() -> None:
    """Wrong users and names raise at once."""

    async def user(_: Any) -> str:
        return "ann"

    for wrong in ("ann", user):
        with pytest.raises(TypeError, match="user="):
            tracking_extension(wrong)  # type: ignore[arg-type]
    for key in ("reports", "Query.", "Query.a.b", 3):
        with pytest.raises(ValueError, match=r"Type\.field"):
            tracking_extension(features={key: "x"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="non-empty"):
        tracking_extension(features={"Query.reports": ""})
    with pytest.raises(ValueError, match=r"operations=.*name of a GraphQL operation"):
        tracking_extension(operations={" ": "x"})
