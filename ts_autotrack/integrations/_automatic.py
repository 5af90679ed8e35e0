"""Stub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FRAMEWORKS: Mapping[str, str] = {
    "fastapi": "fastapi",
    "starlette": "starlette",
    "flask": "flask",
    "django": "django",
    "celery": "celery",
    "click": "click",
}


def activate(name: str, features: Mapping[str, Any], user: Any = None) -> str | None:
    """Stub."""
    del name, features, user
    return None


def unused_features(features: Iterable[str]) -> list[str]:
    """Stub."""
    del features
    return []
