"""The guided tour, run as a newcomer runs it."""
