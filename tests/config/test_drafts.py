"""A server's table goes into a file and out of it again, and nothing else changes."""

import tomllib

import pytest

from broker.config.drafts import Wanted, added, removed

WANTED = Wanted(name="b.c", command=["x", 'quote " and \x7f'], env={"A": "{s}"}, kept={"s": "desktop"})
PATHS = [("servers", "b.c"), ("secrets", "s")]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# a comment alone\n",
        '[servers.a]\ncommand = ["a"]\n',
        '[servers.a]\ncommand = [\n  ["a"]\n]\n# the end',
        "x = '''\n[servers.b.c]\n'''\n",
        "[secrets.t]\n\n# about the next\n[servers.a]\n",
    ],
)
def test_what_was_added_can_be_removed(before: str) -> None:
    """The table means what was wanted, and without it the file is what it was but for blank lines at its end."""
    text = added(before, WANTED)
    rows = tomllib.loads(text)
    assert {"command": list(WANTED.command), "env": {"A": "{s}"}} == rows["servers"]["b.c"]
    assert before.rstrip() == (removed(text, PATHS) or "").rstrip()


def test_a_comment_belongs_to_what_stands_below() -> None:
    """What leads the next table stays with it."""
    text = '[servers.a]\ncommand = ["a"]\n# mine\nallow = []\n\n# next\n[servers.b]\n'
    assert "# next\n[servers.b]\n" == (removed(text, [("servers", "a")]) or "").lstrip()


@pytest.mark.parametrize(
    "text", ['servers = { a = { command = ["a"] } }\n', '[servers]\na.command = ["a"]\n', "[servers]\na = {}\nb = {}\n"]
)
def test_what_cannot_be_cut_is_left(text: str) -> None:
    """A table that is written in another way is for its owner to remove."""
    assert None is removed(text, [("servers", "a")])
