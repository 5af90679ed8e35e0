"""Tests of capture on a CPython that was compiled to WebAssembly, by the npm package `pyodide`."""
