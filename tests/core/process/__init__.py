"""Tests of the process: its forks and ends."""
