"""
MCP clients: what each wants to be told to start a server through us.

This package refuses to write their files: it prints what belongs there.
"""
