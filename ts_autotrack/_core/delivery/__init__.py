"""From the buffer to ThriveStack, on the library's own threads."""
