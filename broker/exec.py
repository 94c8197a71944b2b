"""
Become an MCP server that has its credentials: ``mcp-broker exec NAME``.

A client starts this file and waits for it. It asks the broker what the server
needs, builds a new environment and becomes the server by ``execve``: no process
stays in between, and the leases hang on the server's own pid. All of that is in
``broker.launch``, which Python keeps compiled; a file that is run by its path is
compiled each time, so this one is short.

This module refuses to look for imports where the client happens to stand.
"""

import sys

if __name__ == "__main__":
    # A `json.py` or a `broker/` in the client's directory or in PYTHONPATH must not be run: the library, and us.
    _LIBRARY = f"{sys.base_prefix}/{sys.platlibdir}/python{sys.version_info[0]}.{sys.version_info[1]}"
    sys.path[:] = [entry for entry in sys.path if entry in {_LIBRARY, f"{_LIBRARY}/lib-dynload"}]
    import os

    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from broker.launch.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
