"""
``mcp-broker``, also as ``python -m broker``: ``exec``, or one of the other commands.

A client waits for ``exec``, so nothing that only the others need is loaded for
it. This module refuses to look for imports where the caller happens to stand.
"""

import os
import sys


def shut_off(paths: list[str], root: str) -> list[str]:
    """
    Return ``paths`` without what the caller put there, and with ``root``, where we are ourselves.

    Python looks in the current directory and in PYTHONPATH first, unless it is
    told not to, as our launcher does.
    """
    foreign = {"", os.getcwd(), *(os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep))}
    return [*(path for path in paths if path not in foreign and path != root), root]


def main(words: list[str]) -> int:
    """Run one command; return its exit status."""
    if words[:1] == ["exec"]:
        from broker.launch.command import main as become  # noqa: PLC0415 - only this, and only here

        return become(words[1:])
    from broker.cli.main import main as run  # noqa: PLC0415 - `exec` must not wait for it

    return run(words)


if __name__ == "__main__":
    if not sys.flags.isolated:
        sys.path[:] = shut_off(sys.path, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.exit(main(sys.argv[1:]))
