"""Tests of OpenTelemetry, both ways."""
