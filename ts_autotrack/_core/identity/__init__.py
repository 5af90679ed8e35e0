"""Identity: scopes, blocks, baggage."""
