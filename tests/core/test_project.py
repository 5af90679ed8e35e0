"""The pyproject.toml whose settings count, observed in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ts_autotrack

if TYPE_CHECKING:
    from tests.conftest import Inspector

CODE = "import ts_autotrack as ts; ts.track('e', user_id='u', group_id='g'); print(ts.flush(10), ts.stats().dropped)\n"
USED, IGNORED = "True {}\n", "False {'no_api_key': 1}\n"


def run(folder: Path, *arguments: str | Path, **environment: str) -> str:
    """Run Python in a folder and return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    kept["PYTHONPATH"] = str(Path(ts_autotrack.__file__).parent.parent)
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, inspector: Inspector) -> Path:
    """A folder whose pyproject.toml names the inspector, with a script in a deeper folder."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(f'[tool.ts_autotrack]\nendpoint = "{inspector.endpoint}"\n')
    (folder / "src" / "app.py").write_text(CODE)
    return folder


def test_script_has_the_settings_of_its_own_project(project: Path, tmp_path: Path) -> None:
    """A script finds the pyproject.toml above its own folder, from any working directory and through a link."""
    assert run(tmp_path, project / "src" / "app.py") == USED
    (tmp_path / "link.py").symlink_to(project / "src" / "app.py")
    assert run(tmp_path, "link.py") == USED


def test_script_ignores_the_folder_that_it_is_run_in(project: Path, tmp_path: Path) -> None:
    """A script run inside the checkout of another project sends nothing where that project says."""
    (tmp_path / "tool.py").write_text(CODE)
    assert run(project, tmp_path / "tool.py") == IGNORED
    assert run(project / "src", "-c", CODE) == IGNORED


def test_installed_tool_ignores_the_folder_that_it_is_run_in(project: Path, tmp_path: Path) -> None:
    """A tool in site-packages, run inside the checkout of another project, ignores the checkout's settings."""
    packages = tmp_path / "lib" / "site-packages"
    (packages / "tool").mkdir(parents=True)
    (packages / "tool" / "__main__.py").write_text(CODE)
    path = os.pathsep.join([str(packages), str(Path(ts_autotrack.__file__).parent.parent)])
    assert run(project, "-m", "tool", PYTHONPATH=path) == IGNORED
    assert run(project, "-c", "import tool.__main__", PYTHONPATH=path) == IGNORED


def test_installed_server_has_the_settings_of_the_application(project: Path) -> None:
    """gunicorn, started in the folder of a project, imports the application from there: the project's file counts."""
    code = "application = None.__class__\n"
    (project / "wsgi.py").write_text(CODE + code)
    assert run(project, "-m", "gunicorn", "--check-config", "wsgi:application") == USED
    command = Path(sys.prefix, "bin", "gunicorn")
    assert run(project, command, "--check-config", "wsgi:application") == USED
    assert run(project / "src", "-c", "import app") == USED


def test_copy_in_an_environment_inside_the_project_is_no_code_of_the_project(project: Path) -> None:
    """Packages of a virtual environment inside a checkout do not make the checkout the program's own."""
    packages = project / ".venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "library.py").write_text("")
    path = os.pathsep.join([str(packages), str(Path(ts_autotrack.__file__).parent.parent)])
    assert run(project, "-c", "import library; " + CODE, PYTHONPATH=path) == IGNORED


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_ignored(project: Path) -> None:
    """A pyproject.toml that another user put into a shared parent folder has no effect."""
    os.chown(project / "pyproject.toml", 12_345, 12_345)
    assert run(project, "src/app.py") == IGNORED
    os.chown(project / "src" / "app.py", 12_345, 12_345)
    assert run(project, "src/app.py") == USED
