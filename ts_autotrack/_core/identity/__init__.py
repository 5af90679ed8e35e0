"""Who is acting: scopes, blocks, baggage."""
