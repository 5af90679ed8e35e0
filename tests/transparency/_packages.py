"""The packages whose test suites are run, at fixed versions: a new release may add a failing test of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Package:
    """A package with a good test suite in its sdist.

    Attributes:
        name: Name of the distribution.
        version: Its version.
        modules: Top-level modules to decorate.
        requirements: What its tests need besides pytest.
        plugins: Pytest plugins that its tests need. No other plugin is loaded, so the packages share one environment.
        arguments: Further arguments of pytest.
        deselected: Tests left out, with the reason: by their ids, or by the start of their ids.
    """

    name: str
    version: str
    modules: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    deselected: dict[str, str] = field(default_factory=dict)


BUILD_REQUIREMENTS = ("hatchling", "hatch-vcs", "hatch-fancy-pypi-readme", "flit_core>=3.11", "setuptools>=68")
"""What builds the packages and this library: installed once, instead of once for each package."""

PACKAGES = {
    package.name: package
    for package in (
        Package(
            "structlog",
            "26.1.0",
            ("structlog",),
            requirements=("pytest-asyncio>=0.17", "rich", "simplejson", "time-machine>=2.14.1"),
            plugins=("pytest_asyncio.plugin",),
            deselected=dict.fromkeys(
                (
                    "tests/processors/test_renderers.py::TestTimeStamper::test_local",
                    "tests/processors/test_renderers.py::TestTimeStamper::test_adds_Z_to_iso",
                ),
                "time-machine's clock stands still until the first reading, and an event's timestamp is a reading",
            ),
        ),
        Package(
            "attrs",
            "26.1.0",
            ("attr", "attrs"),
            requirements=("cloudpickle", "hypothesis", "pympler"),
            plugins=("_hypothesis_pytestplugin",),
            arguments=("--hypothesis-seed=0",),
        ),
        Package("boltons", "26.2.0", ("boltons",)),
        Package("jinja2", "3.1.6", ("jinja2",), requirements=("trio",)),
        Package("click", "8.5.1", ("click",)),
        Package(
            "werkzeug",
            "3.1.9",
            ("werkzeug",),
            requirements=("cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "watchdog"),
            plugins=("pytest_timeout",),
            deselected={
                "tests/test_serving.py": "starts servers in processes of their own, which the plugin does not reach",
            },
        ),
    )
}

DEFAULT = ("structlog", "boltons", "jinja2")
"""The quickest suites: for every change."""
