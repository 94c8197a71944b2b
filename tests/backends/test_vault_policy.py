"""The policy that a config needs: each path by name, what is done there, and nothing else."""

from collections.abc import Mapping, Sequence

import pytest

from backends.vault_engines import Plan
from backends.vault_policy import CHILDREN, LEASES, needs, text

READ = Plan(path="secret/data/app", versioned=True, kept=True)
DYNAMIC = Plan(path="database/creds/ro", mints=True)
SIGNED = Plan(path="ssh/sign/dev", write=True, mints=True)
CERTIFICATE = Plan(path="pki/issue/mcp", write=True, mints=True, revoke="pki/revoke")


OWN = {
    "auth/token/lookup-self": ["read"],
    "auth/token/renew-self": ["update"],
    "auth/token/revoke-self": ["update"],
    "sys/capabilities-self": ["update"],
}
"""What every broker's token needs."""


def paths(policy: str) -> dict[str, list[str]]:
    """Return what a policy allows."""
    rules = [line for line in policy.splitlines() if line and not line.startswith("#")]
    return {rule.split('"')[1]: rule.partition("[")[2].split('"')[1::2] for rule in rules}


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (READ, {"secret/data/app": ("read",)}),
        (DYNAMIC, {"database/creds/ro": ("read",), **LEASES}),
        (SIGNED, {"ssh/sign/dev": ("create", "update"), **LEASES}),
        (CERTIFICATE, {"pki/issue/mcp": ("create", "update"), "pki/revoke": ("update",)}),
    ],
)
def test_what_a_plan_needs(plan: Plan, expected: Mapping[str, Sequence[str]]) -> None:
    """A read needs read, a write create or update, a lease its renewal and its end, a certificate its end."""
    assert expected == needs(plan)


def test_the_policy_of_a_secret_that_is_only_read() -> None:
    """Where nothing is minted, nothing about leases is asked for."""
    assert {"secret/data/app": ["read"], **OWN} == paths(text([READ], unsure=[], children=True))


def test_the_policy_of_what_is_minted() -> None:
    """Leases, certificates and child tokens are in it where they are needed, each path once."""
    policy = text([READ, DYNAMIC, SIGNED, CERTIFICATE, DYNAMIC], unsure=[], children=True)
    expected = {
        "secret/data/app": ["read"],
        "database/creds/ro": ["read"],
        "ssh/sign/dev": ["create", "update"],
        "pki/issue/mcp": ["create", "update"],
        "pki/revoke": ["update"],
        **{path: list(words) for path, words in [*LEASES.items(), *CHILDREN.items()]},
        **OWN,
    }
    assert (expected, 1) == (paths(policy), policy.count('"database/creds/ro"'))


def test_the_policy_without_child_tokens() -> None:
    """Who does not want tokens for each credential need not allow them."""
    policy = text([DYNAMIC], unsure=[], children=False)
    assert set() == set(CHILDREN) & set(paths(policy))


def test_the_policy_of_a_path_that_the_server_says_nothing_about() -> None:
    """It may be K/V of either version: both paths are in it, marked as a guess."""
    policy = text([], unsure=["secret/app"], children=True)
    found = {path: words for path, words in paths(policy).items() if path.startswith("secret/")}
    assert ({"secret/app": ["read"], "secret/data/app": ["read"]}, True) == (found, "did not say" in policy)


def test_a_path_cannot_end_its_quotes() -> None:
    """A quote and a backslash in a path stay inside it."""
    policy = text([Plan(path='a"b\\c')], unsure=[], children=False)
    assert 'path "a\\"b\\\\c" { capabilities = ["read"] }' in policy


def test_a_path_that_one_secret_reads_and_another_writes_allows_both() -> None:
    """A path is in the policy once, with all that is done there."""
    policy = text([Plan(path="ssh/creds/x"), Plan(path="ssh/creds/x", write=True)], unsure=[], children=False)
    assert ["read", "create", "update"] == paths(policy)["ssh/creds/x"]


@pytest.mark.parametrize("path", ["kv1/app*", "kv1/+/app", "kv1/{{identity.entity.id}}", "kv1/a\nb"])
def test_a_path_that_would_be_a_pattern_is_left_out(path: str) -> None:
    """What a policy would take for many paths, or for a template, does not become a rule; a comment says so."""
    found = text([Plan(path=path, kept=True)], unsure=[], children=True)
    assert (OWN, True) == (paths(found), f"# not {path!r}" in found)


@pytest.mark.parametrize("path", ["kv1/a*b", "kv1/a+b"])
def test_a_character_that_is_no_pattern_where_it_stands_is_kept(path: str) -> None:
    """A star in the middle, and a plus beside something else, mean themselves."""
    assert path in paths(text([Plan(path=path, kept=True)], unsure=[], children=True))
