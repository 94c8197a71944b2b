"""
What the documents say, where it can be held against the program.

Prose is not checked here: what a sentence promises has a test of its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from broker.cli.main import mcp_broker
from broker.errors import MEANINGS

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text()
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def table(header: str) -> list[str]:
    """Return the first cells of the README's table whose header begins so."""
    rows = README.split(f"\n| {header}")[1].split("\n\n")[0].splitlines()[2:]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows]


def commands(group: click.Group, *above: str) -> Iterator[str]:
    """Yield every command that can be typed, such as ``lease list``."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield " ".join([*above, name])


def test_the_readme_names_every_command_and_no_other() -> None:
    """The commands in the README's table are those that the program has."""
    named = [words.split() for cell in table("command |") for words in re.findall(r"`([^`]+)`", cell)]
    typed = {" ".join(word for word in words if re.fullmatch("[a-z]+(-[a-z]+)*", word)) for words in named}
    assert set(commands(mcp_broker)) == typed


def test_the_readme_names_every_exit_status() -> None:
    """The README's table of exit statuses has those that errors have, and success."""
    assert {0, *(meaning.exit for meaning in MEANINGS.values())} == {int(cell) for cell in table("exit status |")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Each relative link and picture in a document is there."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
    assert [] == [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench"])
def test_the_targets_that_the_readme_names_are_there(target: str) -> None:
    """What the README says to type, the Makefile has."""
    makefile = (ROOT / "Makefile").read_text()
    assert (True, True) == (f"make {target}" in README, f"\n{target}:" in makefile)
