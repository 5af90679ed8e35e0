"""The event queue on disk."""
