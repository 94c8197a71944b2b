"""The effective config."""

import json
import tomllib
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.effective import as_toml, effective
from broker.config.plaintext import HIDDEN
from tests.config.build import config
from tests.config.test_loader import WHOLE

TOKEN = "ghp_" + "a1" * 18


def test_has_every_default() -> None:
    """The smallest config, in full, is this."""
    expected = {
        "autostart": True,
        "limits": {"connections": 1024, "requests_per_second": 2000, "leases": 4096, "message_bytes": 1048576},
        "audit": {
            "segment_bytes": 67108864,
            "segment_age": "7d",
            "checkpoint": "1h",
            "required": ["file"],
            "required_within": "2s",
        },
        "backends": {"local": {"type": "sealed"}},
        "secrets": {
            "github": {
                "backend": "local",
                "path": "github",
                "ttl": "1h",
                "stale": "0s",
                "share": False,
                "params": {},
            }
        },
        "servers": {
            "github": {
                "command": ["npx"],
                "client_args": False,
                "selectors": ["uid:1000"],
                "unsafe_user_selector": False,
                "env": {"TOKEN": "{github}"},
                "files": {},
                "pass_env": [],
                "allow": [],
            }
        },
    }
    assert expected == effective(config('[servers.github]\ncommand = ["npx"]\nenv.TOKEN = "{github}"'))


def test_says_what_it_was_told() -> None:
    """Rotation, parameters and a server without a command are in it."""
    found = effective(
        config("[servers.a]\n[secrets.s]\nparams = { x = [1.5, { y = 'z' }] }\nrotate = { every = 60, with = ['p'] }")
    )
    assert "command" not in found["servers"]["a"]
    assert {"x": [1.5, {"y": "z"}]} == found["secrets"]["s"]["params"]
    assert {"every": "1m", "with": ["p"], "grace": "10m"} == found["secrets"]["s"]["rotate"]


@pytest.mark.parametrize(
    "text",
    [
        f"[servers.a]\ncommand = ['x', '{TOKEN}']",
        f"[servers.a]\nenv.A = 'Bearer {TOKEN}{{x}}'",
        f"[servers.a]\nfiles.A = '{TOKEN}'",
        f"[backends.v]\ntype = 'vault'\na = [{{b = '{TOKEN}'}}]",
        f"[secrets.a]\npath = '{TOKEN}'",
        f"[secrets.a]\nparams.a = '{TOKEN}'",
        f"[secrets.a]\nrotate.with = ['x', '--token={TOKEN}']",
    ],
)
def test_shows_nothing_that_looks_like_a_secret(text: str) -> None:
    """A credential that somebody wrote into the config is not shown, wherever it stands."""
    found = as_toml(effective(config(text)))
    assert (False, True) == (TOKEN in found, HIDDEN in found)


def test_shows_no_password_behind_its_option() -> None:
    """An argument is judged by the option before it as well."""
    found = effective(config("[servers.a]\ncommand = ['x', '--password', 'hunter2', 'hunter2']"))
    assert ["x", "--password", HIDDEN, "hunter2"] == found["servers"]["a"]["command"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("1979-05-27", "1979-05-27"),
        ("0x" + "f" * 5000, "0x" + "f" * 5000),
        ("1e16", 1e16),
        ("true", True),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "0x8000000000000000"),
    ],
)
def test_fits_into_json(written: str, expected: object) -> None:
    """What JSON has no word for, or Python no digits, becomes text."""
    found = effective(config(f"[secrets.a]\nparams.x = {written}"))
    assert expected == json.loads(json.dumps(found, allow_nan=False))["secrets"]["a"]["params"]["x"]


def test_can_be_read_as_a_config_again() -> None:
    """The effective config, as text, is a config with the same effect."""
    found = effective(config(WHOLE))
    assert found == effective(config(as_toml(found)))


def test_tables_are_short() -> None:
    """Text has tables for what holds something; what is empty is still there, on one line."""
    text = '[a]\nx = 1\ne = {}\n\n[a."b c".d]\ny = [{ z = {} }, "q"]\n'
    assert text == as_toml({"a": {"x": 1, "e": {}, "b c": {"d": {"y": [{"z": {}}, "q"]}}}})


def test_terminal_commands_are_escaped() -> None:
    """What a terminal would obey is written as an escape."""
    assert 'x = "a\\U0000001b[2J\\U0000202e\\"\\\\"\n' == as_toml({"x": 'a\x1b[2J\u202e"\\'})


texts = st.text(st.characters(exclude_categories=["Cs"]))
structures = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, structures, max_size=3))
def test_text_is_toml(structure: dict[str, Any]) -> None:
    """Whatever the structure, its text is TOML that says the same."""
    assert structure == tomllib.loads(as_toml(structure))


def test_dates_are_text() -> None:
    """A date of the config is text in the effective one, for JSON."""
    assert (
        str(date(1979, 5, 27)) == effective(config("[secrets.a]\nparams.x = 1979-05-27"))["secrets"]["a"]["params"]["x"]
    )
