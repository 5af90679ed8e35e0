"""Ids of users and accounts: texts, integers, UUIDs, and objects of classes that declare a text form for an id.

A wrong id merges strangers into one user, or sends a whole record as an id. So a value that is no id means nobody, with
a warning that names the value's class, never its content.

Classes of frameworks are known by module and name: nothing is imported, and a value's class is asked before the value.
"""

from __future__ import annotations

import sys
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from weakref import WeakSet

from ts_autotrack._core.callables import attribute, kind_of
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import class_name, has_declared_fields, is_orm_record, state_of

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Name: TypeAlias = tuple[str, str]
    """Module and qualified name of a class."""

MAX_LAYERS = 10
"""Proxies and enums inside each other that are opened."""
MAX_EXPONENT = 300
"""Decimal exponent of a Decimal that may be an id."""

_known: WeakSet[type] = WeakSet()
"""Classes whose objects are ids by their text: the check takes ten times longer than the text."""


class NoIdError(Exception):
    """The value is no id; the message names its kind and the remedy."""


def as_id(value: object, name: str = "user_id") -> str | None:
    """Return an id as text, as the contract asks; None for nobody. Never raises.

    None, empty texts and anonymous users mean nobody. Any other value that is no id means nobody, too, with one
    warning for its class.

    Args:
        value: The id, as the application gave it.
        name: Name of the argument, for the warning.
    """
    if type(value) is str:
        return value.strip() or None
    try:
        try:
            return read_id(value)
        except NoIdError as refusal:
            effect = "Events count as 'unattributed'" if name == "user_id" else "Events are sent without an account"
            warn_once(("id", name, str(refusal)), f"{name}: {refusal}. {effect}")
    except Exception:  # noqa: BLE001, S110 - the stack has no space for the warning
        pass
    return None


def read_id(value: Any) -> str | None:
    """Return an id as text; None for nobody.

    Raises:
        NoIdError: If the value is no id.
    """
    kind = type(value)
    if value is None:
        return None
    try:
        if kind is int or (kind.__module__ == "uuid" and kind.__qualname__ == "UUID"):
            return str(value)
        for _ in range(MAX_LAYERS):
            if issubclass(type(value), str):
                return str.__str__(value).strip() or None
            text, value = _step(value)
            if text is not None or value is None:
                return (text and text.strip()) or None
    except NoIdError:
        raise
    except Exception as error:
        message = f"the text of a {class_name(value)} could not be read: {type(error).__name__}"
        raise NoIdError(message) from error
    raise _refusal(value, "a proxy of proxies", _USE_ID_ITSELF)


def _step(value: Any) -> tuple[str | None, object]:
    """Return the text of an id, or the value inside a proxy or an enum; neither for an anonymous user."""
    kind = type(value)
    is_known = kind in _known
    if not is_known:
        if issubclass(kind, int) and kind is not bool:
            return str(int.__index__(value)), None
        for base in kind.__mro__:
            name = base.__module__, base.__qualname__
            if name in _TEXTS:
                return _TEXTS[name](value, base), None
            if name in _NO_IDS:
                raise _refusal(value, *_NO_IDS[name])
            if name in _INSIDE and not (name == _ENUM and _declares_text(kind)):
                return None, _INSIDE[name](value)
    if _is_anonymous(value, kind):
        return None, None
    if not is_known:
        _check_kind(value, kind)
        _known.add(kind)
    text = str.__str__(str(value))  # a text may be of a class of its own
    if f"{id(value):x}" in text.lower():
        raise _refusal(value, "an object whose text is its memory address", _USE_ID)
    return text, None


def _check_kind(value: object, kind: type) -> None:
    """Raise NoIdError if objects of a class are no ids, whatever their text is."""
    if issubclass(kind, type):
        raise _refusal(value, "a class", _USE_ID)
    if is_orm_record(kind):
        raise _refusal(value, "a record of a database", _USE_ID)
    library = next(
        (prefix for base in kind.__mro__ for prefix in _LIBRARIES if f"{base.__module__}.".startswith(prefix)), None
    )
    if library is not None:
        raise _refusal(value, *_LIBRARIES[library])
    if _declared(kind, "__await__"):
        raise _refusal(value, "an awaitable", "did you forget to await it?")
    if callable(value):
        raise _refusal(value, "a function" if kind in _NAMED else "a callable", "did you forget to call it?")
    if any(_declared(kind, name) for name in _TIMES):
        raise _refusal(value, "a date or time", _USE_ID_ITSELF)
    is_record = has_declared_fields(kind) or (issubclass(kind, tuple) and _declared(kind, "_fields") is not None)
    if not is_record and any(_declared(kind, name) for name in _SERIES):
        raise _refusal(value, "a collection or stream of values", _USE_ID_ITSELF)
    if not _declares_text(kind):
        noun = "a whole record" if is_record else "an object without a text form of its own"
        raise _refusal(value, noun, _USE_ID)


def _refusal(value: object, noun: str, hint: str) -> NoIdError:
    """Return the error for a value, with the name of its class; of a function or class, with its own name."""
    named = type(value) in _NAMED or issubclass(type(value), type)
    name = attribute(value, "__qualname__") if named else None
    return NoIdError(f"{noun} is no id (got {name if type(name) is str else class_name(value)}); {hint}")


def _declared(kind: type, name: str) -> Any:
    """Return an attribute as the class declares it; None if absent, or turned off by None in its place."""
    return next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)


def _declares_text(kind: type) -> bool:
    """Return True if `__str__` comes from a class that is neither of Python nor of a library of records."""
    owner = next(base for base in kind.__mro__ if "__str__" in base.__dict__)
    library = owner.__module__.partition(".")[0]
    return library not in sys.stdlib_module_names and library not in _RECORD_LIBRARIES


def _is_anonymous(value: object, kind: type) -> bool:
    """Return True for a user object that says that nobody has logged in."""
    return _flag(value, kind, "is_anonymous") is True or _flag(value, kind, "is_authenticated") is False


def _flag(value: object, kind: type, name: str) -> object:
    """Return a flag of a user object: stored, or given by a property or method. No `__getattr__` and no column runs."""
    state = state_of(value)
    if name in state:
        return state[name]
    held = _declared(kind, name)
    if type(held) is FunctionType:
        return held(value) if kind_of(held) == "function" else None
    is_column = type(held).__module__.startswith(tuple(_LIBRARIES))
    return held.__get__(value, kind) if hasattr(type(held), "__get__") and not is_column else held


def _enum_value(value: Any) -> str:
    """Return the text that an enum's member stands for; the number of a member says nothing."""
    plain = object.__getattribute__(value, "_value_")
    if not issubclass(type(plain), str):
        raise _refusal(value, "a member of an enum", _USE_TEXT)
    return str.__str__(plain)


def _lazy_object(value: Any) -> object:
    """Return the object in Django's lazy object, which is made now unless the application has used it before."""
    if state_of(value).get("_wrapped") is sys.modules["django.utils.functional"].empty:
        value._setup()  # noqa: SLF001 - as Django itself does
    return state_of(value)["_wrapped"]


def _whole_number(value: Any, base: Any) -> str:
    if not base.is_finite(value) or base.adjusted(value) > MAX_EXPONENT:
        raise _refusal(value, "a Decimal that is not finite or very large", _USE_TEXT)
    whole = base.to_integral_value(value)
    if whole != value:
        raise _refusal(value, "a Decimal that is not whole", _USE_TEXT)
    return str(int(whole))


_USE_ID = "pass its id"
_USE_ID_ITSELF = "pass the id itself"
_USE_TEXT = "pass text or an integer"

_SERIES = ("__iter__", "__next__", "__aiter__", "__anext__", "__getitem__")
_TIMES = ("isoformat", "total_seconds", "strftime")

_NAMED = (FunctionType, BuiltinFunctionType, MethodType, CoroutineType, GeneratorType, AsyncGeneratorType)
"""Types of objects with a name that no data are in."""

_ENUM = ("enum", "Enum")

_INSIDE: dict[Name, Callable[[Any], object]] = {
    _ENUM: _enum_value,
    ("collections", "UserString"): lambda value: state_of(value)["data"],
    ("numpy", "integer"): lambda value: value.item(),
    ("werkzeug.local", "LocalProxy"): lambda value: value._get_current_object(),  # noqa: SLF001 - documented
    ("django.utils.functional", "LazyObject"): _lazy_object,
    ("django.utils.functional", "Promise"): lambda value: value._proxy____cast(),  # noqa: SLF001 - no public way
    ("_wrappers", "ObjectProxy"): lambda value: value.__wrapped__,
    ("wrapt.wrappers", "ObjectProxy"): lambda value: value.__wrapped__,
}
"""Proxies and enums by module and name, with the way to the value inside."""

_TEXTS: dict[Name, Callable[[Any, Any], str]] = {
    ("uuid", "UUID"): lambda value, base: base.__str__(value),
    ("decimal", "Decimal"): _whole_number,
}
"""Classes of Python whose objects are ids, with the text of an object."""

_NO_IDS: dict[Name, tuple[str, str]] = {
    ("builtins", "bool"): ("a truth value", _USE_ID_ITSELF),
    ("builtins", "float"): ("a float", "it may be NaN or have lost digits: pass text or an integer"),
    ("builtins", "bytes"): ("a binary value", "decode it"),
    ("builtins", "bytearray"): ("a binary value", "decode it"),
    ("builtins", "memoryview"): ("a binary value", "decode it"),
    ("builtins", "BaseException"): ("an exception", _USE_ID_ITSELF),
    ("numpy", "timedelta64"): ("a duration", _USE_ID_ITSELF),
    ("numpy", "generic"): ("a numpy value other than an integer", _USE_TEXT),
    ("unittest.mock", "NonCallableMock"): ("a mock", _USE_TEXT),
    ("mock.mock", "NonCallableMock"): ("a mock", _USE_TEXT),
    ("pydantic.types", "_SecretBase"): ("a secret", _USE_TEXT),
    ("starlette.datastructures", "Secret"): ("a secret", _USE_TEXT),
}
"""Classes by module and name to a noun and a remedy. An application's class with such a base is none, either."""

_COLUMN = ("an object of the database library", "pass the id of a loaded record")
_LIBRARIES = {
    "sqlalchemy.": _COLUMN,
    "django.db.": _COLUMN,
    "peewee.": _COLUMN,
    "playhouse.": _COLUMN,
    "tortoise.": _COLUMN,
    "pony.": _COLUMN,
    "mongoengine.": _COLUMN,
    "neomodel.": _COLUMN,
    "piccolo.": _COLUMN,
    "pynamodb.": _COLUMN,
    "pandas.": ("a pandas value", _USE_TEXT),
    "pyarrow.": ("an Arrow value", _USE_TEXT),
}
"""Beginnings of modules to a noun and a remedy for their objects: columns, expressions, records, missing values."""

_RECORD_LIBRARIES = ("pydantic", "pydantic_core", "msgspec", "attr", "attrs", "sqlmodel", "wrapt")
"""Libraries whose base classes give every record a text."""
