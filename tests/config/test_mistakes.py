"""Mistakes in a config, and what is said of each."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.problems import MOST, InvalidConfigError, Problem
from tests.config.build import config, problems

NO_UNIT = (
    "no selector names a unit, so any program of a user would get its secrets "
    '(selectors = ["unit:NAME.service"], or a user selector with unsafe_user_selector = true)'
)


@pytest.mark.parametrize(
    "text",
    [
        "[servers.a]",
        "[servers.a]\nselectors = ['uid:5']",
        "[servers.a]\nunsafe_user_selector = true",
        "[servers.a]\nselectors = ['uid:5']\nunsafe_user_selector = false",
    ],
)
def test_system_mode_needs_a_unit(text: str) -> None:
    """In system mode a server without a unit is refused, also with the switch alone."""
    assert [f"broker.toml:1: servers.a: {NO_UNIT}"] == problems(text, mode="system")


def test_system_mode_tells_one_mistake_once() -> None:
    """Where the selectors are wrong in themselves nothing more is said of them, here and in what is like it."""
    text = "[servers.a]\nselectors = ['unit:a']\n[servers.b]\nlike = 'a'"
    hint = "write unit:NAME.service, or unit:NAME@.service for all instances"
    expected = f"broker.toml:2: servers.a.selectors[0]: the name is none of a service unit ({hint})"
    assert [expected] == problems(text, mode="system")


KEYS = "allow, client_args, command, env, files, like, pass_env, selectors, unsafe_user_selector"
BRACES = "write {{ and }} for braces that are no reference"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "autostrat = true",
            (
                '1: autostrat: unknown key, the nearest known one is "autostart" '
                "(known here: audit, autostart, backends, limits, notify, secrets, servers)"
            ),
        ),
        ("[mcpServers.a]", "1: mcpServers: unknown key (servers stand in tables: [servers.NAME])"),
        ("autostart = 1", "1: autostart: must be true or false, not a whole number"),
        ("servers = 1", "1: servers: must be a table, not a whole number"),
        ("[[servers]]", "1: servers: must be a table, not an array"),
        ("[servers]\na = 'x'", "2: servers.a: must be a table, not text"),
        (
            "[servers.'a b']",
            "1: servers.'a b': a name must be letters, digits, -, _ and ., and begin with a letter or digit",
        ),
        (
            '[servers."\\u001b[2J"]',
            "1: servers.'\\x1b[2J': a name must be letters, digits, -, _ and ., and begin with a letter or digit",
        ),
        (
            "[secrets.'a.b']",
            "1: secrets.'a.b': a name must be letters, digits, - and _, and begin with a letter or digit",
        ),
        (
            "[servers.a]\nComand = ['x']",
            f'2: servers.a.Comand: unknown key, the nearest known one is "command" (known here: {KEYS})',
        ),
        (f"[servers.a]\n{'x' * 200} = 1", f"2: servers.a.{'x' * 64!a}: unknown key (known here: {KEYS})"),
        (
            "[servers.a]\nargs = ['x']",
            (
                "2: servers.a.args: unknown key (arguments stand in command, behind the program: "
                'command = ["program", "argument"])'
            ),
        ),
        (
            "[servers.a]\ncommand = 'npx x'",
            '2: servers.a.command: must be an array, not text (write it as an array, one element per word: ["…", "…"])',
        ),
        ("[servers.a]\ncommand = 1", "2: servers.a.command: must be an array, not a whole number"),
        (
            "[servers.a]\ncommand = ['x',\n1.5]",
            "3: servers.a.command[1]: must be text, not a number (write it in quotes)",
        ),
        (
            "[servers.a]\ncommand = []",
            "2: servers.a.command: names no program (leave it out for an entry that only grants to scripts)",
        ),
        (
            "[servers.a]\ncommand = ['']",
            "2: servers.a.command: names no program (leave it out for an entry that only grants to scripts)",
        ),
        ('[servers.a]\ncommand = ["a\\u0000"]', "2: servers.a.command[0]: text with a NUL character"),
        (
            "[servers.a]\nselectors = []",
            "2: servers.a.selectors: an empty list holds for nobody (leave it out, or name a selector)",
        ),
        ("[servers.a]\nenv = 'x'", "2: servers.a.env: must be a table, not text"),
        (
            "[servers.a]\nenv.A = 1979-05-27",
            "2: servers.a.env.A: must be text, not a date or time (write it in quotes)",
        ),
        ("[servers.a]\nenv.A.B = 'x'", "2: servers.a.env.A: must be text, not a table (write it in quotes)"),
        ('[servers.a]\nenv.A = "a\\u0000"', "2: servers.a.env.A: text with a NUL character"),
        ("[servers.a]\nenv.'A=B' = 'x'", "2: servers.a.env.'A=B': not the name of a variable"),
        ("[servers.a]\nenv.A = '{'", f"2: servers.a.env.A: a single brace at character 1 ({BRACES})"),
        ("[servers.a]\nenv.A = 'x'\nfiles.A = 'y'", "3: servers.a.files.A: stands in env as well"),
        (
            "[servers.a]\npass_env = ['A?']",
            "2: servers.a.pass_env[0]: not the name of a variable, with * for any characters",
        ),
        (
            "[servers.a]\npass_env = ['']",
            "2: servers.a.pass_env[0]: not the name of a variable, with * for any characters",
        ),
        ("[servers.a]\nallow = ['a.b']", "2: servers.a.allow[0]: not the name of a secret"),
        (
            "[servers.github]\nlike = 'githup'",
            (
                '2: servers.github.like: there is no such server, the nearest known one is "github" '
                "(like names another server of this config)"
            ),
        ),
        ("[servers.a]\nlike = 'a'", "2: servers.a.like: leads back to this server"),
        ("[servers.a]\nlike = ''", "2: servers.a.like: must not be empty"),
        ('[secrets.a]\npath = "\\u001b"', "2: secrets.a.path: must not have control characters"),
        ("[secrets.a]\npath = 1", "2: secrets.a.path: must be text, not a whole number (write it in quotes)"),
        (
            "[secrets.a]\nttl = '1 h'",
            "2: secrets.a.ttl: not a length of time: write 90s, 10m, 1h30m, 30d, or a number of seconds",
        ),
        ("[secrets.a]\nttl = 0", "2: secrets.a.ttl: must be at least 1s"),
        (
            "[secrets.a]\nttl = true",
            "2: secrets.a.ttl: not a length of time: write 90s, 10m, 1h30m, 30d, or a number of seconds",
        ),
        ("[secrets.a]\nstale = -1", "2: secrets.a.stale: a length of time must be between 0 and ten years"),
        (
            "[secrets.a]\nvalue = 'x'",
            "2: secrets.a.value: unknown key (no secret stands in the config: mcp-broker secret set NAME)",
        ),
        ("[secrets.a]\nparams = 1", "2: secrets.a.params: must be a table, not a whole number"),
        (
            "[secrets.a]\nbackend = 'lokal'",
            '2: secrets.a.backend: there is no such backend, the nearest known one is "local" (there are: local)',
        ),
        ("[secrets.a]\nrotate = '30d'", "2: secrets.a.rotate: must be a table, not text"),
        (
            "[secrets.a]\nrotate = {}",
            '2: secrets.a.rotate: says neither when nor how (every = "30d", with = ["PROGRAM"], or both)',
        ),
        ("[secrets.a]\nrotate = { every = '1s' }", "2: secrets.a.rotate.every: must be at least 1m"),
        ("[secrets.a]\nrotate = { with = [] }", "2: secrets.a.rotate.with: names no program"),
        (
            "[secrets.a]\nrotate = { with = ['x'], evry = 1 }",
            (
                '2: secrets.a.rotate.evry: unknown key, the nearest known one is "every" '
                "(known here: cron, every, generate, grace, jitter, max_age, oauth2, timezone, window, with)"
            ),
        ),
        (
            "[backends.a]\ntype = 'valt'",
            (
                '2: backends.a.type: there is no such type of backend, the nearest known one is "vault" '
                "(known here: keyring, sealed, vault)"
            ),
        ),
        ("[backends.a]\naddress = 'x'", '1: backends.a: has no type (type = "vault", for one)'),
        ("[backends.a]\ntype = 5", "2: backends.a.type: must be text, not a whole number (write it in quotes)"),
        (
            "[backends.local]\ntype = 'vault'",
            '2: backends.local.type: the backend "local" is always the sealed store (give it another name)',
        ),
        (
            "[limits]\nconnection = 1",
            (
                '2: limits.connection: unknown key, the nearest known one is "connections" '
                "(known here: connections, leases, message_bytes, requests_per_second)"
            ),
        ),
        ("[limits]\nleases = -1", "2: limits.leases: must be between 0 and 2147483647"),
        ("[limits]\nleases = 2147483648", "2: limits.leases: must be between 0 and 2147483647"),
        ("[limits]\nleases = true", "2: limits.leases: must be a whole number, not true or false"),
        (
            "[limits]\nmessage_bytes = 1023",
            "2: limits.message_bytes: must be 0 or at least 1024, or no request fits in",
        ),
    ],
)
def test_names_file_line_key_and_what_to_do(text: str, expected: str) -> None:
    """Each mistake is named with file, line and key, the nearest known name, and what mends it."""
    assert [f"broker.toml:{expected}"] == problems(text)


def test_mistakes_are_told_together_in_their_order() -> None:
    """Several mistakes are told at once, from the top of the file to its end."""
    found = problems("[servers.a]\ncomand = 1\n[limits]\nleases = -1\n[secrets.a]\nttl = 0")
    assert ["broker.toml:2", "broker.toml:4", "broker.toml:6"] == [one.split(": ")[0] for one in found]


def test_message_has_every_mistake_with_its_hint() -> None:
    """The message of several mistakes has a line for each, with its hint below."""
    with pytest.raises(InvalidConfigError) as caught:
        config("[limits]\nleases = -1\n[servers.a]\nlike = 'x'")
    expected = dedent(
        """\
        2 problems
        broker.toml:2: limits.leases: must be between 0 and 2147483647
        broker.toml:4: servers.a.like: there is no such server
          hint: like names another server of this config"""
    )
    assert (expected, None, "config") == (caught.value.message, caught.value.hint, caught.value.code)


def test_single_mistake_keeps_its_hint_apart() -> None:
    """A single mistake is a message and a hint, like every other error."""
    with pytest.raises(InvalidConfigError) as caught:
        config("[servers.a]\nlike = 'x'")
    assert "broker.toml:2: servers.a.like: there is no such server" == caught.value.message
    assert "like names another server of this config" == caught.value.hint


def test_ends_after_as_many_mistakes_as_one_reads() -> None:
    """A file full of mistakes is given up after the first score."""
    found = problems("\n".join(f"x{number} = 1" for number in range(1000)))
    assert MOST == len(found)


@pytest.mark.parametrize(
    "lines",
    [
        "selectors = [" + "'x'," * MOST + "]",
        "\n".join(f"env.V{number} = '{{'" for number in range(MOST)),
        "\n".join(f"[secrets.s{number}]\nttl = -1" for number in range(MOST)),
    ],
)
def test_giving_up_carries_no_other_error_along(lines: str) -> None:
    """The error of too many mistakes is not chained to the last of them."""
    with pytest.raises(InvalidConfigError) as caught:
        config(f"[servers.a]\n{lines}")
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ({"a": "b", "b": "c", "c": "a"}, ["servers.a.like: leads back to this server"]),
        ({"x": "a", "a": "b", "b": "a"}, ["servers.a.like: leads back to this server"]),
    ],
)
def test_circles_are_noticed(chain: dict[str, str], expected: list[str]) -> None:
    """Servers that are like each other in a circle are refused, once."""
    text = "\n".join(f"[servers.{name}]\nlike = '{other}'" for name, other in chain.items())
    assert expected == [one.partition(": ")[2] for one in problems(text)]


words = st.sampled_from(
    [
        "servers",
        "secrets",
        "backends",
        "limits",
        "audit",
        "notify",
        "sinks",
        "a",
        "env",
        "files",
        "command",
        "like",
        "rotate",
        "ttl",
        "x",
        "autostart",
    ]
)
anything = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "1h", "{a}", "{", "uid:1", "local"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def toml(value: object) -> str:
    """Return a value as TOML writes it on one line."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return f"'{value}'"
        case float():
            return f"{value}" if abs(value) != float("inf") else "inf"
        case _:
            return str(value)


@given(
    rows=st.dictionaries(words, st.dictionaries(words, anything, max_size=3) | anything, max_size=5),
    system=st.booleans(),
)
def test_any_shape_is_a_config_or_an_error(*, rows: dict[str, object], system: bool) -> None:
    """Known words in any wrong shape never cause anything but our error, whose problems have lines of the file."""
    text = "\n".join(f"{key} = {toml(value)}" for key, value in rows.items())
    found: tuple[Problem, ...] = ()
    try:
        config(text, mode="system" if system else "user")
    except InvalidConfigError as error:
        found = error.problems
    assert {problem.where.line for problem in found} <= set(range(1, len(rows) + 1))
