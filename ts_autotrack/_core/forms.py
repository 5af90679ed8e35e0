"""Simpler forms of the application's objects, one step at a time: a date becomes a text, a dataclass a dict.

All of this runs on the caller's path, so objects are read as they are stored. No property, `__repr__`, `__len__` or
`__iter__` of the application runs: such code may query a database, block, or show a password. Exceptions are the time
zone of a datetime, and the serializers of a pydantic model.

- Data are dicts, lists, tuples, sets, deques, ranges, the views of a dict, and their subclasses; of other mappings only
  `MappingProxyType`, `ChainMap` and `UserDict`. A request, its headers, the variables of the process, a WSGI
  environment and an ASGI scope are no data: they carry credentials.
- Dataclasses, attrs classes, msgspec structs and pydantic models give their declared fields. Excluded, missing and
  computed fields are left out.
- An object of an ORM (SQLAlchemy, Django) gives its primary key, if the key is loaded.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from types import MemberDescriptorType
from weakref import WeakKeyDictionary

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol, TypeAlias

    class Budget(Protocol):
        """Bound of the work for one event."""

        left: int

    Simplify: TypeAlias = Callable[[Any, Any, Budget], Any]
    """Takes a value, the class among its bases that the form is for, and the budget; returns a simpler value."""

BASIC = frozenset(
    {str, int, float, bool, type(None), bytes, bytearray, memoryview, dict, list, tuple, set, frozenset, deque}
)
"""Classes that `snapshot` copies itself, subclasses included."""

_FIELDS = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__")
"""Attributes with the fields of a dataclass, an attrs class and a struct."""

FIELD_COST = 4
"""Work to read one field, in plain values copied."""

_serializing: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
"""Pydantic models to True if the class has serializers of its own: the search takes longer than a copy."""


class UnsendableError(Exception):
    """The value has no form; the message names its kind."""


def class_name(value: object) -> str:
    """Return the full name of a value's class. Never raises."""
    kind = type(value)
    try:
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # noqa: BLE001 - a metaclass may raise even here
        return "object of a class without a name"


def form_of(kind: type) -> tuple[type, Simplify | None]:
    """Return the form of the values of a class, and the class among its bases that the form is for.

    The form is None for a class of `BASIC` and for Decimal. Other forms return a simpler value, which may need a form
    again. They raise UnsendableError for a value without a JSON form, and pass on errors in the application's code.
    """
    for base in kind.__mro__:
        if base in BASIC:
            return base, None
        if "_sa_class_manager" in base.__dict__:
            return base, _sqlalchemy_key
        # By name: the search for a form imports nothing.
        name = base.__module__, base.__qualname__
        if name in _FORMS:
            return base, _FORMS[name]
    return kind, _fields


def is_request(values: dict[Any, Any]) -> bool:
    """Return True for a WSGI environment and an ASGI scope."""
    has = dict.__contains__
    return has(values, "wsgi.input") or (
        has(values, "headers") and (has(values, "asgi") or has(values, "query_string"))
    )


def is_orm_record(kind: type) -> bool:
    """Return True if the objects of a class are rows of a database, mapped by SQLAlchemy or Django."""
    return form_of(kind)[1] in (_sqlalchemy_key, _django_key)


def has_declared_fields(kind: type) -> bool:
    """Return True for dataclasses, attrs classes, msgspec structs and pydantic models."""
    return form_of(kind)[1] in (_pydantic, _pydantic_root) or any(
        name in base.__dict__ for base in kind.__mro__ for name in _FIELDS
    )


def _fields(value: Any, kind: Any, budget: Budget) -> dict[str, Any]:
    """Return the declared fields of a dataclass, an attrs class or a struct."""
    if hasattr(kind, "__dataclass_fields__"):
        hidden = kind.__dict__.get("__pydantic_fields__", {})
        names = [field.name for field in sys.modules["dataclasses"].fields(kind) if not _excludes(hidden, field.name)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    else:
        raise UnsendableError(class_name(value))
    return _stored(value, names, budget)


def _stored(value: Any, names: Iterable[str], budget: Budget) -> dict[str, Any]:
    """Return the named attributes as the object holds them: in its dict, in its slots, or as a default of its class."""
    names = tuple(names)
    budget.left -= FIELD_COST * len(names)
    if budget.left < 0:
        message = f"{class_name(value)} of too many fields"
        raise UnsendableError(message)
    state, found = state_of(value), {}
    for name in names:
        if name in state:
            found[name] = state[name]
            continue
        held = next((base.__dict__[name] for base in type(value).__mro__ if name in base.__dict__), None)
        if type(held) is MemberDescriptorType:
            try:
                found[name] = held.__get__(value)
            except AttributeError:
                continue  # never set, as fields with init=False may be
        elif held is not None and not hasattr(type(held), "__get__"):
            found[name] = held
    return found


def state_of(value: object) -> dict[str, Any]:
    """Return the attributes in an object's own dict."""
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return state if type(state) is dict else {}


def _excludes(fields: dict[str, Any], name: str) -> bool:
    return getattr(fields.get(name), "exclude", None) is True


def _pydantic(value: Any, base: Any, budget: Budget) -> Any:
    kind: Any = type(value)
    fields = kind.__dict__.get("__pydantic_fields__") or kind.model_fields
    if _has_serializers(kind, fields):
        _spend_on_all(value, budget)
        # In Python's forms: a serializer for JSON alone often shows a secret.
        computed = set(kind.__pydantic_decorators__.computed_fields)
        return base.model_dump(value, mode="python", warnings=False, exclude=computed or None)
    state = _stored(value, [name for name in fields if not _excludes(fields, name)], budget)
    return state | (object.__getattribute__(value, "__pydantic_extra__") or {})


def _pydantic_root(value: Any, base: Any, budget: Budget) -> Any:
    plain = _pydantic(value, base, budget)
    return plain["root"] if type(plain) is dict and plain.keys() == {"root"} else plain


def _has_serializers(kind: Any, fields: dict[str, Any]) -> bool:
    known = _serializing.get(kind)
    if known is None:
        decorators = kind.__pydantic_decorators__
        known = bool(decorators.field_serializers or decorators.model_serializers) or any(
            getattr(field, "exclude_if", None) is not None or "Serializer(" in repr((field.annotation, field.metadata))
            for field in fields.values()
        )
        _serializing[kind] = known
    return known


def _spend_on_all(value: object, budget: Budget) -> None:
    """Charge the budget for all values inside a value; raise UnsendableError if there are too many."""
    waiting = [value]
    while waiting:
        inside: Any = waiting.pop()
        if type(inside) not in _CONTAINERS:
            inside = state_of(inside)
        budget.left -= FIELD_COST * (1 + len(inside))
        if budget.left < 0:
            message = f"{class_name(value)} of too many values"
            raise UnsendableError(message)
        waiting += inside.values() if type(inside) is dict else inside


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _sqlalchemy_key(value: Any, _: Any, __: Budget) -> Any:
    instance = state_of(value).get("_sa_instance_state")
    identity = None if instance is None else instance.key
    return _primary_key(value, identity[1] if identity else ())


def _django_key(value: Any, _: Any, __: Budget) -> Any:
    state, options = state_of(value), type(value)._meta  # noqa: SLF001 - documented by Django
    columns = getattr(options, "pk_fields", None) or [options.pk]
    return _primary_key(value, [state.get(column.attname) for column in columns])


def _primary_key(value: object, key: Any) -> Any:
    if not key or None in key:
        message = f"{class_name(value)} without a primary key"
        raise UnsendableError(message)
    return key[0] if len(key) == 1 else list(key)


def _mapping_proxy(value: Any, _: Any, budget: Budget) -> dict[Any, Any]:
    items = value.items()
    if type(items) is not type({}.items()) or len(items) > budget.left:  # of another mapping, or too large
        raise UnsendableError(class_name(value))
    return dict(items)


def _chain_map(value: Any, _: Any, budget: Budget) -> dict[Any, Any]:
    maps = state_of(value)["maps"]
    merged: dict[Any, Any] = {}
    if any(not issubclass(type(part), dict) for part in maps) or sum(map(dict.__len__, maps)) > budget.left:
        raise UnsendableError(class_name(value))
    for part in reversed(maps):
        merged.update(dict.items(part))
    return merged


def _series(value: Any, _: Any, budget: Budget) -> list[Any]:
    return list(islice(value, budget.left + 1))


def _url(value: Any, base: Any, _: Budget) -> str:
    text = str.__str__(base.__str__(value))
    if "@" in text.partition("://")[2].partition("/")[0]:
        message = f"{class_name(value)} with credentials"
        raise UnsendableError(message)
    return text


def _not_a_time(*_: object) -> Any:
    kind = "NaT"
    raise UnsendableError(kind)


def _numpy_scalar(value: Any, _: Any, __: Budget) -> Any:
    kind = value.dtype.kind
    if kind == "f" and value.dtype.char == "g":
        return float(value)  # a long double has no exact form
    item = value.item()
    if kind not in "mM":
        if type(item) is type(value):
            raise UnsendableError(class_name(value))
        return item
    if item is None:
        return _not_a_time()
    if kind == "m" and sys.modules["numpy"].datetime_data(value.dtype)[0] not in ("Y", "M", "generic"):
        item = value.astype("m8[us]").item()
        return item / 1e6 if type(item) is int else item
    if kind == "M" and type(item) is int:  # nanoseconds, or a year that Python's dates lack
        item = value.astype("M8[us]").item()
    if type(item) is int:
        raise UnsendableError(class_name(value))
    return item


def _numpy_array(value: Any, _: Any, budget: Budget) -> Any:
    if value.ndim == 0:
        return value[()]
    if value.size > budget.left:
        raise UnsendableError(class_name(value))
    return list(value) if value.dtype.kind in "mM" or value.dtype.char in "gG" else value.tolist()


def _text(value: Any, base: Any, _: Budget) -> str:
    return str.__str__(base.__str__(value))


def _iso(value: Any, base: Any, _: Budget) -> str:
    return str.__str__(base.isoformat(value))


_FORMS: dict[tuple[str, str], Simplify | None] = {
    ("builtins", "range"): _series,
    ("builtins", "dict_keys"): _series,
    ("builtins", "dict_values"): _series,
    ("builtins", "dict_items"): _series,
    ("builtins", "odict_keys"): _series,
    ("builtins", "odict_values"): _series,
    ("builtins", "odict_items"): _series,
    ("builtins", "mappingproxy"): _mapping_proxy,
    ("collections", "ChainMap"): _chain_map,
    ("collections", "UserDict"): lambda value, _, __: state_of(value)["data"],
    ("enum", "Enum"): lambda value, _, __: object.__getattribute__(value, "_value_"),
    ("datetime", "timedelta"): lambda value, base, _: base.total_seconds(value),
    ("datetime", "datetime"): _iso,
    ("datetime", "date"): _iso,
    ("datetime", "time"): _iso,
    ("decimal", "Decimal"): None,
    ("uuid", "UUID"): _text,
    ("pathlib", "PurePath"): _text,
    ("pathlib._local", "PurePath"): _text,
    ("ipaddress", "_IPAddressBase"): lambda value, _, __: str(value),
    ("numpy", "generic"): _numpy_scalar,
    ("numpy", "ndarray"): _numpy_array,
    ("pandas._libs.tslibs.nattype", "_NaT"): _not_a_time,
    ("pydantic.main", "BaseModel"): _pydantic,
    ("pydantic.root_model", "RootModel"): _pydantic_root,
    ("pydantic.networks", "_BaseUrl"): _url,
    ("pydantic.networks", "_BaseMultiHostUrl"): _url,
    ("pydantic_core._pydantic_core", "Url"): _url,
    ("pydantic_core._pydantic_core", "MultiHostUrl"): _url,
    ("django.db.models.base", "Model"): _django_key,
}
"""Forms by the module and the name of a class."""
