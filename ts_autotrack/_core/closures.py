"""Closures with the argument list and the globals of the function that they wrap.

A wrapper that takes `*args, **kwargs` differs from its function for all readers that do not follow `__wrapped__`:
`inspect.getfullargspec`, Celery's argument check, SQLAlchemy's column defaults. So the code of a wrapper is a template,
compiled once per shape of argument list; each function gets a copy with its own argument names. The code runs in the
globals of the function, and takes everything else from its cells: string annotations, frame skipping by module name and
pickling by value work as for the function.
"""

from __future__ import annotations

from functools import update_wrapper
from types import CellType, CodeType, FunctionType

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Shape: TypeAlias = tuple[int, int, int, int, int]
    """Positional-only arguments, all positional arguments, keyword-only arguments; 1 for `*args`, 1 for `**kwargs`."""

CO_VARARGS, CO_VARKEYWORDS = 0x04, 0x08  # inspect's, without the import of inspect
CODE_NAME = "call"
"""Name of the code of closures, in the templates."""
ANY_ARGUMENTS: Shape = (0, 0, 0, 1, 1)
_ANY_NAMES: tuple[str, ...] = ("args", "kwargs")

_codes: dict[tuple[str, Shape, tuple[int, ...]], CodeType] = {}


def closure(
    template: str,
    function: Callable[..., Any],
    cells: dict[str, Any],
    *,
    filename: str,
    captured: tuple[str, ...] = (),
    any_arguments: bool = False,
    flags: int = 0,
    code_name: str = CODE_NAME,
) -> Callable[..., Any]:
    """Return a closure around `function`, with its argument list and in its globals.

    Args:
        template: Source of a function `call`. `{parameters}` stands for the argument list, `{arguments}` for the
            arguments of a call of the function, `{names}` for the names of all arguments, `{forget}` for the statement
            that deletes them, and `{captured}` for a tuple of the captured arguments. Its own names begin with `ts`.
        function: The function to wrap.
        cells: Objects that the template uses, by name; `function` comes in as `ts_function`.
        filename: File name of the code, for tracebacks.
        captured: Names of arguments that `{captured}` stands for.
        any_arguments: True for the argument list `(*args, **kwargs)`: the template needs the arguments as given.
        flags: Flags to add to the code.
        code_name: Name of the code, by which its frames can be found.
    """
    shape, names = ANY_ARGUMENTS, _ANY_NAMES
    if type(function) is FunctionType and not any_arguments:
        shape, names = _arguments(function.__code__)
    indexes = tuple(names.index(name) for name in captured)
    key = template, shape, indexes
    code = _codes.get(key)
    if code is None:
        code = _codes[key] = _compile(template, shape, indexes, ("ts_function", *cells), filename)
    placeholders = dict(zip(code.co_varnames, names, strict=False))
    code = code.replace(
        co_name=code_name,
        co_flags=code.co_flags | flags,
        co_varnames=(*names, *code.co_varnames[len(names) :]),
        co_consts=tuple([_renamed(constant, placeholders) for constant in code.co_consts]),
    )
    values = {**cells, "ts_function": function}
    contents = tuple([CellType(values[name]) for name in code.co_freevars])
    if type(function) is not FunctionType:
        return FunctionType(code, {"__builtins__": __builtins__, "__name__": __name__}, CODE_NAME, None, contents)
    made = FunctionType(code, function.__globals__, function.__name__, None, contents)
    update_wrapper(made, function)
    if shape is not ANY_ARGUMENTS:
        made.__defaults__ = function.__defaults__
        made.__kwdefaults__ = function.__kwdefaults__ and {**function.__kwdefaults__}
    return made


def parameters_of(function: FunctionType) -> tuple[str, ...]:
    """Return the names of a function's own arguments, without `*args` and `**kwargs`."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _arguments(code: CodeType) -> tuple[Shape, tuple[str, ...]]:
    varargs, varkeywords = code.co_flags & CO_VARARGS and 1, code.co_flags & CO_VARKEYWORDS and 1
    shape = code.co_posonlyargcount, code.co_argcount, code.co_kwonlyargcount, varargs, varkeywords
    return shape, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + varargs + varkeywords]


def _compile(template: str, shape: Shape, captured: tuple[int, ...], cells: tuple[str, ...], filename: str) -> CodeType:
    """Return the code of the template for a shape; the arguments are named `_0`, `_1` and so on."""
    positional_only, positional, keyword_only, varargs, varkeywords = shape
    names = [f"_{index}" for index in range(positional + keyword_only + varargs + varkeywords)]
    plain, keywords, rest = names[:positional], names[positional : positional + keyword_only], names[-varkeywords:]
    star = ["*" + names[positional + keyword_only]] if varargs else []
    stars = ["**" + rest[0]] if varkeywords else []
    slash = ["/"] if positional_only else []
    parameters = plain[:positional_only] + slash + plain[positional_only:]
    parameters += (star or (["*"] if keywords else [])) + keywords + stars
    source = template.format(
        parameters=", ".join(parameters),
        arguments=", ".join([*plain, *star, *(f"{name}={name}" for name in keywords), *stars]),
        names=", ".join(names),
        forget=f"del {', '.join(names)}" if names else "pass",
        captured="({})".format("".join(f"{names[index]}, " for index in captured)),
    )
    indented = source.strip().replace("\n", "\n    ")
    made = compile(f"def make({', '.join(cells)}):\n    {indented}\n", filename, "exec", dont_inherit=True)
    return _inner(_inner(made))


def _inner(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _renamed(constant: Any, names: dict[str, str]) -> Any:
    """Return a constant of the code with the names of keyword arguments in place of the placeholders."""
    if type(constant) is str:
        return names.get(constant, constant)
    if type(constant) is tuple and constant and type(constant[0]) is str:
        return tuple([names.get(name, name) for name in constant])
    return constant
