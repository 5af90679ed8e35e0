"""Types, read by type checkers only."""
