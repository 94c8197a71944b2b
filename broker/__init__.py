"""
mcp-secrets-broker: short-lived credentials for MCP servers, on demand, on record.

The rooms and which of them may know which are in ``docs/architecture.md``;
``tests/test_architecture.py`` reads the imports and fails on a breach.
"""

__version__ = "0.1.0"
