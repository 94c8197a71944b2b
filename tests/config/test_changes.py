"""What a reload changed."""

import pytest

from broker.config.changes import changes
from tests.config.build import config

SECRET = "ghp_" + "a1" * 18


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ("", "autostart = false", ["autostart: true -> false"]),
        ("", "[servers.github]", ["server github: added"]),
        ("[servers.github]", "", ["server github: removed"]),
        ("[secrets.notion]", "[secrets.notion]\nttl = '30m'", ["secret notion: ttl 1h -> 30m"]),
        ("[secrets.a]", "[secrets.a]\nstale = '5m'", ["secret a: stale 0s -> 5m"]),
        ("[secrets.a]", "[secrets.a]\nshare = true", ["secret a: share false -> true"]),
        ("[secrets.a]", "[secrets.a]\npath = 'b'", ["secret a: path a -> b"]),
        (
            "[secrets.a]",
            f"[secrets.a]\npath = '{SECRET}'",
            ["secret a: path a -> <looks like a secret, not shown>"],
        ),
        ("[secrets.a]", "[secrets.a]\nparams.x = 1", ["secret a: params.x added"]),
        ("[secrets.a]\nparams.x = 2", "[secrets.a]\nparams.x = 1", ["secret a: params.x changed"]),
        ("[secrets.a]\nrotate.every = '1d'", "[secrets.a]", ["secret a: rotate removed"]),
        ("[secrets.a]", "[secrets.a]\nrotate.every = '1d'", ["secret a: rotate added"]),
        (
            "[secrets.a]\nrotate = { every = '1d', with = ['x'] }",
            "[secrets.a]\nrotate = { with = ['y'], grace = 0 }",
            ["secret a: rotate.every 1d -> none", "secret a: rotate.grace 10m -> 0s", "secret a: rotate.with changed"],
        ),
        (
            "[backends.v]\ntype = 'vault'\n[secrets.a]",
            "[backends.v]\ntype = 'keyring'\n[secrets.a]\nbackend = 'v'",
            ["backend v: type vault -> keyring", "secret a: backend local -> v"],
        ),
        (
            "[backends.v]\ntype = 'vault'\naddress = 'a'\nold = 1",
            "[backends.v]\ntype = 'vault'\naddress = 'b'\n'\t' = 2",
            ["backend v: '\\t' added", "backend v: address changed", "backend v: old removed"],
        ),
        ("[limits]\nleases = 1", "[limits]\nleases = 0", ["limits: leases 1 -> 0"]),
        (
            "[servers.a]\ncommand = ['x']\nenv = { A = '{s}', B = 'b' }\nfiles.C = 'c'",
            "[servers.a]\ncommand = ['y']\nenv = { A = '{t}', D = 'd' }\npass_env = ['E']",
            [
                "server a: command changed",
                "server a: pass_env changed",
                "server a: env.A changed",
                "server a: env.B removed",
                "server a: env.D added",
                "server a: files.C removed",
            ],
        ),
        (
            "[servers.a]\nallow = ['x']",
            "[servers.a]\nselectors = ['uid:5', 'gid:6']\nclient_args = true\nunsafe_user_selector = true",
            [
                "server a: client_args false -> true",
                "server a: unsafe_user_selector false -> true",
                "server a: selectors uid:1000 -> gid:6, uid:5",
                "server a: allow x -> none",
            ],
        ),
    ],
)
def test_says_what_changed(old: str, new: str, expected: list[str]) -> None:
    """Each difference is one line; values of variables, options and commands are not in it."""
    assert expected == changes(config(old), config(new))


def test_moving_a_table_changes_nothing() -> None:
    """Other lines, other files and another order are no change."""
    assert [] == changes(config("[servers.a]\n[servers.b]"), config("\n\n[servers.b]", "[servers.a]"))
