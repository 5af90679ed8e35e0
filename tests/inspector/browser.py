"""A real browser for the tests of the page: Debian's Chromium, installed or unpacked into a folder of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

CACHE = Path(tempfile.gettempdir()) / f"ts_autotrack_tests_chromium_{os.getuid()}"
"""Folder of the unpacked packages, kept for later runs: 400 MB."""
PACKAGES = ("chromium", "fonts-inter", "fonts-jetbrains-mono", "fonts-dejavu-core")
"""Packages of the browser and of the fonts in the screenshot. Their dependencies come with them."""
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{folder}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{folder}/fonts-cache</cachedir>
  <alias binding="same"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
  <alias binding="same"><family>ui-monospace</family><prefer><family>JetBrains Mono</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
</fontconfig>
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the module; the tests are skipped where none can be had."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program, environment = _installed()
    with playwright.sync_playwright() as api:
        # A sandbox needs rights that root in a container lacks. The pages are this project's own.
        started = api.chromium.launch(executable_path=program, env=environment, args=["--no-sandbox"])
        yield started
        started.close()


def _installed() -> tuple[str, dict[str, str]]:
    """Return the program and its environment; the test is skipped without one."""
    if program := shutil.which("chromium"):
        return program, dict(os.environ)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("chromium is not installed, and apt-get and dpkg are missing")
    with CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test process downloads 120 MB, the others wait
        if not CACHE.exists():
            with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
                _download(Path(folder))
                (Path(folder) / "root").rename(CACHE)
    fonts = CACHE / "fonts.conf"
    if not fonts.exists():
        fonts.write_text(FONTS.format(folder=CACHE))
    libraries = sorted({str(path.parent) for path in CACHE.glob("usr/lib/*-linux-*/**/*.so*")})
    environment = {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "FONTCONFIG_FILE": str(fonts)}
    return str(CACHE / "usr/lib/chromium/chromium"), {**os.environ, **environment}


def _download(folder: Path) -> None:
    """Unpack the packages that this machine lacks into `folder/root`; skip the test if they cannot be downloaded."""
    plan = _apt_get("--simulate", "--no-install-recommends", "install", *PACKAGES, folder=folder)
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _apt_get("download", *names, folder=folder)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)  # noqa: S607 - found above
        package.unlink()


def _apt_get(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["apt-get", *arguments],  # noqa: S607 - likewise
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"chromium is not installed, and cannot be downloaded: {done.stderr.strip()[-200:]}")
    return done.stdout
