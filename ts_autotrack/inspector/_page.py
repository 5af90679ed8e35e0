"""The files of the inspector's page."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept",
}
"""Headers of all files: the page loads nothing from elsewhere, and nobody else shows it in a frame."""


def names() -> list[str]:
    """Return the names of the page's files."""
    return sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES) if FOLDER.is_dir() else []


def file(name: str) -> Response:
    """Return a file of the page, one of `names()`."""
    path = FOLDER / name
    return Response(path.read_bytes(), headers={**HEADERS, "content-type": TYPES[path.suffix]})
