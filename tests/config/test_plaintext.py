"""What looks like a credential."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.plaintext import HIDDEN, argument_looks_secret, looks_secret, named_secret, shown

# Made up, and put together here, so that no scanner takes this file for a leak.
TOKENS = [
    "ghp_" + "a1" * 18,
    "github_" + "pat_" + "a1" * 20,
    "glpat-" + "a1" * 10,
    "sk-" + "proj-" + "a1" * 20,
    "sk_" + "live_" + "a1" * 12,
    "xoxb-" + "1" * 12 + "-abc",
    "AKIA" + "A1" * 8,
    "AIza" + "a1" * 18,
    "hvs." + "a1" * 12,
    "eyJ" + "a1" * 10 + "." + "b2" * 10 + ".c",
    "-----BEGIN " + "PRIVATE KEY-----",
    "-----BEGIN " + "RSA PRIVATE KEY-----",
    "npm_" + "a1" * 18,
    "ntn_" + "a1" * 20,
    "lin_" + "api_" + "a1" * 20,
    "glsa_" + "a1" * 16,
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "Bearer {}", "--header=Authorization: {}", "x={}&y"])
def test_knows_the_prefixes_of_tokens(token: str, around: str) -> None:
    """A token that shows by its beginning what it is, is recognised wherever it stands."""
    assert looks_secret(around.format(token))


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "TOKEN", False),
        ("debug", "LOG_LEVEL", False),
        ("hunter2", "DB_PASSWORD", True),
        ("hunter2", "api-key", True),
        ("hunter2", "--token", True),
        ("hunter2", "secret_id", True),
        ("hunt", "DB_PASSWORD", False),
        ("/run/secrets/token", "TOKEN", False),
        ("./token", "TOKEN", False),
        ("~/token", "TOKEN", False),
        ("$TOKEN", "TOKEN", False),
        ("<your token>", "TOKEN", False),
        ("https://vault.example/token", "TOKEN", False),
        ("FALSE", "TOKEN", False),
        ("hunter2", "TOKEN_FILE", False),
        ("hunter2", "MONKEY", False),
        ("postgresql://joe:hunter2@db/app", "", True),
        ("postgresql://:hunter2@db/app", "", True),
        ("postgresql://joe@db/app", "", False),
        ("postgresql:// : @db/app", "", False),
        ("http://localhost:8080/a@b", "", False),
        ("aB3dE6gH9jK2mN5pQ8sT1vW4", "", True),
        ("AAAAAAAAAAAAAAAAAAAAAAa1", "", False),
        ("123e4567-e89b-12d3-a456-426614174000", "", False),
        ("@modelcontextprotocol/server-everything", "", False),
        ("/opt/MyServer2/node_modules/Some/Long/Path/index.js", "", False),
        ("/usr/local/lib/python3.11/site-packages", "", False),
        ("sha256:" + "a1b2" * 16, "", False),
    ],
)
def test_guesses_well(text: str, name: str, *, expected: bool) -> None:
    """What is called like a credential, holds a password, or is random is suspect; paths, names and flags are not."""
    assert expected == looks_secret(text, name)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--token=hunter2", True),
        ("API_KEY=hunter2", True),
        ("X-Api-Key: hunter2", True),
        ("--log-level=debugging", False),
        ("--token", False),
        ("server.js", False),
        (TOKENS[0], True),
        ("--header=Authorization: Bearer " + TOKENS[0], True),
    ],
)
def test_looks_into_arguments(argument: str, *, expected: bool) -> None:
    """An argument can bring its own name along."""
    assert expected == argument_looks_secret(argument)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GITHUB_TOKEN", True),
        ("token", True),
        ("TOKENIZER", False),
        ("PASSWORD_FILE", False),
        ("", False),
        ("--pat", True),
    ],
)
def test_knows_telling_names(name: str, *, expected: bool) -> None:
    """A name ends in what it holds."""
    assert expected == named_secret(name)


def test_shows_what_is_harmless() -> None:
    """What looks harmless is shown as it is, anything else is not shown at all."""
    assert ["debug", HIDDEN] == [shown("debug"), shown(TOKENS[0])]


@given(st.text(), st.text())
def test_what_is_hidden_stays_hidden_without_a_trace(text: str, name: str) -> None:
    """What is shown is the text or the marker, and the marker itself looks like no secret under any name."""
    assert shown(text, name) in (text, HIDDEN)
    assert HIDDEN == shown(HIDDEN, name)
