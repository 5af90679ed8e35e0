"""The arguments that name a user and an account, as `user_context` and the resolvers of requests give them."""

from __future__ import annotations

from ts_autotrack._core.contract import CONTEXT_FIELDS
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import class_name
from ts_autotrack._core.identity.ids import as_id
from ts_autotrack._core.snapshot import has_items, shallow

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    IdentityValues: TypeAlias = tuple[object, object, dict[Any, object], dict[str, object]]
    """User id, group id, context and properties: the arguments of `Scope.derive`."""

GROUP_NAMES = ("account_id", "tenant_id", "org_id", "organization_id")
"""Names that applications give to an account; as arguments they mean `group_id`."""
PAIR = 2
"""Length of a pair of user and group."""


def identity_values(
    user_id: object, group_id: object, context: object, fields: tuple[object, ...], properties: dict[str, object]
) -> IdentityValues:
    """Sort the arguments of `user_context`.

    Args:
        user_id: As given.
        group_id: As given.
        context: The argument `context`.
        fields: Values of `CONTEXT_FIELDS`.
        properties: All other arguments; the other names of `group_id` are taken out.
    """
    if not properties.keys().isdisjoint(GROUP_NAMES):
        group_id = _account(group_id, {name: properties.pop(name) for name in GROUP_NAMES if name in properties})
    values: dict[Any, object] = {}
    if context is not None:
        values, group_id = take_group_id(context, group_id)
    for key, value in zip(CONTEXT_FIELDS, fields, strict=True):
        if value is not None:
            values[key] = value
    return user_id, group_id, values, properties


def identity_of(answer: object) -> IdentityValues | None:
    """Sort the answer of a resolver: a user id, a pair of user and group, or a mapping; None if nobody is known."""
    if answer is None:
        return None
    if type(answer) is tuple and len(answer) == PAIR:
        return *answer, {}, {}
    if has_items(answer) and (values := shallow(answer)) is not None:
        properties = {key: value for key, value in values.items() if type(key) is str}
        user_id, group_id, context = (properties.pop(name, None) for name in ("user_id", "group_id", "context"))
        fields = tuple(properties.pop(name, None) for name in CONTEXT_FIELDS)
        return identity_values(user_id, group_id, context, fields, properties)
    return answer, None, {}, {}


def take_group_id(context: object, group_id: object) -> tuple[dict[Any, Any], object]:
    """Return the values of a `context=` argument, and the group id; an id inside counts as the argument."""
    values = shallow(context)
    try:
        if values is not None:
            inner = values.pop("group_id", None) if group_id is None else None
            return values, inner if group_id is None else group_id
    except Exception:  # noqa: BLE001 - a key of the application may fail to compare
        values = None
    warn_once("context", f"context=: a {class_name(context)} is no dict that can be read; it is ignored")
    return {}, group_id


def _account(group_id: object, others: dict[str, object]) -> object:
    """Return the group's id; `others` are values given under other names for it."""
    for name, value in others.items():
        if group_id is None:
            group_id = value
        elif value is not None and as_id(value, name) != as_id(group_id, "group_id"):
            warn_once(
                ("account", name),
                f"{name}= is another name of group_id=, and both were given, with different values; {name}= is ignored",
            )
    return group_id
