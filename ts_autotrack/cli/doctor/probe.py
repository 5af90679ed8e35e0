"""The child process of `application`: imports the application and writes findings, one JSON line each, into a file."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_autotrack._core import diagnostics
from ts_autotrack._core.config import environment, public
from ts_autotrack.cli.doctor.findings import Finding
from ts_autotrack.cli.doctor.frameworks import check_frameworks
from ts_autotrack.cli.doctor.installation import check_installation
from ts_autotrack.cli.doctor.targets import check_targets, modules_of
from ts_autotrack.testing import capture_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


AUTO, INSTALLED = "ts_autotrack.auto", "_ts_autotrack_start"
"""Modules that activate the settings: in the application's first line, and by `ts-autotrack install`."""


class Probe:
    """Runs the checks of one application.

    Attributes:
        folder: First folder of the path for imports.
        script: Path of the script that the command runs; an empty text without one.
        launched: True if `ts-autotrack run` starts the command, or `ts-autotrack install` is in force.
    """

    def __init__(self, task: dict[str, Any], report: Callable[[object], None]) -> None:
        self.folder: str = task["folder"]
        self.script: str = task["script"]
        self.launched: bool = task["launched"] or INSTALLED in sys.modules
        self._task = task
        self._report = report

    def run(self) -> None:
        """Report the findings, and before each import a text that says so."""
        self._emit(check_installation())
        handler = _Messages(self._report)
        diagnostics.logger.addHandler(handler)
        with capture_events():
            settings = public({})
            active = self.launched or bool(settings["features"] or settings["user"])
            if active:
                self._activate()
            if self._task["django"] or environment("DJANGO_SETTINGS_MODULE"):
                self._emit(self._attempt("django.setup()", _set_up_django))
            imported = [*self._task["modules"], *modules_of(settings)]
            for name in dict.fromkeys(imported):
                self._emit(self._import(name))
            self._report("the check of the functions that the settings name")
            self._emit(check_targets(settings))
            self._report("the check of the frameworks")
            active = active or AUTO in sys.modules
            self._emit(self._check_launcher(settings))
            self._emit(check_frameworks(self.folder, settings, active=active, unread=self._unread))
            diagnostics.report()
        diagnostics.logger.removeHandler(handler)
        self._report("end")

    @property
    def _unread(self) -> str:
        """Path of the script if it alone would import the application; else an empty text."""
        return "" if self._task["modules"] or self._task["django"] else self.script

    def _emit(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            self._report(finding)

    def _activate(self) -> None:
        from ts_autotrack.launcher._activation import activate

        self._report("the activation of ts_autotrack")
        activate()

    def _check_launcher(self, settings: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield the way in which the program activates the settings `features`, `user` and `integrations`."""
        ways = {
            "`ts-autotrack run`": self._task["launched"],
            "`ts-autotrack install`": INSTALLED in sys.modules,
            "`import ts_autotrack.auto`": AUTO in sys.modules,
        }
        by = next((way for way, is_there in ways.items() if is_there), "")
        if by:
            yield Finding("launcher", "ok", f"{by} activates the settings features, user and integrations")
        elif settings["features"] or settings["user"]:
            seen = "the settings features and user count only in a program that activates them"
            do = "Start it with `ts-autotrack run -- COMMAND`, or let its first line be `import ts_autotrack.auto`."
            yield Finding("launcher", "warning" if self._task["known"] else "note", seen, do)

    def _import(self, name: str) -> Iterator[Finding]:
        if name == "__main__" or (self.script and self._is_script(name)):
            seen = f"{name} is the program itself, which this command does not run: its functions are not checked"
            yield Finding("application", "note", seen)
            return
        yield from self._attempt(f"the import of {name}", partial(importlib.import_module, name))

    def _is_script(self, name: str) -> bool:
        try:
            spec = importlib.util.find_spec(name.partition(".")[0])
        except (ImportError, ValueError):
            return False
        return spec is not None and os.path.realpath(spec.origin or "") == os.path.realpath(self.script)

    def _attempt(self, activity: str, act: Callable[[], object]) -> Iterator[Finding]:
        self._report(activity)
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: the code is the application's
            reason = f"{type(error).__name__}: {error}"
            do = "Run this command in the folder and with the variables that the application starts with."
            yield Finding("application", "error", f"{activity} failed: {reason}", do)
        else:
            yield Finding("application", "ok", f"{activity} works")


class _Messages(logging.Handler):
    """Reports each warning of this library: about decorators that cannot track, about settings, about integrations."""

    def __init__(self, report: Callable[[object], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = report

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record."""
        text = record.getMessage().removeprefix("ts_autotrack: ")
        self._tell(Finding("log", "warning", text, "The application logs this warning, too."))


def _set_up_django() -> None:
    import django  # lazily: an application's own dependency

    django.setup()
    importlib.import_module("django.core.handlers.base")  # as a server does; it makes the integration active


def main(task: str, path: str) -> None:
    """Run the checks.

    Args:
        task: JSON object with the arguments of `Probe`.
        path: File for the findings.
    """
    values = json.loads(task)
    sys.path[0] = values["folder"]
    if values["chdir"]:
        os.chdir(values["chdir"])
    sys.argv = [values["script"] or "ts-autotrack"]  # an application may read its arguments while it is imported
    logging.raiseExceptions = False
    own = os.getpid()
    with Path(path).open("a", encoding="utf-8") as file:

        def report(entry: object) -> None:
            if os.getpid() != own:
                os._exit(0)  # a child that an import forked, and whose SystemExit has been caught here
            file.write(f"{json.dumps(entry)}\n")
            file.flush()

        Probe(values, report).run()
    os._exit(0)  # neither exit handlers nor threads of the application go on
