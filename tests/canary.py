"""
A value that is made to be found: every form in which it may have escaped, and places to look.

It never shows the value: what is found is named by its place and its form.
"""

import base64
import json
import os
import secrets
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from backends.base import Secret

_TAIL: Final = '"\\/é '
"""Characters that each encoding treats in a way of its own."""


def made_up() -> Secret:
    """Return a value that stands nowhere else, with characters that every encoding changes."""
    return Secret(f"canary-{secrets.token_hex(16)}{_TAIL}{secrets.token_hex(8)}")


def forms(canary: Secret) -> Mapping[str, bytes]:
    """Return what to search for, by the name of the encoding."""
    value = canary.expose()
    raw = value.encode()
    plain = raw[: raw.index(b'"')]
    once = json.dumps(value, ensure_ascii=False)[1:-1]
    found = {
        "as it is": raw,
        "its plain part": plain,
        "JSON": once.encode(),
        "JSON in JSON": json.dumps(once, ensure_ascii=False)[1:-1].encode(),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "URL": urllib.parse.quote(value, safe="").encode(),
    }
    for skipped in range(3):
        # Whatever stands before it shifts base64 by one of three steps; the first and last characters depend on that.
        text = base64.b64encode(b"\0" * skipped + plain)
        found[f"base64, shifted by {skipped}"] = text[4 if skipped else 0 : len(text) // 4 * 4 - 4]
    return found


def in_bytes(canary: Secret, content: bytes) -> list[str]:
    """Return the forms that stand in ``content``."""
    return [name for name, form in forms(canary).items() if form in content]


def in_files(canary: Secret, directories: Iterable[Path]) -> list[str]:
    """Return each file below the directories that holds a form of it, and which."""
    found = []
    for directory in directories:
        for path in directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found += [f"{path.name}: {form}" for form in in_bytes(canary, path.read_bytes())]
    return found


def in_processes(canary: Secret, *, allowed: Iterable[int] = ()) -> list[str]:
    """Return each process whose arguments or environment hold a form of it, but for those that may."""
    found = []
    may = {str(pid) for pid in (*allowed, os.getpid())}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name in may:
            continue
        for place in ("cmdline", "environ"):
            try:
                content = (process / place).read_bytes()
            except OSError:
                continue  # it has ended, or is nobody's to read, which is as good
            found += [f"{process.name}/{place}: {form}" for form in in_bytes(canary, content)]
    return found
