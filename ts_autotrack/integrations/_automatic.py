"""Stub."""

FRAMEWORKS: dict[str, str] = {
    "fastapi": "fastapi",
    "starlette": "starlette",
    "flask": "flask",
    "django": "django",
    "celery": "celery",
    "click": "click",
}
