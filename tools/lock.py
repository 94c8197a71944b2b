"""
Write the lock files: every package that `make` installs, with its version and its hashes.

One resolution holds for all supported Pythons and platforms. The files name no
index and no address, so that they work behind any mirror. This script refuses
to install anything.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HEADER: Final = "# Written by `make lock` from {source}. Do not edit.\n\n"
COMPILE: Final = (
    "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes",
    "--no-header", "--no-emit-index-url", "--no-emit-find-links",
)  # fmt: skip


def lock(name: str, source: str, *options: str) -> None:
    """Resolve what ``source`` asks for, with ``options``, and write ``requirements/NAME.txt``."""
    command = [str(Path(sys.executable).with_name("uv")), *COMPILE, source, *options]
    resolved = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own words
    (ROOT / "requirements" / f"{name}.txt").write_text(HEADER.format(source=source) + resolved.stdout)


def main() -> None:
    """
    Lock what the developer needs, then the part of it that the tour needs, at the same versions.

    The servers that the live tests run are others' programs and have a lock of their own.
    """
    lock("dev", "pyproject.toml", "--upgrade", "--extra=demo", "--extra=dev")
    lock("demo", "pyproject.toml", "--extra=demo", "--group=build", "--constraint=requirements/dev.txt")
    lock("live", "requirements/live.in", "--upgrade")


if __name__ == "__main__":
    main()
