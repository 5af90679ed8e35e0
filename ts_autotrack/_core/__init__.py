"""The engine. Nothing outside this package imports it."""
