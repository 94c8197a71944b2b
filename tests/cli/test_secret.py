"""``secret``: values come in by terminal, stdin, file and JSON, and by no other way; none comes out."""

from pathlib import Path

import pytest

from tests.cli.conftest import CANARY
from tests.cli.shell import Done, shell, terminal
from tests.running import RunningBroker


def stored(where: list[str], name: str, broker: RunningBroker) -> dict[str, str]:
    """Return what the broker has stored under a name, by way of a server that is granted it."""
    broker.write_config(f'[servers.s]\nallow = ["{name}"]\n')
    shell("reload", *where)
    found: dict[str, str] = shell("get", name, "--format", "json", *where).json["values"]
    return found


def test_stdin_is_the_value_less_one_newline(broker: RunningBroker, where: list[str]) -> None:
    """One final newline is dropped, others are part of the value."""
    done = shell("secret", "set", "a", *where, send="one\ntwo\n\n")
    assert (0, "a is stored in local, version 1\n") == (done.status, done.out)
    assert {"value": "one\ntwo\n"} == stored(where, "a", broker)


def test_a_field_can_be_named(broker: RunningBroker, where: list[str]) -> None:
    """The value goes to the field that was named."""
    shell("secret", "set", "b", "password", *where, send="x")
    assert {"password": "x"} == stored(where, "b", broker)


def test_a_file_is_taken_to_the_last_byte(broker: RunningBroker, where: list[str], tmp_path: Path) -> None:
    """A file's final newline is kept, and where it may be a mistake that is said."""
    (tmp_path / "key").write_text("-----BEGIN-----\nä\n-----END-----\n")
    (tmp_path / "token").write_text("t\n")
    assert "" == shell("secret", "set", "c", "--file", str(tmp_path / "key"), *where).err
    assert {"value": "-----BEGIN-----\nä\n-----END-----\n"} == stored(where, "c", broker)
    assert shell("secret", "set", "d", "--file", str(tmp_path / "token"), *where).err.startswith("note: the file ends")


def test_json_brings_several_fields(broker: RunningBroker, where: list[str]) -> None:
    """An object of texts on stdin is stored field by field."""
    shell("secret", "set", "e", "--json", *where, send='{"username": "u", "password": "p\\n"}')
    assert {"username": "u", "password": "p\n"} == stored(where, "e", broker)


def test_a_terminal_asks_for_each_field_and_shows_none(broker: RunningBroker, where: list[str]) -> None:
    """What is typed is stored and is not on the screen."""
    typed = {"f, username:": "canary-user", "f, password:": "canary-password"}
    done = terminal("secret", "set", "f", "username", "password", *where, typed=typed)
    assert (0, False, True) == (done.status, "canary" in done.out, "f is stored in local" in done.out)
    assert {"username": "canary-user", "password": "canary-password"} == stored(where, "f", broker)


@pytest.mark.parametrize(
    ("words", "send", "says"),
    [
        (["n=canary-1"], "", "does not belong on the command line"),
        (["n", "token=canary-1"], "", "does not belong on the command line"),
        (["n", "ghp_canary1Abcdefghijklmnopqrstuvwxyz01"], "", "does not belong on the command line"),
        (["n"], "", "the value is empty"),
        (["n"], "\n", "the value is empty"),
        (["n"], b"\xffcanary-1", "not text in UTF-8"),
        (["n", "a", "b"], "canary-1", "several fields were named"),
        (["n", "--json"], "canary-1", "not JSON"),
        (["n", "--json"], '{"a": {"canary-1": 1}}', "not an object of texts"),
        (["n", "--json"], '["canary-1"]', "not an object of texts"),
        (["n", "--json"], "{}", "not an object of texts"),
        (["n", "--json"], '{"a": ""}', "the value of 'a' is empty"),
        (["n", "--json"], '{"no such name!": "canary-1"}', "mcp-broker: "),
        (["n", "--json", "a"], "{}", "brings its own fields"),
        (["n", "--file", "/nowhere/f"], "", "/nowhere/f: no such file"),
        (["n", "--file", "/dev/null"], "", "the value is empty"),
        (["n", "a", "b", "--file", "/dev/null"], "", "a file is the value of one field"),
        (["bad name"], "canary-1", "mcp-broker: "),
        (["n", "--backend", "nosuch"], "canary-1", "mcp-broker: "),
    ],
)
def test_what_is_no_value_is_refused_and_not_repeated(
    where: list[str], words: list[str], send: str | bytes, says: str
) -> None:
    """A mistake ends with a sentence and a non-zero status, and without the value in any output."""
    done = shell("secret", "set", *words, *where, send=send)
    assert (True, "", True, False) == (done.status in {2, 3, 78}, done.out, says in done.err, "canary" in done.err)


def test_a_value_on_the_command_line_is_explained(where: list[str]) -> None:
    """Who puts a value on the command line hears where it now is and what to do."""
    done = shell("secret", "set", "github=canary-1", *where)
    assert ("shell's history" in done.err, "hint: " in done.err, "mcp-broker secret set github" in done.err) == (
        True,
        True,
        True,
    )


def test_the_list_and_the_versions_show_no_value(where: list[str]) -> None:
    """Names, fields and versions are shown, values are not."""
    shell("secret", "set", "g", *where, send="canary-1")
    shell("secret", "set", "g", *where, send="canary-2")
    done = [shell("secret", *words, *where) for words in (["list"], ["versions", "g"])]
    assert [0, 0] == [each.status for each in done]
    assert not any("canary" in each.out + each.err for each in done)
    versions = shell("secret", "versions", "g", "--json", *where).json["versions"]
    assert [(2, True), (1, False)] == [(each["number"], each["current"]) for each in versions]


def test_rm_asks_before_it_removes(where: list[str]) -> None:
    """Without a terminal and without --yes nothing is removed; a no removes nothing either; a yes does."""
    shell("secret", "set", "h", *where, send="x")
    assert (2, "needs a yes") == _ended(shell("secret", "rm", "h", *where), "needs a yes")
    refused = terminal("secret", "rm", "h", *where, typed={"[y/N]": "n"})
    assert (1, "stopped before") == _ended(refused, "stopped before")
    names = {each["name"] for each in shell("secret", "list", "--json", *where).json["secrets"]}
    assert "h" in names
    assert "h is removed\n" == shell("secret", "rm", "h", "--yes", *where).out
    assert 0 != shell("secret", "versions", "h", *where).status


def _ended(done: Done, says: str) -> tuple[int, str]:
    return done.status, says if says in done.out + done.err else done.out + done.err


def test_the_list_says_who_gets_what(where: list[str], broker: RunningBroker) -> None:
    """Each secret's row names the servers that are granted it."""
    broker.write_config('[servers.s1]\nallow = ["github"]\n[servers.s2]\ncommand = ["true"]\nenv.T = "{github}"\n')
    shell("reload", *where)
    rows = shell("secret", "list", "--json", *where).json["secrets"]
    assert [["s1", "s2"]] == [each["servers"] for each in rows if each["name"] == "github"]
    assert CANARY not in shell("secret", "list", *where).out
