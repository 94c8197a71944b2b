"""The config as a whole: what it says, and what is said of its mistakes."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import load, load_file
from broker.config.loader import installed_types
from broker.config.model import BackendConfig, Config, SecretConfig, ServerConfig
from broker.config.problems import MOST, InvalidConfigError
from broker.config.replacing import DEFAULT_GRACE, RotateConfig
from broker.config.template import parse
from broker.core.model import Limits, Policy, SecretRule, ServerRule
from broker.paths import Places, within
from tests.config.build import TYPES, config, problems

LOCAL = BackendConfig(name="local", type="sealed")

WHOLE = """
[backends.vault]
type = "vault"
address = "https://vault.example:8200"
auth.approle = { role_id_file = "/r", secret_id_file = "/s" }

[backends.desktop]
type = "keyring"

[secrets.notion]
backend = "desktop"
path = "mcp/notion"
ttl = "1h"
rotate = { every = "30d", with = ["/usr/local/bin/rotate-notion"], grace = "20m" }

[secrets.app-db]
backend = "vault"
path = "database/creds/readonly"
ttl = "30m"
stale = "5m"
params = { ttl = "1h", roles = ["a"] }

[servers.app]
command = ["node", "/opt/mcp/app/dist/index.js"]
client_args = true
selectors = ["unit:mcp-app.service"]
env.OPENAPI_MCP_HEADERS = '{{"Authorization": "Bearer {notion|json}"}}'
env.DATABASE_URL = "postgresql://{app-db.username|url}:{app-db.password|url}@db/app"
files.GOOGLE_APPLICATION_CREDENTIALS = "{gcp}"
pass_env = ["GRAFANA_*"]
allow = ["cache"]

[servers.app-staging]
like = "app"
env.DATABASE_URL = "{staging-db.url}"

[limits]
connections = 10
requests_per_second = 20
leases = 30
message_bytes = 4096
"""


def test_empty_config_has_the_local_store_and_grants_nothing() -> None:
    """Where nothing is said everything has its default, and nobody is granted anything."""
    assert Config(mode="user", backends={"local": LOCAL}) == config("")
    assert Policy() == config("").policy()


def test_smallest_server() -> None:
    """One table is a server: in user mode the user's own, with the local secret of the name that it refers to."""
    found = config('[servers.github]\ncommand = ["npx"]\nenv.TOKEN = "{github}"')
    expected = ServerConfig(
        name="github",
        command=("npx",),
        selectors=frozenset({"uid:1000"}),
        env={"TOKEN": parse("{github}", variable="TOKEN")},
    )
    assert {"github": expected} == found.servers
    assert SecretConfig(name="github", path="github") == found.secret("github")
    assert (False, True) == (found.secret("github").declared, found.autostart)


def test_whole_config_backends() -> None:
    """A backend keeps its type apart from its options, which are the adapter's to judge."""
    auth = {"approle": {"role_id_file": "/r", "secret_id_file": "/s"}}
    vault = BackendConfig(name="vault", type="vault", options={"address": "https://vault.example:8200", "auth": auth})
    expected = {"local": LOCAL, "vault": vault, "desktop": BackendConfig(name="desktop", type="keyring")}
    assert expected == config(WHOLE).backends


def test_whole_config_secrets() -> None:
    """A secret has its place, its times, its parameters and its rotation."""
    rotate = RotateConfig(every=2592000, command=("/usr/local/bin/rotate-notion",), grace=1200)
    notion = SecretConfig(name="notion", backend="desktop", path="mcp/notion", ttl=3600, rotate=rotate)
    db = SecretConfig(
        name="app-db",
        backend="vault",
        path="database/creds/readonly",
        ttl=1800,
        stale=300,
        params={"ttl": "1h", "roles": ["a"]},
    )
    assert {"notion": notion, "app-db": db} == config(WHOLE).secrets


def test_whole_config_servers() -> None:
    """A server that is like another one has all that the other has but what its own table says."""
    url = "postgresql://{app-db.username|url}:{app-db.password|url}@db/app"
    headers = '{{"Authorization": "Bearer {notion|json}"}}'
    env = {
        "OPENAPI_MCP_HEADERS": parse(headers, variable="OPENAPI_MCP_HEADERS"),
        "DATABASE_URL": parse(url, variable="DATABASE_URL"),
    }
    staging = env | {"DATABASE_URL": parse("{staging-db.url}", variable="DATABASE_URL")}
    app, other = (
        ServerConfig(
            name=name,
            command=("node", "/opt/mcp/app/dist/index.js"),
            client_args=True,
            selectors=frozenset({"unit:mcp-app.service"}),
            env=variables,
            files={"GOOGLE_APPLICATION_CREDENTIALS": parse("{gcp}")},
            pass_env=("GRAFANA_*",),
            allow=("cache",),
        )
        for name, variables in (("app", env), ("app-staging", staging))
    )
    assert {"app": app, "app-staging": other} == config(WHOLE).servers


def test_whole_config_limits() -> None:
    """Every limit is read."""
    assert Limits(connections=10, requests_per_second=20, leases=30, message_bytes=4096) == config(WHOLE).limits


def test_policy_grants_what_is_referred_to_or_allowed() -> None:
    """A reference is its own grant, and every secret that is granted has its rule, declared or not."""
    found = config(WHOLE).policy()
    unit = frozenset({"unit:mcp-app.service"})
    grants = frozenset({"notion", "gcp", "cache"})
    assert {
        "app": ServerRule(name="app", selectors=unit, grants=grants | {"app-db"}),
        "app-staging": ServerRule(name="app-staging", selectors=unit, grants=grants | {"staging-db"}),
    } == found.servers
    assert {
        "app-db": SecretRule(name="app-db", backend="vault", ttl=1800),
        "cache": SecretRule(name="cache", backend="local", ttl=3600),
        "gcp": SecretRule(name="gcp", backend="local", ttl=3600),
        "notion": SecretRule(name="notion", backend="desktop", ttl=3600),
        "staging-db": SecretRule(name="staging-db", backend="local", ttl=3600),
    } == found.secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("servers.a.command = ['x']", ServerConfig(name="a", command=("x",), selectors=frozenset({"uid:1000"}))),
        ("[servers.a]", ServerConfig(name="a", selectors=frozenset({"uid:1000"}))),
        ("[servers.a]\nclient_args = false", ServerConfig(name="a", selectors=frozenset({"uid:1000"}))),
        (
            "[servers.a]\nselectors = ['user:root', 'gid:5']",
            ServerConfig(name="a", selectors=frozenset({"uid:0", "gid:5"})),
        ),
        (
            "[servers.a]\nallow = ['x', 'y', 'x']",
            ServerConfig(name="a", selectors=frozenset({"uid:1000"}), allow=("x", "y")),
        ),
    ],
)
def test_servers_in_user_mode(text: str, expected: ServerConfig) -> None:
    """What a server leaves out has its default; a name is a number; what is listed twice is there once."""
    assert expected == config(text).servers["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('rotate = { every = "1d" }', RotateConfig(every=86400, grace=DEFAULT_GRACE)),
        ('rotate = { with = ["a", "b"] }', RotateConfig(command=("a", "b"), grace=DEFAULT_GRACE)),
        ("rotate = { every = 60, grace = 0 }", RotateConfig(every=60, grace=0)),
    ],
)
def test_rotation(text: str, expected: RotateConfig) -> None:
    """A rotation says when, how, or both."""
    assert expected == config(f"[secrets.a]\n{text}").secrets["a"].rotate


def test_system_mode_accepts_a_unit_or_the_dangerous_switch() -> None:
    """In system mode a unit is enough, and a user with the switch that is named for its danger."""
    found = config(
        """
        [servers.a]
        selectors = ["unit:a.service", "uid:5"]
        [servers.b]
        selectors = ["uid:5"]
        unsafe_user_selector = true
        """,
        mode="system",
    )
    assert {"a": {"unit:a.service", "uid:5"}, "b": {"uid:5"}} == {
        name: set(server.selectors) for name, server in found.servers.items()
    }


def test_keeps_local_options() -> None:
    """The table of the local store may leave out its type."""
    expected = BackendConfig(name="local", type="sealed", options={"key": {"keyring": True}})
    assert {"local": expected} == config("[backends.local]\nkey.keyring = true").backends


def test_long_chain_of_likeness() -> None:
    """A server may be like one that is like another, thousands of times, in any order."""
    text = ["[servers.s0]\ncommand = ['x']"]
    text += [f"[servers.s{number}]\nlike = 's{number - 1}'" for number in range(1, 3000)]
    assert ("x",) == config("\n".join(reversed(text))).servers["s2999"].command


def test_likeness_can_be_overruled() -> None:
    """Every key can be overruled, false included, and a variable can become a file and the other way round."""
    found = config(
        """
        [servers.a]
        command = ["x"]
        client_args = true
        selectors = ["uid:1"]
        pass_env = ["A"]
        allow = ["s"]
        env.ONE = "1"
        files.TWO = "2"
        [servers.b]
        like = "a"
        command = ["y"]
        client_args = false
        selectors = ["uid:2"]
        pass_env = []
        allow = []
        env.TWO = "two"
        files.ONE = "one"
        """
    )
    expected = ServerConfig(
        name="b",
        command=("y",),
        selectors=frozenset({"uid:2"}),
        env={"TWO": parse("two", variable="TWO")},
        files={"ONE": parse("one")},
    )
    assert expected == found.servers["b"]


def test_knows_where_what_it_took_over_stands() -> None:
    """A key that was taken over stands where the other server has it."""
    found = config("[servers.a]\nenv.ONE = '1'\n[servers.b]\nlike = 'a'\nenv.TWO = '2'").servers["b"]
    assert [3, 2, 5, 3] == [found.origin(key).line for key in ("", "env.ONE", "env.TWO", "allow")]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("[servers.a]", "[servers.a]", "1.toml:1: servers.a: stands in broker.toml:1 as well (keep one of the two)"),
        ("[secrets.a]", "\n[secrets.a]", "1.toml:2: secrets.a: stands in broker.toml:1 as well (keep one of the two)"),
        ("[limits]", "limits = {}", "1.toml:1: limits: stands in broker.toml:1 as well (keep one of the two)"),
        (
            "[servers.b]\n[servers.a]\nallow = ['x']",
            "servers.a.command = ['x']",
            "1.toml:1: servers.a: stands in broker.toml:2 as well (keep one of the two)",
        ),
        (
            "autostart = true",
            "autostart = true",
            "1.toml:1: autostart: stands in broker.toml:1 as well (keep one of the two)",
        ),
    ],
)
def test_nothing_is_defined_twice(first: str, second: str, expected: str) -> None:
    """What stands in two files is an error that names both, even where they agree."""
    assert [expected] == problems(first, second)


def test_files_add_up() -> None:
    """Different tables of one kind may stand in different files, and refer to each other."""
    found = config("autostart = false", "[servers.a]\nlike = 'b'", "[servers.b]\ncommand = ['x']\n[limits]\nleases = 1")
    assert ({"a", "b"}, ("x",), False, 1) == (
        set(found.servers),
        found.servers["a"].command,
        found.autostart,
        found.limits.leases,
    )


def test_installed_types_have_the_sealed_store() -> None:
    """The sealed store's type is known even where nothing is installed."""
    assert "sealed" in installed_types()


def test_unknown_type_is_looked_up_in_what_is_installed(tmp_path: Path) -> None:
    """Without a list of types a type is looked up among those that are installed."""
    path = tmp_path / "x.toml"
    path.write_text("[backends.a]\ntype = 'no such type'")
    with pytest.raises(InvalidConfigError, match="there is no such type of backend"):
        load_file(path, "user")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Return places with a config directory."""
    found = within(tmp_path)
    (found.config / "broker.d").mkdir(parents=True)
    found.config.chmod(0o700)
    (found.config / "broker.d").chmod(0o700)
    return found


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can write."""
    path.write_text(text)
    path.chmod(0o600)


def test_loads_nothing(tmp_path: Path) -> None:
    """Where there is no config it is an empty one that was read from no file."""
    found = load(within(tmp_path))
    assert ((), {}, {"local": LOCAL}) == (found.files, found.servers, found.backends)


def test_loads_all_files(places: Places) -> None:
    """The main file and the others make one config, which knows its files; a server is one's own."""
    main, part = places.config / "broker.toml", places.config / "broker.d/a.toml"
    write(main, "autostart = false")
    write(part, "[servers.a]")
    found = load(places, types=TYPES)
    assert ((main, part), False) == (found.files, found.autostart)
    assert {f"uid:{os.geteuid()}"} == found.servers["a"].selectors


def test_tells_of_all_broken_files(places: Places) -> None:
    """Every file that cannot be read is told, not only the first."""
    write(places.config / "broker.toml", "a =")
    write(places.config / "broker.d/a.toml", "[x")
    (places.config / "broker.d/b.toml").mkdir()
    with pytest.raises(InvalidConfigError) as caught:
        load(places)
    expected = {"broker.toml": 1, "a.toml": 1, "b.toml": 0}
    assert expected == {problem.where.file.name: problem.where.line for problem in caught.value.problems}


def test_gives_up_after_as_many_broken_files_as_one_reads(places: Places) -> None:
    """Of a hundred broken files the first score is told, and the error is chained to none of them."""
    for number in range(100):
        write(places.config / f"broker.d/{number}.toml", "a =")
    with pytest.raises(InvalidConfigError) as caught:
        load(places)
    assert (MOST, None) == (len(caught.value.problems), caught.value.__context__)


def test_refuses_a_config_that_all_can_write(places: Places) -> None:
    """A config that others can write is not loaded."""
    path = places.config / "broker.toml"
    write(path, "")
    path.chmod(0o606)
    with pytest.raises(InvalidConfigError, match="everybody can write it"):
        load(places)


def test_refuses_a_config_in_a_directory_that_all_can_write(places: Places) -> None:
    """A config whose directory others can write is not loaded."""
    write(places.config / "broker.d/a.toml", "")
    (places.config / "broker.d").chmod(0o777)
    with pytest.raises(InvalidConfigError, match="everybody can write it, and it leads to the config"):
        load(places)


def test_checks_a_single_file(tmp_path: Path) -> None:
    """A single file is read for the mode that it is meant for."""
    path = tmp_path / "x.toml"
    write(path, "[servers.a]\nselectors = ['unit:a.service']")
    assert ("system", (path,)) == (load_file(path, "system").mode, load_file(path, "system").files)


@pytest.mark.root
def test_checks_a_file_of_somebody_else(tmp_path: Path) -> None:
    """A file that is only checked may be anybody's, as a checkout in CI is; one in force may not."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    found = within(tmp_path)
    found.config.mkdir(mode=0o700)
    path = found.config / "broker.toml"
    write(path, "")
    os.chown(path, 12345, 12345)
    assert (path,) == load_file(path, "user").files
    with pytest.raises(InvalidConfigError, match="it belongs to uid 12345"):
        load(found)


@given(st.binary())
def test_any_bytes_are_a_config_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever stands in the file, loading it returns a config or raises one error of ours."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    try:
        files = set(load_file(path, "user", types=TYPES).files)
    except InvalidConfigError as error:
        files = {problem.where.file for problem in error.problems}
    assert {path} == files
