"""Tests of the integrations with frameworks, in process and with real servers."""
