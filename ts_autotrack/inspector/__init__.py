"""A local server that speaks ThriveStack's contract: everything runs on it without an account."""
