// Runs pytest in CPython compiled to WebAssembly. Arguments: the folder of the npm package pyodide, the folder of the
// installed Python packages, the project, and pytest's own arguments.
const [pyodide, packages, project, ...words] = process.argv.slice(2);
const { loadPyodide } = await import(`${pyodide}/pyodide.mjs`);
const python = await loadPyodide({ env: { HOME: "/home", PYTHONDONTWRITEBYTECODE: "1" } });
python.mountNodeFS("/packages", packages);
python.mountNodeFS("/project", project);
python.globals.set("words", python.toPy(words));
try {
  process.exitCode = python.runPython(`
import sys
sys.path[:0] = ["/project", "/project/tests/wasm/stand_ins", "/packages"]
from tests.wasm.plugin import main
main(words)
`);
} catch (error) {
  console.error(error.message); // alone: node would show the compiled interpreter, a line of a megabyte
  process.exitCode = 1;
}
