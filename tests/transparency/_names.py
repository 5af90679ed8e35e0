"""Names of the functions of a package, as the setting `features` has them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def names_of(folder: Path, module: str) -> list[str]:
    """Return the keys of all functions and methods that a module, or the modules of a package, define at top level.

    Args:
        folder: Folder of the installed packages.
        module: Name of a top-level module.
    """
    root = folder / module
    files = sorted(root.rglob("*.py")) if root.is_dir() else [folder / f"{module}.py"]
    keys: dict[str, None] = {}  # a property is defined up to three times
    for file in files:
        parts = file.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        keys |= dict.fromkeys(f"{name}:{qualname}" for qualname in _functions(ast.parse(file.read_bytes())))
    return list(keys)


def _functions(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """Yield the names of functions: none inside functions, and none of a branch, which may name another object."""
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{prefix}{child.name}"
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
