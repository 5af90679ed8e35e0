"""Strawberry: features named by field or operation, and who acts in a GraphQL operation.

Example:
    ::

        schema = strawberry.Schema(Query, Mutation, extensions=[
            tracking_extension(features={"Mutation.exportReport": "report_export"}),
        ])
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakSet

from graphql import GraphQLError, GraphQLObjectType
from strawberry.extensions import SchemaExtension

from ts_autotrack import current_user, register_response, request_scope, track_feature
from ts_autotrack.integrations._features import checked_name, feature_uses
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from ts_autotrack.typing import Identity

_MARK = "ts_autotrack"
"""Key in the `extensions` of a GraphQLField: names of features that its resolver records already."""
_NO_FIELD = (
    "features={%r: ...}: the schema has no object type with such a field; the feature is not tracked. Use names as in "
    "GraphQL, such as 'Mutation.exportReport'."
)
_FAULT = "the fields of features= could not be tracked in a Strawberry schema (%s); operations go on"

_lock = threading.Lock()


def tracking_extension(
    user: Callable[[Any], Identity] | None = None,
    *,
    features: Mapping[str, str] | None = None,
    operations: Mapping[str, str] | None = None,
) -> type[SchemaExtension]:
    """Return a schema extension that records features by field and by operation.

    The acting user is the user of the request around the operation, as the middleware of the web framework names it.
    A tracked resolver (`@track_feature` below `@strawberry.field`) needs this extension only for `user`.

    Args:
        user: Callable that takes the context of the operation (`info.context`) and returns who acts: a user id,
            `(user_id, group_id)`, a mapping of the arguments of `user_context`, or None if nobody is known yet. It is
            asked by the first event, in operations that begin without a known user; each of these is a request of its
            own.
        features: Names of features by object type and field, in GraphQL's names: `{"Query.reports": "report_view"}`.
            An event is sent each time the field's resolver has returned without an error: once for each alias, and once
            for each object of a list that has the field. A subscription counts once, at its end.
        operations: Names of features by the name of an operation: `{"ExportReport": "report_export"}`. Clients choose
            these names. An event is sent when the operation ends without any error in its result.

    Raises:
        TypeError: `user` is not callable, or is a coroutine function: a schema can be executed without an event loop.
        ValueError: A key or a name in `features` or `operations` is not valid.

    Example:
        >>> import strawberry
        >>> from ts_autotrack.integrations.strawberry import tracking_extension
        >>> @strawberry.type
        ... class Query:
        ...     @strawberry.field
        ...     def reports(self) -> list[str]:
        ...         return ["sales"]
        >>> extension = tracking_extension(features={"Query.reports": "report_view"})
        >>> schema = strawberry.Schema(Query, extensions=[extension])
    """
    if user is not None and (not callable(user) or inspect.iscoroutinefunction(user)):
        message = f"user={user!r}: expected a plain function that takes the context of the operation"
        raise TypeError(message)
    fields = {}
    for key, name in (features or {}).items():
        if not isinstance(key, str) or [bool(part.strip()) for part in key.split(".")] != [True, True]:
            message = f'features={{{key!r}: ...}}: a key must be "Type.field", such as "Mutation.exportReport"'
            raise ValueError(message)
        fields[key] = checked_name(key, name)
    register_response(GraphQLError, lambda *_: 500)  # a resolver may return an error instead of raising
    uses = feature_uses(operations, "GraphQL operation", argument="operations")
    options = _Options(user, fields, uses, WeakSet())
    return type("TrackingExtension", (_TrackingExtension,), {"options": options})


def tracked_fields(extension: object) -> Iterable[str]:
    """Return the keys of `features` of an extension of a schema; none for extensions of others."""
    if isinstance(extension, type) and issubclass(extension, _TrackingExtension):
        return extension.options.fields
    return ()


class _Options(NamedTuple):
    """Options of an extension; `seen` are the schemas whose fields are tracked already."""

    user: Callable[[Any], Identity] | None
    fields: dict[str, str]
    uses: dict[str, Callable[[], None]]
    seen: WeakSet[Any]


class _TrackingExtension(SchemaExtension):
    """The extension of one operation."""

    options: ClassVar[_Options]

    def on_operation(self) -> Iterator[None]:
        """Run the operation inside a request, and record its feature."""
        if self.options.fields and self.execution_context.schema not in self.options.seen:
            _track_fields(self.execution_context.schema, self.options)
        with self._scope():
            try:
                yield
            except Exception:
                raise
            except BaseException:  # a subscription ends early
                self._record()
                raise
            else:
                self._record()

    def _scope(self) -> AbstractContextManager[Any]:
        user = self.options.user
        if user is None or current_user().user_id is not None:
            return nullcontext()
        return request_scope(partial(user, self.execution_context.context))

    def _record(self) -> None:
        """Record the feature of the operation if its last result has no error."""
        if not self.options.uses:
            return
        context = self.execution_context
        if context.result is not None and not getattr(context.result, "errors", None):
            use = self.options.uses.get(context.operation_name or "")
            if use is not None:
                use()


def _track_fields(schema: Any, options: _Options) -> None:
    """Track the resolvers of the listed fields, once for each schema: no other field costs anything."""
    with _lock:
        if schema in options.seen:
            return
        options.seen.add(schema)
        try:
            for key, name in options.fields.items():
                if not _track_field(schema, key, name):
                    warn_once(_NO_FIELD, key)
        except Exception as error:  # noqa: BLE001 - operations go on
            warn_once(_FAULT, type(error).__name__)


def _track_field(schema: Any, key: str, name: str) -> bool:
    """Track the resolver of one field; return False if the schema has no such field."""
    type_name, field_name = (part.strip() for part in key.split("."))
    found = schema.schema_converter.type_map.get(type_name)
    kind = getattr(found, "implementation", None)
    field = kind.fields.get(field_name) if isinstance(kind, GraphQLObjectType) else None
    if field is None:
        return False
    tracked = field.extensions.setdefault(_MARK, set())
    if name not in tracked:
        tracked.add(name)
        if field.subscribe is None:
            field.resolve = track_feature(name, action=key)(field.resolve)
        else:
            field.subscribe = _tracked_subscription(field.subscribe, track_feature(name, action=key)(_events))
    return True


def _tracked_subscription(
    subscribe: Callable[..., Any], events: Callable[[Any], AsyncIterator[Any]]
) -> Callable[..., Any]:
    """Return a resolver of a subscription whose stream is tracked. Errors before the stream are raised as before."""

    async def awaited(stream: Awaitable[Any]) -> Any:
        return tracked(await stream)

    def tracked(stream: Any) -> Any:
        return events(stream) if hasattr(stream, "__aiter__") else stream

    @wraps(subscribe)
    def tracked_subscribe(*args: Any, **kwargs: Any) -> Any:
        stream = subscribe(*args, **kwargs)
        return awaited(stream) if inspect.isawaitable(stream) else tracked(stream)

    return tracked_subscribe


async def _events(stream: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Return the events of a subscription; the stream is closed with this generator."""
    try:
        async for event in stream:
            yield event
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
