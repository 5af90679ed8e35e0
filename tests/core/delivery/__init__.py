"""Tests of delivery: from a record to an answer."""
