"""Tests of OpenTelemetry on both sides: baggage between services, and traces."""
