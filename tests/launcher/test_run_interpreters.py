"""The start of an interpreter below `ts-autotrack run`: other sitecustomize modules, other environments, faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.launcher.launched import APPLICATION, RUN, environment, finish, users
from ts_autotrack.launcher._run import BOOTSTRAP

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

PYTHON = sys.executable
OWN_MODULES = "print(sorted(name for name in sys.modules if 'autotrack' in name))"


def run_with(path: Path) -> list[str]:
    """Return the words that launch a command with another PYTHONPATH than the launcher's own."""
    file = path / "variables.env"
    file.write_text(f"PYTHONPATH={path}\n")
    return [*RUN[:-1], "--env-file", str(file), "--"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of another virtual environment, which has no package at all."""
    folder = tmp_path_factory.mktemp("foreign")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def test_next_sitecustomize_runs_as_without_the_launcher(inspector: Inspector, tmp_path: Path) -> None:
    """The next sitecustomize on the path is loaded first, is the module of that name, and may change the path."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.path.append('/added'); loaded = 'ts_autotrack' not in sys.modules"
    )
    code = "import sitecustomize, sys; print(sitecustomize.loaded, sitecustomize.__file__, sys.path[1], sys.path[-1])"
    output = finish([*RUN, PYTHON, "-c", code], environment(inspector, PYTHONPATH=str(tmp_path)))
    assert output.split() == ["True", str(tmp_path / "sitecustomize.py"), str(BOOTSTRAP), "/added"]


def test_launcher_behind_another_one_is_loaded(inspector: Inspector, tmp_path: Path) -> None:
    """Another launcher may come first; it leaves the path and imports the next module, as `ddtrace-run` does."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys; sys.path.remove({str(tmp_path)!r}); own = sys.modules.pop('sitecustomize'); import sitecustomize"
    )
    first = f"PYTHONPATH={tmp_path}{os.pathsep}{BOOTSTRAP}"
    assert finish([*RUN, "env", first, PYTHON, "script.py"], environment(inspector)) == ""
    assert len(users(inspector)) == 3


def test_faults_of_the_next_sitecustomize_are_python_s(inspector: Inspector, tmp_path: Path) -> None:
    """An exception of the next sitecustomize is reported as without the launcher, and the program is tracked."""
    (tmp_path / "sitecustomize.py").write_text("import no_such_module")
    bare = finish([PYTHON, "script.py"], environment(inspector, PYTHONPATH=str(tmp_path)))
    assert "No module named 'no_such_module'" in bare
    assert finish([*run_with(tmp_path), PYTHON, "script.py"], environment(inspector)) == bare
    assert len(users(inspector)) == 3


def test_foreign_interpreter_is_left_alone(inspector: Inspector, foreign: Path) -> None:
    """In an environment without the library nothing is printed, raised or imported; so with -I, -E and -S."""
    variables = environment(inspector)
    code = f"import sys; {OWN_MODULES}"
    assert finish([*RUN, str(foreign), "-c", code], variables) == "['_ts_autotrack_start']\n"
    for option in ("-I", "-E", "-S"):
        assert finish([*RUN, PYTHON, option, "-c", code], variables) == "[]\n"


def test_broken_library_is_one_warning(inspector: Inspector, tmp_path: Path) -> None:
    """A library that cannot be imported costs the tracking, one line, and nothing else."""
    (tmp_path / "ts_autotrack.py").write_text("raise RuntimeError('broken\\ninstallation')")
    output = finish([*run_with(tmp_path), PYTHON, "-c", "print('done')"], environment(inspector))
    warning = "ts_autotrack: nothing is tracked in this process: RuntimeError: broken"
    assert output.splitlines() == [warning, "done"]


def test_exit_status_and_streams_are_the_command_s(inspector: Inspector) -> None:
    """The command replaces the launcher: same process, same status, same standard input."""
    code = "import os, sys; print(os.getppid(), sys.stdin.read()); sys.exit(7)"
    done = subprocess.run(
        [*RUN, PYTHON, "-c", code],
        env=environment(inspector),
        input="text",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, [str(os.getpid()), "text"], "")


def test_installed_environment_is_tracked_without_a_command(inspector: Inspector, tmp_path: Path) -> None:
    """`ts-autotrack install` tracks each program of an environment by its settings file, until it is uninstalled.

    A project that is copied with its environment has the settings of the copy. Without the library, or without its
    settings, a program starts as ever.
    """
    shutil.copytree(APPLICATION, tmp_path / "app")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    packages = Path(finish([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], {}).strip())
    library = packages / "library.pth"
    library.write_text(f"{Path(BOOTSTRAP).parents[2]}\n{sysconfig.get_path('purelib')}\n")
    variables, app = environment(inspector), tmp_path / "app"

    installed = finish([python, "-m", "ts_autotrack.cli", "install"], variables, app)
    assert f"wrote {packages / 'ts_autotrack_start.pth'}" in installed
    assert f"track the features in {app / 'ts_autotrack.toml'}" in installed
    assert finish([python, str(app / "script.py")], variables, tmp_path) == ""
    assert users(inspector) == ["user-0", "user-1", "user-2"]

    copy = tmp_path / "copy"
    for name in ("app", "venv"):
        shutil.copytree(tmp_path / name, copy / name, symlinks=True)
    launched_from = "import os; print(os.environ['TS_AUTOTRACK_LAUNCHED_FROM'])"
    for root in (tmp_path, copy):
        assert finish([str(root / "venv" / "bin" / "python"), "-c", launched_from], variables) == f"{root / 'app'}\n"

    (app / "ts_autotrack.toml").rename(app / "unused.toml")
    assert finish([python, "-c", f"import sys; {OWN_MODULES}"], variables) == "['_ts_autotrack_start']\n"
    by_variable = {**variables, "TS_AUTOTRACK_FEATURES": "work:export_report=report_export"}
    assert finish([python, "script.py"], by_variable, app) == ""
    assert len(users(inspector)) == 6

    text = library.read_text()
    library.write_text("")  # the library is uninstalled
    assert finish([python, "-c", f"import sys; {OWN_MODULES}"], by_variable) == "['_ts_autotrack_start']\n"
    library.write_text(text)
    assert finish([python, "-m", "ts_autotrack.cli", "uninstall"], variables).count("deleted") == 3
    assert list(packages.rglob("*autotrack*")) == []


@pytest.mark.parametrize("variable", ["TS_AUTOTRACK_DISABLED", "DO_NOT_TRACK"])
def test_a_library_that_is_off_is_not_imported(inspector: Inspector, variable: str) -> None:
    """A launched program imports nothing of the library while the environment turns it off."""
    variables = environment(inspector, TS_AUTOTRACK_FEATURES="store:buy=buy", **{variable: "True"})
    expected = "['_ts_autotrack_start']\n"
    assert finish([*RUN, PYTHON, "-c", f"import sys; {OWN_MODULES}"], variables) == expected
