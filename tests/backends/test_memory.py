"""What was read a moment ago: sealed, for a while, and gone when it is forgotten."""

import pickle
import time

from backends.base import Credential, Secret
from backends.memory import Memory

KEY = ("secret/app", "")
CANARY = "canary-in-memory"


def filled(*, seconds: float = 60.0) -> Memory:
    """Return a memory of one credential."""
    memory = Memory()
    memory.keep(KEY, Credential(values={"value": Secret(CANARY)}, version=3), until=time.monotonic() + seconds)
    return memory


def test_what_is_remembered_comes_back_as_it_was() -> None:
    """The fields and the version are found again."""
    found = filled().find(KEY)
    assert found is not None
    assert ({"value": CANARY}, 3) == ({name: value.expose() for name, value in found.values.items()}, found.version)


def test_what_is_remembered_is_sealed() -> None:
    """Nothing that is kept holds the value in the clear."""
    assert CANARY.encode() not in pickle.dumps(filled()._kept)  # noqa: SLF001 -- what lies in memory is the point


def test_what_is_too_old_or_forgotten_is_not_found() -> None:
    """After its time, after it is forgotten, and after all is, nothing is found."""
    forgotten, cleared = filled(), filled()
    forgotten.forget(KEY)
    cleared.clear()
    assert [None] * 4 == [each.find(KEY) for each in (filled(seconds=0.0), forgotten, cleared, Memory())]
