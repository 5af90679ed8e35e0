"""Destinations of a batch."""
