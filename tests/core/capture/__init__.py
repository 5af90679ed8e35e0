"""Tests of capture: from a call to a record."""
