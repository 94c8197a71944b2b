"""Templates."""

import base64
import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Secret
from broker.config.template import LONGEST_VARIABLE, Reference, Template, TemplateError, parse
from broker.errors import ConfigError

BRACES = "write {{ and }} for braces that are no reference"
NO_REFERENCE = f"write {{name}} or {{name.field}}, without spaces; {BRACES}"

VALUES = {
    "github": {"value": Secret("ghp_1")},
    "db": {"username": Secret("joe"), "password": Secret("p@ss/word")},
    "one": {"token": Secret("t")},
    "both": {"value": Secret("v"), "other": Secret("o")},
    "empty": {"value": Secret("")},
    "nothing": {},
    "nul": {"value": Secret("a\0b")},
    "pem": {"value": Secret("-----\nline\n-----\n")},
    "odd": {"value": Secret('"\\\n é')},
    "broken": {"value": Secret("\ud800")},
}


def rendered(text: str, variable: str | None = "VAR") -> str:
    """Return the value of a template."""
    return parse(text, variable=variable).render(VALUES).expose()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("{github}", (Reference(secret="github"),)),
        ("Bearer {github}!", ("Bearer ", Reference(secret="github"), "!")),
        ("{db.password|url}", (Reference(secret="db", field="password", filters=("url",)),)),
        ("{a|json|base64}", (Reference(secret="a", filters=("json", "base64")),)),
        ("{a.b.c}", (Reference(secret="a", field="b.c"),)),
        ("{a}{b}", (Reference(secret="a"), Reference(secret="b"))),
        ("{{}}", ("{}",)),
        ("{{{a}}}", ("{", Reference(secret="a"), "}")),
        ('{{"k": "{a|json}"}}', ('{"k": "', Reference(secret="a", filters=("json",)), '"}')),
    ],
)
def test_reads_templates(text: str, expected: tuple[str | Reference, ...]) -> None:
    """References, filters and doubled braces are told apart."""
    assert expected == parse(text).parts


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{", "a single brace at character 1", BRACES),
        ("a}", "a single brace at character 2", BRACES),
        ("{a}}", "a single brace at character 4", BRACES),
        ("{a{b}", "a single brace at character 1", BRACES),
        ("{}", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("{ a }", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("{.a}", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("{a.}", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("x{a.b c}", "what stands in braces at character 2 is no reference to a secret", NO_REFERENCE),
        ("{-a}", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("{a\n}", "what stands in braces at character 1 is no reference to a secret", NO_REFERENCE),
        ("{a|}", "an unknown filter in the reference at character 1", "the filters are |url, |json, |base64"),
        ("{a|hex}", "an unknown filter in the reference at character 1", "the filters are |url, |json, |base64"),
        ("{a|url |json}", "an unknown filter in the reference at character 1", "the filters are |url, |json, |base64"),
    ],
)
def test_refuses_what_is_no_template(text: str, message: str, hint: str) -> None:
    """A mistake is named by its character, and the text is not quoted."""
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert (message, hint) == (caught.value.message, caught.value.hint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain {{}}", "plain {}"),
        ("{github}", "ghp_1"),
        ("{both}", "v"),
        ("{both.other}", "o"),
        ("{one.token}", "t"),
        ("postgresql://{db.username|url}:{db.password|url}@db", "postgresql://joe:p%40ss%2Fword@db"),
        ("{odd|json}", '\\"\\\\\\n \\u00e9'),
        ("{odd|url}", "%22%5C%0A%20%C3%A9"),
        ("{odd|base64}", base64.b64encode('"\\\n é'.encode()).decode()),
        ("{pem}", "-----\nline\n-----\n"),
        ("{nul|base64}", "YQBi"),
        ("{broken|json}", "\\ud800"),
        ("only {one}", "only " + VALUES["one"]["token"].expose()),
    ],
)
def test_renders(text: str, expected: str) -> None:
    """Values stand where their references stood, filtered; line breaks may be in a variable."""
    assert expected == rendered(text)


def test_result_is_a_secret() -> None:
    """What is rendered does not show itself."""
    assert "<secret>" == repr(parse("x{github}").render(VALUES))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{db}", 'secret "db" has several fields, say which: password, username', "write {db.password}"),
        (
            "{db.user}",
            'secret "db" has no field "user"; it has: password, username',
            "mcp-broker secret set db password user username",
        ),
        ("{nothing}", 'secret "nothing" has no value', "mcp-broker secret set nothing"),
        ("{absent}", 'secret "absent" has no value', "mcp-broker secret set absent"),
        ("{absent.user}", 'secret "absent" has no field "user"', "mcp-broker secret set absent user"),
        ("{empty}", 'field "value" of secret "empty" is empty', "mcp-broker secret set empty"),
        (
            "{nul}",
            "VAR would hold a NUL character, and an environment cannot",
            "write it to a file instead, files.VAR, or use the filter |base64",
        ),
        (
            "{broken}",
            "a value is not Unicode text, of one of these secrets: broken",
            "store what is not text in base64",
        ),
        (
            "{broken|url}",
            "a value is not Unicode text, of one of these secrets: broken",
            "store what is not text in base64",
        ),
    ],
)
def test_refuses_to_render_without_a_value(text: str, message: str, hint: str) -> None:
    """What is missing, empty or impossible is an error with the command that mends it, never an empty string."""
    with pytest.raises(ConfigError) as caught:
        rendered(text)
    assert (message, hint) == (caught.value.message, caught.value.hint)


def test_error_carries_no_value_along() -> None:
    """The encoding's own error, which holds the value, is neither cause nor context of ours."""
    with pytest.raises(ConfigError) as caught:
        rendered("{broken}")
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


def test_file_may_hold_nul() -> None:
    """A file takes what a variable cannot."""
    assert "a\0b" == rendered("{nul}", None)


@pytest.mark.parametrize(("length", "fits"), [(LONGEST_VARIABLE - 3, True), (LONGEST_VARIABLE - 2, False)])
def test_variable_has_the_length_that_linux_allows(*, length: int, fits: bool) -> None:
    """A variable, its name, the equals sign and the final NUL fit into what execve takes, or it is refused."""
    values = {"long": {"value": Secret("x" * length)}}
    try:
        size = len(parse("{long}", variable="V").render(values).expose())
    except ConfigError:
        size = 0
    assert (length if fits else 0) == size


def test_long_value_fits_into_a_file() -> None:
    """A file has no such limit."""
    values = {"long": {"value": Secret("x" * LONGEST_VARIABLE)}}
    assert LONGEST_VARIABLE == len(parse("{long}").render(values).expose())


def test_names_what_it_needs() -> None:
    """A template lists its secrets and fields for the policy."""
    template = parse("{a}{b.c|url}{b.c}{b.d}x")
    assert {("a", None), ("b", "c"), ("b", "d")} == template.references
    assert {"a", "b"} == template.secrets


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,10}", fullmatch=True)
fields = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}", fullmatch=True)
references = st.builds(
    Reference,
    secret=names,
    field=st.none() | fields,
    filters=st.lists(st.sampled_from(["url", "json", "base64"]), max_size=3).map(tuple),
)


def joined(parts: list[str | Reference]) -> tuple[str | Reference, ...]:
    """Return the parts with neighbouring text made one, as a parser sees it."""
    result: list[str | Reference] = []
    for part in parts:
        if isinstance(part, str) and result and isinstance(result[-1], str):
            result[-1] += part
        elif part:
            result.append(part)
    return tuple(result)


@given(st.lists(st.text() | references))
def test_reads_back_its_own_source(parts: list[str | Reference]) -> None:
    """Every template, written out and read again, is itself."""
    template = Template(parts=joined(parts))
    assert template == parse(template.source)


@given(st.text(alphabet="{}|.ab \n", max_size=30))
def test_never_raises_anything_but_its_error(text: str) -> None:
    """Any text is a template that writes itself out again, or a ``TemplateError``."""
    try:
        template = parse(text)
    except TemplateError:
        return
    assert text == template.source


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(plain)
def test_url_filter_can_be_undone(value: str) -> None:
    """What ``|url`` made is the value again for a URL parser, and has no character with a meaning in it."""
    text = parse("{a|url}").render({"a": {"value": Secret(value)}}).expose()
    assert value == unquote(text)
    assert not set(text) & set(":/?#[]@!$&'()*+,;= ")


@given(plain)
def test_json_filter_can_be_undone(value: str) -> None:
    """What ``|json`` made is the value again inside of a JSON string."""
    assert value == json.loads(parse('"{a|json}"').render({"a": {"value": Secret(value)}}).expose())


@given(plain)
def test_base64_filter_can_be_undone(value: str) -> None:
    """What ``|base64`` made is the value's UTF-8."""
    text = parse("{a|base64}").render({"a": {"value": Secret(value)}}).expose()
    assert value == base64.b64decode(text, validate=True).decode()
