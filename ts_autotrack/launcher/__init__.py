"""Tracking for programs whose code is left alone: features, integrations and the user are named by settings."""
