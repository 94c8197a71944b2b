"""Real sockets, real processes, real signals."""
