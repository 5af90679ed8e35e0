"""The structure of the code: imports, sizes, suppressed lint rules, and plain prose."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import ts_autotrack

PACKAGE = Path(ts_autotrack.__file__).parent
MODULES = {
    ".".join(("ts_autotrack", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LAYERS = [
    (
        *(
            "contract",
            "counters",
            "descriptors",
            "diagnostics",
            "redaction",
            "callables",
            "locks",
            "notices",
            "parsers",
            "project",
            "settings_file",
        ),
        *(
            "process_id",
            "forms",
            "scalars",
            "deep_copy",
            "snapshot",
            "decorate",
            "proxy",
            "closures",
            "observers",
            "outcomes",
            "registered",
            "responses",
        ),
    ),
    ("identity",),
    ("capture",),
    ("config", "named_features"),
    ("delivery", "transports", "report"),
    ("outbox", "process"),
    ("assembly", "account"),
    ("captures",),
    ("client",),
    ("api",),
]
"""Parts of `_core`, lowest first. A module imports from its own layer and from lower ones."""

SUBJECTS = {"what", "who", "whoever", "whatever"}
PRONOUNS = {"it", "those", "one", "that"}


def imports_of(name: str) -> set[str]:
    """Return the modules of the package that a module imports, imports for type checkers included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "") in MODULES:
            module = node.module or ""
            submodules = {f"{module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {module}
            # `from package import module` needs the module, not the package's own names.
            found |= {module} if len(submodules) < len(node.names) else set()
    return found - {name}


GRAPH = {name: imports_of(name) for name in MODULES}


def layer(name: str) -> int | None:
    """Return the layer of a module of `_core`; None for other modules."""
    parts = name.split(".")
    if parts[:2] != ["ts_autotrack", "_core"] or len(parts) == 2:
        return None
    return next(index for index, layer in enumerate(LAYERS) if parts[2] in layer)


def test_imports_form_a_dag() -> None:
    """No module imports, directly or not, a module that imports it; imports for type checkers count."""
    done: set[str] = set()

    def visit(module: str, inside: tuple[str, ...]) -> None:
        assert module not in inside, " -> ".join((*inside, module))
        if module not in done:
            for imported in sorted(GRAPH[module]):
                visit(imported, (*inside, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_imports_of_the_core_go_down() -> None:
    """The client wires process and outbox; these use delivery; delivery uses capture; capture uses identity."""
    for name, imported in GRAPH.items():
        own = layer(name)
        for other in imported:
            target = layer(other)
            if own is not None and target is not None:
                assert target <= own, f"{name} imports {other}"


def test_the_core_imports_no_edge() -> None:
    """The core knows neither the command line, nor the inspector, nor an integration."""
    allowed = ("ts_autotrack._core", "ts_autotrack.typing", "ts_autotrack._version")
    for name, imported in GRAPH.items():
        if name.startswith("ts_autotrack._core"):
            assert all(other.startswith(allowed) for other in imported), name


def test_integrations_use_the_public_package_only() -> None:
    """An integration imports public names and parts of other integrations, nothing of the core."""
    allowed = ("ts_autotrack.integrations", "ts_autotrack.typing")
    for name, imported in GRAPH.items():
        if name.startswith("ts_autotrack.integrations"):
            assert all(other == "ts_autotrack" or other.startswith(allowed) for other in imported), name


def test_opentelemetry_s_part_uses_the_public_package_only() -> None:
    """A module of `otel` imports public names, others of `otel`, two parts of the integrations, and the activation."""
    parts = ("ts_autotrack.integrations._by_name", "ts_autotrack.integrations._log")
    activation = {"ts_autotrack.launcher", "ts_autotrack.launcher._activation"}
    allowed = ("ts_autotrack.otel", "ts_autotrack.typing", *parts)
    for name, imported in GRAPH.items():
        if name.startswith("ts_autotrack.otel"):
            known = imported - (activation if name == "ts_autotrack.otel.instrumentor" else set())
            assert all(other == "ts_autotrack" or other.startswith(allowed) for other in known), name


def test_only_transports_import_httpx() -> None:
    """One module knows the HTTP client."""
    users = [
        name for name, path in MODULES.items() if re.search(r"^\s*(import|from) httpx", path.read_text(), re.MULTILINE)
    ]
    assert users == ["ts_autotrack._core.transports.http"]


def test_one_module_reads_the_environment() -> None:
    """The settings have one reader of `os.environ`."""
    readers = [name for name, path in MODULES.items() if re.search(r"os\.(environ|getenv)", path.read_text())]
    assert readers == ["ts_autotrack._core.config"]


def test_the_inspector_s_contract_is_independent() -> None:
    """The oracle shares nothing with the sender's view of the contract."""
    assert GRAPH["ts_autotrack.inspector._contract"] == set()


def test_modules_stay_readable() -> None:
    """No module of the package is longer than 350 lines, no test module longer than 500."""
    tests = Path(__file__).parent.rglob("*.py")
    assert {name: lines for name, path in MODULES.items() if (lines := _lines(path)) > 350} == {}
    assert {str(path): lines for path in tests if (lines := _lines(path)) > 500} == {}


def test_no_class_has_two_jobs() -> None:
    """No class holds more than fourteen attributes."""
    crowded = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "Stats" not in node.name:
                attributes = _attributes(node)
                if len(attributes) > 14:
                    crowded[f"{name}.{node.name}"] = sorted(attributes)
    assert crowded == {}


def test_few_lint_rules_are_silenced() -> None:
    """At most 8 suppressions in 1,000 lines of the package."""
    texts = [path.read_text() for path in MODULES.values()]
    silenced = sum(text.count("# noqa") for text in texts)
    assert 1_000 * silenced / sum(text.count("\n") for text in texts) <= 8


def test_prose_is_plain() -> None:
    """Comments and docstrings name their subjects: few "what" and "who", few "it", "those", "one" and "that"."""
    for root in (PACKAGE, Path(__file__).parent):
        words = [word.lower() for path in root.rglob("*.py") for word in re.findall(r"[A-Za-z']+", _prose(path))]
        assert 1_000 * sum(word in SUBJECTS for word in words) / len(words) <= 2, root
        assert 1_000 * sum(word in PRONOUNS for word in words) / len(words) <= 30, root


def _lines(path: Path) -> int:
    return path.read_text().count("\n")


def _attributes(node: ast.ClassDef) -> set[str]:
    """Return the names in `__slots__`, the names annotated in the class, and the attributes that methods assign."""
    found: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.add(statement.target.id)
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "__slots__":
            found |= set(ast.literal_eval(statement.value))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found |= {inner.attr} if getattr(inner.value, "id", "") == "self" else set()
    return found


def _prose(path: Path) -> str:
    """Return the comments and docstrings of a module."""
    text = path.read_text()
    comments = [
        token.string.rpartition(" - ")[2] if "noqa" in token.string else token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    docstrings = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return "\n".join(comments + docstrings)
