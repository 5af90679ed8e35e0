"""Tests of the transports: HTTP, console and JSON lines."""
