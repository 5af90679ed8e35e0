"""Benchmarks: the library's cost beside floors, the least possible costs."""
