"""
Becomes another user and then does what ``mcp-broker exec`` does.

Only root can, in the tour: ``sudo -u`` without needing sudo, nor that the other
user can read this Python. It refuses to stay root.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from broker.launch import stay  # noqa: F401 - it could not be read any more
from broker.launch.command import main

if __name__ == "__main__":
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    sys.exit(main(sys.argv[2:]))
