"""The real thing: other people's MCP servers and clients, from npm and PyPI (``make live-servers``)."""
