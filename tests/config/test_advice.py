"""Advice."""

import pytest

from broker.config.advice import advice
from tests.config.build import config

TOKEN = "ghp_" + "a1" * 18
SERVER = "[servers.a]\nselectors = ['unit:a.service']\n"
VISIBLE = "everybody on this machine can read a command with ps"
PLAIN = "this looks like a credential in plain text"


def said(text: str) -> list[str]:
    """Return all advice about a server ``a`` (from its third line on), or about a whole file."""
    whole = text if text.startswith("[") else SERVER + text
    return [str(one) for one in advice(config(whole, mode="system"))]


@pytest.mark.parametrize(
    "text",
    [
        "command = ['npx', '-y', '@modelcontextprotocol/server-github']\nenv.GITHUB_TOKEN = '{github}'",
        "command = ['x']\nenv.LOG_LEVEL = 'debug'\nenv.URL = 'https://joe@host/'",
        "command = ['x']\nenv.DATABASE_URL = 'postgresql://{db.username|url}:{db.password|url}@db'",
        "command = ['x']\nenv.DATABASE_URL = 'postgresql://app:{db.password|url}@db'",
        "command = ['x']\nenv.HEADERS = '{{\"Authorization\": \"Bearer {notion|json}\"}}'",
        "command = ['x']\nenv.API_TOKEN = 'prefix-{token}'",
        "command = ['x']\nenv.TOKEN_FILE = '/run/token'\nfiles.KEY = '{key}'",
        "command = ['docker', 'run', '-i', '--rm', '-e', 'TOKEN', 'image']\nenv.TOKEN = '{t}'",
        "command = ['docker', 'run', '-i', 'image']\npass_env = ['GRAFANA_*']",
        "command = ['jq', '{{a}}', '{', '{ a }']",
        "[backends.v]\ntype = 'vault'\naddress = 'https://vault.example'\nlist = [1, {a = true}]",
        "[secrets.a]\npath = 'database/creds/readonly'",
    ],
)
def test_has_nothing_to_say_of_what_is_fine(text: str) -> None:
    """A config as it should be gets no advice."""
    assert [] == said(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["warning: broker.toml:1: servers.a: it has neither a command nor anything to grant"]),
        (
            "allow = ['x']",
            [
                (
                    "note: broker.toml:1: servers.a: without a command it cannot be started; "
                    "it grants to scripts what allow lists"
                )
            ],
        ),
        (
            "env.A = '{x}'",
            [
                (
                    "warning: broker.toml:1: servers.a: without a command nothing can be started, so env and files are "
                    "for nothing but what they grant"
                )
            ],
        ),
        (
            "command = ['x']\npass_env = ['*']",
            [
                (
                    "warning: broker.toml:4: servers.a.pass_env: everything in the caller's environment goes through, "
                    "secrets that stand there as well"
                )
            ],
        ),
        (f"command = ['x']\nenv.A = 'Bearer {TOKEN}'", [f"warning: broker.toml:4: servers.a.env.A: {PLAIN}"]),
        (f"command = ['x']\nfiles.A = '{TOKEN}'", [f"warning: broker.toml:4: servers.a.files.A: {PLAIN}"]),
        (f"command = ['x']\nenv.A = '{{x}}{TOKEN}'", [f"warning: broker.toml:4: servers.a.env.A: {PLAIN}"]),
        (
            "command = ['x']\nenv.DB_PASSWORD = 'hunter2'",
            [f"warning: broker.toml:4: servers.a.env.DB_PASSWORD: {PLAIN}"],
        ),
        ("command = ['x', '--header', 'Authorization:${AUTHORIZATION}']", []),
        (
            "command = ['x', '--token', '{github}']",
            [
                (
                    "warning: broker.toml:3: servers.a.command: the reference in element 2 stays as it is: "
                    f"a command is no template, because {VISIBLE}"
                )
            ],
        ),
        (
            f"command = ['x', '--header=Authorization: {TOKEN}']",
            [
                (
                    "warning: broker.toml:3: servers.a.command: element 1 looks like a credential in plain text, "
                    f"and {VISIBLE}"
                )
            ],
        ),
        (
            "command = ['x', '--api-key', 'hunter2']",
            [
                (
                    "warning: broker.toml:3: servers.a.command: element 2 looks like a credential in plain text, "
                    f"and {VISIBLE}"
                )
            ],
        ),
        (
            "command = ['docker', 'run', 'image']\nenv.A = '{x}'\npass_env = ['B', 'C*']",
            [
                (
                    "warning: broker.toml:4: servers.a.env.A: docker run passes A on only if it is told to, so the "
                    "container will not see it"
                ),
                (
                    "warning: broker.toml:5: servers.a.pass_env: docker run passes B on only if it is told to, so the "
                    "container will not see it"
                ),
            ],
        ),
        (
            "command = ['/usr/bin/docker', 'run', '-e', 'A=x', 'image']\nenv.A = '{x}'",
            [f"warning: broker.toml:3: servers.a.command: -e A=… in the command wins over env.A, and {VISIBLE}"],
        ),
        (
            "command = ['docker', 'run', '-e', 'MY_TOKEN=x', 'image']",
            [
                (
                    "warning: broker.toml:3: servers.a.command: -e MY_TOKEN=… puts its value into the command, "
                    f"and {VISIBLE}"
                )
            ],
        ),
        (
            "command = ['docker', 'run', '-e', 'LEVEL=x', 'image']",
            [f"note: broker.toml:3: servers.a.command: -e LEVEL=… is right for what is no secret only: {VISIBLE}"],
        ),
        (
            'command = ["docker", "run", "-e", "\\u001b[2J=x", "image"]',
            [f"note: broker.toml:3: servers.a.command: -e NAME=… is right for what is no secret only: {VISIBLE}"],
        ),
        (
            "command = ['podman', 'run', 'image']\nfiles.A = '{x}'",
            [
                (
                    "warning: broker.toml:4: servers.a.files.A: the file is in memory outside of the container, "
                    "which cannot see it, and podman is not told of A"
                )
            ],
        ),
        (
            "[servers.a]\ncommand = ['x']\nselectors = ['uid:5']\nunsafe_user_selector = true",
            [
                (
                    "warning: broker.toml:4: servers.a.unsafe_user_selector: every program of this user gets its "
                    "secrets, not only the server"
                )
            ],
        ),
        (
            f"[backends.v]\ntype = 'vault'\na = [{{token = '{TOKEN}'}}]\nsecret_id = 'hunter2'",
            [
                f"warning: broker.toml:1: backends.v.secret_id: {PLAIN}",
                f"warning: broker.toml:1: backends.v.a[0].token: {PLAIN}",
            ],
        ),
        (
            f"[secrets.a]\npath = '{TOKEN}'\nparams.password = 'hunter2'",
            [
                f"warning: broker.toml:1: secrets.a.params.password: {PLAIN}",
                f"warning: broker.toml:1: secrets.a.path: {PLAIN}",
            ],
        ),
    ],
)
def test_warns(text: str, expected: list[str]) -> None:
    """What will not work or is not safe is said, with its place, and never by showing a value."""
    assert sorted(expected) == sorted(said(text))
    assert TOKEN not in "".join(expected)


def test_warns_of_names_that_are_nearly_declared() -> None:
    """A name close to a declared one is silently the local store's: that is said."""
    text = "[secrets.notion]\n" + SERVER + "command = ['x']\nenv.A = '{notoin}{other}'\nallow = ['Notion', 'notion']"
    told = '"{}" is not declared, so it is the local store\'s secret of that name; is "notion" meant'
    expected = [
        "warning: broker.toml:5: servers.a.env.A: " + told.format("notoin"),
        "warning: broker.toml:6: servers.a.allow: " + told.format("Notion"),
    ]
    assert expected == said(text)


def test_every_warning_has_a_hint() -> None:
    """Whatever is wrong, there is something to do about it; what is good to know may go without."""
    text = f"""
    [servers.a]
    command = ["docker", "run", "-e", "TOKEN=x", "image", "{{x}}", "{TOKEN}"]
    env.A = "{TOKEN}"
    files.B = "x"
    pass_env = ["*"]
    [servers.b]
    """
    found = advice(config(text))
    assert 8 == len(found)
    assert [] == [one for one in found if one.severity == "warning" and not one.hint]
