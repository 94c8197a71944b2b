"""Stand-ins that speak the real wire and implement the whole interface."""
