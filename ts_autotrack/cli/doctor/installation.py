"""Checks of the application's Python: versions, dependencies, and OpenTelemetry variables that need an extra."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from typing import TYPE_CHECKING

from ts_autotrack._core.config import environment
from ts_autotrack._version import __version__
from ts_autotrack.cli.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def check_installation() -> Iterator[Finding]:
    """Yield the versions of Python, this package and its dependencies, and the extras that variables ask for."""
    seen = f"ts_autotrack {__version__}, {platform.python_implementation()} {platform.python_version()}"
    yield Finding("installation", "ok", f"{seen}, {sys.executable}")
    found, wrong = _dependencies()
    yield Finding("installation", "ok", ", ".join(found))
    for requirement in wrong:
        yield Finding("installation", "error", requirement, "Run pip install --upgrade ts_autotrack.")
    yield from _extras()


def _dependencies() -> tuple[list[str], list[str]]:
    """Return the installed versions of the dependencies, and the requirements that are not met."""
    try:
        requirements = importlib.metadata.requires("ts_autotrack") or []
    except importlib.metadata.PackageNotFoundError:
        return [], ["the metadata of ts_autotrack are missing: it runs from a folder and is not installed"]
    found, wrong = [], []
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)  # one with a marker is an extra, or for another Python
        if match is None:
            continue
        name, least = match[1], match[2]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {version}")
        if _numbers(version) < _numbers(least):
            wrong.append(f"{name} {version} is too old: {least} or newer is needed")
    return found, wrong


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without zeros at its end."""
    text = re.sub(r"(\.0+)*$", "", re.split(r"[^0-9.]", version)[0].strip("."))
    return tuple(map(int, filter(None, text.split("."))))


def _extras() -> Iterator[Finding]:
    """Yield the variables whose packages are missing."""
    for variable in ("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER"):
        if "thrivestack" in environment(variable) and not _is_there("opentelemetry.sdk"):
            yield _missing(f"{variable}={environment(variable)}", "opentelemetry-sdk", "otel")
    if environment("TS_AUTOTRACK_OTEL_FEATURES") and not _is_there("opentelemetry.sdk"):
        yield _missing("TS_AUTOTRACK_OTEL_FEATURES", "opentelemetry-sdk", "otel")
    if "thrivestack" in environment("OTEL_TRACES_EXPORTER") and environment("OTEL_SDK_DISABLED").lower() == "true":
        yield Finding("otel", "warning", "OTEL_SDK_DISABLED=true: no span becomes an event", "Remove the variable.")
    propagators = environment("OTEL_PROPAGATORS")
    if propagators and "baggage" not in propagators and "ts_autotrack" not in propagators:
        seen = f"OTEL_PROPAGATORS={propagators} has no baggage: ids of other services do not arrive"
        yield Finding("otel", "note", seen, "Add baggage to the list if other services name the user.")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _missing(setting: str, package: str, extra: str) -> Finding:
    seen = f"{setting} needs the package {package}, which is not installed"
    return Finding("otel", "error", seen, f"Run pip install 'ts_autotrack[{extra}]'.")
