"""From a call to a record in the buffer."""
