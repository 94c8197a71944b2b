"""Command sessions, run against the command as the wheel installs it."""
