"""
docs/socket.md, where it can be held against the program: every verb with its path and parameters, every limit.
"""

import re
from pathlib import Path

import msgspec
import pytest

from broker.api import door, http, lines
from broker.api.verbs import ADMIN, WORKLOAD, Verb
from broker.core.model import Limits

NONE = "\N{EN DASH}"


@pytest.fixture(scope="module")
def page() -> str:
    """Return the text of the document."""
    return (Path(__file__).resolve().parents[2] / "docs" / "socket.md").read_text("utf-8")


def row(verb: Verb) -> str:
    """Return the beginning of the row that a verb has."""
    where = NONE if verb.http is None else f"`{' '.join(verb.http)}`"
    fields = [f"`{field.name}`{'' if field.required else '?'}" for field in msgspec.structs.fields(verb.params)]
    return f"| `{verb.name}` | {where} | {', '.join(fields) or NONE} | "


@pytest.mark.parametrize("name", ADMIN)
def test_every_verb_has_its_row(page: str, name: str) -> None:
    """The table has each verb with its path and its parameters."""
    assert 1 == page.count(f"\n{row(ADMIN[name])}")


def test_the_tables_have_no_other_verbs(page: str) -> None:
    """What workloads may say stands in the first table, and the rest of the verbs in the second."""
    both, admin = (
        re.findall(r"^\| `([a-z/]+)` \| (?:`[A-Z]|" + NONE + ")", part, re.MULTILINE) for part in page.split("alone;")
    )
    assert (list(WORKLOAD), [name for name in ADMIN if name not in WORKLOAD]) == (both, admin)


def test_the_limits_are_those_of_the_config(page: str) -> None:
    """Each limit stands in the document with its default."""
    rows = dict(re.findall(r"^\| `(\w+)`[^|]* \| (\d+) \|", page.split("## Limits")[1], re.MULTILINE))
    assert {name: str(getattr(Limits(), name)) for name in Limits.__slots__} == rows


def test_what_is_not_in_the_config_is_said_too(page: str) -> None:
    """The waits and counts that the document names are those of the code."""
    said = page.split("Not in the config")[1]
    assert 30.0 == door.STALLED_AFTER
    assert (64, 16, 64, 15.0) == (lines.MOST_AT_ONCE, lines.MOST_A_TURN, door.MOST_TURNED_AWAY, http.HEARTBEAT)
    assert ("64 requests" in said, "sixteen lines" in said, "64 are kept" in said, "after 15 seconds" in page) == (
        True,
    ) * 4
