"""OpenTelemetry at the edge of the library: one file for each way in or out."""
