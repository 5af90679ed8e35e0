"""Tests of OpenTelemetry's part."""
