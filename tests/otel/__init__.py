"""Tests of OpenTelemetry at the edge of the library."""
