"""
A config that cannot be read for a while: its directory hangs, or may not be listed.

The hanging is real: as root, the kernel is told to ask us before anybody opens
the directory, and we do not answer. This module refuses to sleep: it waits for
what happens.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.running import ONE_SERVER, AnswerError, RunningBroker, start, until

_CLASS_CONTENT: Final = 0x04
_CLOSE_ON_EXEC: Final = 0x01
_MARK_ADD: Final = 0x01
_OPEN_PERM: Final = 0x10000
_ON_DIRECTORIES: Final = 0x40000000

USER: Final = 12345


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """Let everybody who opens this directory wait, until the block ends (fanotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    group = libc.fanotify_init(_CLASS_CONTENT | _CLOSE_ON_EXEC, os.O_RDONLY)
    if group < 0:
        raise OSError(ctypes.get_errno(), "fanotify_init")
    try:
        mask = ctypes.c_uint64(_OPEN_PERM | _ON_DIRECTORIES)
        if libc.fanotify_mark(group, _MARK_ADD, mask, -100, os.fsencode(directory)):
            raise OSError(ctypes.get_errno(), "fanotify_mark")
        yield
    finally:
        # Whoever waits is let in when nobody is left to ask.
        os.close(group)


@pytest.fixture
def parts(place: Path) -> Path:
    """Return a directory of further config files."""
    directory = place / "config" / "broker.d"
    directory.mkdir(mode=0o700, parents=True)
    directory.parent.chmod(0o700)
    return directory


def reload(broker: RunningBroker) -> str:
    """Ask for a reload; return the code of the answer."""
    try:
        broker.admin("reload")
    except AnswerError as error:
        return error.code
    return "reloaded"


@pytest.mark.root
def test_a_directory_that_hangs_holds_up_nobody(place: Path, parts: Path) -> None:
    """While the config's directory does not answer, credentials are issued, and a reload is refused in time."""
    with start(place, config=ONE_SERVER, secrets={"github": "made up"}) as broker:
        with hanging(parts), broker.connect(admin=True) as admin:
            admin.send("reload")
            issued = [broker.call("credential/issue", secret="github")["secret"] for _ in range(50)]
            answer: dict[str, Any] = admin.receive()
        found = (answer["error"]["data"]["code"], len(issued), until(lambda: healthy(broker), said="the recovery"))
        assert ("unavailable", 50, True) == found


@pytest.mark.root
@pytest.mark.parametrize("codes", [["config"], []], ids=["an admin asks", "nobody asks"])
def test_a_directory_that_may_not_be_listed_changes_nothing(place: Path, parts: Path, codes: list[str]) -> None:
    """While the config cannot be read the one in force stays, ``status`` says so, and no longer when it can be."""
    parts.parent.parent.chmod(0o711)
    with start(place, config=ONE_SERVER, secrets={"github": "made up"}, uid=USER) as broker:
        parts.chmod(0)
        found = [reload(broker) for _ in codes]
        until(lambda: not healthy(broker), said="the trouble")
        issued = broker.admin("status")["servers"]
        parts.chmod(0o700)
        assert (codes, 1, True) == (found, issued, until(lambda: healthy(broker), said="the recovery"))


def healthy(broker: RunningBroker) -> bool:
    """Return whether the broker has nothing to complain about."""
    return bool(broker.admin("status")["healthy"])
