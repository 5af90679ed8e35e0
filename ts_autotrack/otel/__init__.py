"""OpenTelemetry: spans and log events become events, by OpenTelemetry's own entry points."""
