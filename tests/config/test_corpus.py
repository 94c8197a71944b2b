"""The fuzzer's corpus, replayed without the fuzzer."""

from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.fuzz_config import one_mode

CORPUS: Final = sorted((Path(__file__).parent.parent / "fuzz/corpus/config").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_every_input_keeps_the_promises(path: Path) -> None:
    """An input that was worth keeping breaks nothing, and is what its name says: a good config or a bad one."""
    expected = path.name.startswith("good-")
    assert expected == one_mode(path.read_bytes(), "user")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_system_mode_is_never_more_generous(path: Path) -> None:
    """A config that is bad for a user is bad for the system as well."""
    raw = path.read_bytes()
    assert one_mode(raw, "user") >= one_mode(raw, "system")
