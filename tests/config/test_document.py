"""One file as TOML, and what is said of a broken one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.document import parse
from broker.config.problems import InvalidConfigError

FILE = Path("broker.toml")
CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nwords", "2: a key without = and a value behind it (at the end of the file)"),
        ("words\n", "1: a key without = and a value behind it (column 6)"),
        ("\n\n= 1", "3: neither a [table], nor a key = value, nor a # comment (column 1)"),
        ("a.!b = 1", "1: a key must be letters, digits, - and _, or stand in quotes (column 3)"),
        ("[a", "1: a table's name must end with ] (at the end of the file)"),
        ("a = 1 b = 2", "1: something more behind a value; is a quote or a comma missing (column 7)"),
        ("a = hunter2-canary", "1: no TOML value; text needs quotes (column 5)"),
        ("a = 2026-02-30", "1: no such date or time (column 5)"),
        ("[a]\n[a]", "2: this table stands in the file before (column 3)"),
        ("a = 1\na = 2", "2: this key stands in the file before (at the end of the file)"),
        ("a = 1\n[a]\n", "2: this key stands in the file before (column 3)"),
        ("[a.b]\n[a]\nb.c = 1\n", "3: this table stands in the file before (column 8)"),
        ("a = {}\n[a.b]\n", "2: this table stands in the file before (column 5)"),
        ("a = {}\na.b = 1\n", "2: what stands in { } or [ ] cannot be added to later (column 8)"),
        ("a = { b = 1, b = 2 }", "1: this key stands in the same { } before (column 19)"),
        ("a = [1, 2", "1: an array without its ] (at the end of the file)"),
        (
            "a = { b = 1",
            "1: an inline table without its }; in TOML 1.0 it must stand on one line (at the end of the file)",
        ),
        ('a = "\\q"', "1: a backslash that is no escape; write \\\\ or use 'single quotes' (column 8)"),
        ('a = "\\u00zz"', "1: no hexadecimal digits behind \\u or \\U (column 8)"),
        ('a = "\\ud800"', "1: no character has this number (column 12)"),
        ('a = "hunter2-canary', "1: text without its closing quote (at the end of the file)"),
        (
            'a = "hunter2-canary\n"',
            "1: a character that may not stand there; is a quote missing before the end of the line (column 20)",
        ),
        ("# \x01\n", "1: a character that may not stand there (column 3)"),
        (f"a = {'9' * 5000}", " a number with too many digits"),
        ("\na = " + "[" * 100000, "2: nested more than 32 levels deep"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, expected: str) -> None:
    """A broken file is refused in our words, with line and column, and nothing of it is quoted."""
    with pytest.raises(InvalidConfigError) as caught:
        parse(text, FILE)
    assert f"broker.toml:{expected}" == caught.value.message
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("text", [f"a = {CANARY}", f'a = "{CANARY}', f"[{CANARY}]\n[{CANARY}]", f"{CANARY}"])
def test_error_carries_nothing_of_the_file_along(text: str) -> None:
    """The parser's own error, which may hold the whole file, is neither cause nor context of ours."""
    with pytest.raises(InvalidConfigError) as caught:
        parse(text, FILE)
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    assert CANARY not in str(caught.value)


def test_knows_where_things_are() -> None:
    """A table's place is its file and line."""
    assert "broker.toml:3" == str(parse("[a]\n\n[b]\n", FILE).where(("b",)))


@given(st.text() | st.text(alphabet="ab.=[]{}\"'#,\n\\ 1é-:TZ"))
def test_never_raises_anything_else(text: str) -> None:
    """Any text is a document or an error that says so."""
    try:
        found = [parse(text, FILE).where(())]
    except InvalidConfigError as error:
        found = [problem.where for problem in error.problems]
    assert {FILE} == {where.file for where in found}
