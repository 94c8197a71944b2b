"""The lines of keys."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.layout import DEEPEST, scan
from broker.config.problems import KeyPath


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1", ("a",), 1),
        ("\n# a = 1\na = 1", ("a",), 3),
        ("\r\n\r\na = 1\r\n", ("a",), 3),
        ("[t]\na = 1\n[u]\na = 2", ("t", "a"), 2),
        ("[t]\na = 1\n[u]\na = 2", ("u", "a"), 4),
        ("[t]\na = 1\n[u]\na = 2", ("u",), 3),
        ("\n[ a . b ]\nc = 1", ("a",), 2),
        ("\n[ a . b ]\nc = 1", ("a", "b"), 2),
        ("\n[ a . b ]\nc = 1", ("a", "b", "c"), 3),
        ("[t]\nenv.A = 'x'\nenv.B = 'y'", ("t", "env", "B"), 3),
        ("[t]\nenv.A = 'x'\nenv.B = 'y'", ("t", "env"), 2),
        ('"a b" = 1', ("a b",), 1),
        ("'a.b'.c = 1", ("a.b", "c"), 1),
        ('"\\u0061" = 1', ("a",), 1),
        ('"\\q" = 1', ("\\q",), 1),
        ("[a]\nb = [\n 1,\n 2, # three\n 3\n]", ("a", "b", 0), 3),
        ("[a]\nb = [\n 1,\n 2, # three\n 3\n]", ("a", "b", 2), 5),
        ("b = [\n 'x',\n [\n 'y' ] ]\nc = 1", ("b", 1, 0), 4),
        ("b = [\n 'x',\n [\n 'y' ] ]\nc = 1", ("c",), 5),
        ("a = { b = 1, c = { d = 2 } }\ne = 3", ("a", "c", "d"), 1),
        ("a = { b = 1, c = { d = 2 } }\ne = 3", ("e",), 2),
        ("a = [ { b = 1 },\n { b = 2 } ]", ("a", 1, "b"), 2),
        ("a = {}\nb = 1", ("b",), 2),
        ("a = []\nb = 1", ("b",), 2),
        ('a = """\nb = 1\n"""\nb = 2', ("b",), 4),
        ("a = '''\nb = 1\n'''\nb = 2", ("b",), 4),
        ('a = """x""""\nb = 2', ("b",), 2),
        ('a = """\\"""\n"""\nb = 2', ("b",), 3),
        ("a = '[x] # '\nb = 1", ("b",), 2),
        ("a = 1.5e3\nb = 1979-05-27T07:32:00Z\nc = +inf", ("c",), 3),
        ("a = 1\n", ("b",), 0),
        ("[a]\n", ("a", "b", "c"), 1),
        ("a = 1\n", (), 0),
        ("a = ]\nb = 1", ("b",), 2),
        ('a = "no end\nb = 1', ("b",), 2),
        ('a = """no end\nb = 1', ("b",), 0),
        ("a = 1 } , ]\nb = 1", ("b",), 2),
    ],
)
def test_finds_the_line(text: str, path: KeyPath, line: int) -> None:
    """Every table, key and array element has the line where it stands, or that of what is around it."""
    assert line == scan(text).line(path)


def test_knows_every_key_of_an_inline_table() -> None:
    """Keys within braces are known each by its own path."""
    expected = {("a",), ("a", "b"), ("a", "c"), ("a", "c", "d"), ("e",)}
    assert expected == set(scan("a = { b = 1, c = { d = 2 } }\ne = 3").lines)


DEEP = DEEPEST + 1


@pytest.mark.parametrize(
    "deep",
    [
        ".".join("a" * DEEP) + " = 1",
        "[" + ".".join("a" * DEEP) + "]",
        "a = " + "[" * DEEP,
        "a = " + "{ b = " * DEEP,
        "[a." + ".".join("b" * (DEEPEST - 1)) + "]\nc = 1",
    ],
)
def test_notices_depth(deep: str) -> None:
    """What is nested too deeply is noticed on its line, whatever it is made of."""
    assert deep.count("\n") + 2 == scan("\n" + deep).deep


@pytest.mark.parametrize("fine", [".".join("a" * DEEPEST) + " = 1", "a = " + "[" * DEEPEST])
def test_allows_depth_up_to_the_limit(fine: str) -> None:
    """What just fits is no reason to refuse."""
    assert None is scan(fine).deep


values = st.recursive(
    st.integers(-9, 9).map(str) | st.text(st.characters(codec="ascii", exclude_categories=["Cc"])).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",\n ".join(items) + "]")
        | st.dictionaries(st.sampled_from("abc"), inner.filter(lambda one: "\n" not in one), max_size=3).map(
            lambda rows: "{" + ", ".join(f"{key} = {value}" for key, value in rows.items()) + "}"
        )
    ),
    max_leaves=6,
)
keys = st.sampled_from(["k", '"k k"', "k-1.x", "'q'.\"r\""])
tables = st.lists(st.tuples(keys, values), unique_by=lambda pair: pair[0], max_size=4)


@given(st.lists(tables, max_size=4), st.lists(st.sampled_from(["", "# x = 1", "  "]), max_size=3))
def test_finds_every_line_of_a_valid_file(bodies: list[list[tuple[str, str]]], between: list[str]) -> None:
    """In a file of many tables, keys and nested values each key is found where it was put."""
    lines: list[str] = []
    expected: dict[KeyPath, int] = {}
    names: dict[str, KeyPath] = {"k": ("k",), '"k k"': ("k k",), "k-1.x": ("k-1", "x"), "'q'.\"r\"": ("q", "r")}
    for number, body in enumerate(bodies):
        lines += [*between, f"[t.n{number}]  # a table"]
        expected["t", f"n{number}"] = len(lines)
        for key, value in body:
            lines += f"{key} = {value}".split("\n")
            expected["t", f"n{number}", *names[key]] = len(lines) - value.count("\n")
    layout = scan("\n".join(lines))
    assert expected == {path: layout.lines.get(path) for path in expected}


@given(st.text(alphabet="ab.=[]{}\"'#,\n\\ 1é"))
def test_never_fails(text: str) -> None:
    """Any text has a layout, whose lines are lines of the text."""
    layout = scan(text)
    assert set(layout.lines.values()) <= set(range(1, text.count("\n") + 2))
