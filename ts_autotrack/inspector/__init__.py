"""A local server with ThriveStack's contract, for development and tests without an account."""
