"""
What a real server answered, asked of the fake one: the same statuses, the same fields, the same texts.

The requests of each topic go out in the order in which they were recorded. What a
real server made up (tokens, ids, times) is masked where it is compared, and
translated where a later request names it. This module refuses to skip a recorded
answer.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.vault.core import Vault
from tests.fakes.vault.database import PRETENDED
from tests.fakes.vault.engines import MAKERS
from tests.fakes.vault.jwt_logins import read_jwt
from tests.fakes.vault.server import FakeVault, Node, ask

VECTORS: Final = Path(__file__).parent.parent / "vectors/vault"
TOPICS: Final = ("system", "kv", "auth", "database", "engines", "limits", "namespaces")

MADE_UP: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-|[sb]\.[A-Za-z0-9_-]{20}|\d{4}-\d\d-\d\dT|-----BEGIN|ssh-ed25519|vault:v1:"
    r"|[0-9a-f]{2}:[0-9a-f]{2}:|v-(root|token)-|vault-cluster-|.*/[A-Za-z0-9]{24}$|^[A-Za-z0-9+/_=-]{6,}$"
    r"|[a-z0-9_]+_[0-9a-f]{8}$|\(left out\)|^\d{6}$"
)
"""What a server makes up. Only its being there is compared, and that it is a text."""

MADE_UP_FIELDS: Final = frozenset("request_id password code id serial_number key uuid unlock_key".split())
PLAIN_WORDS: Final = frozenset(
    {"postgres", "shamir", "octocat", "default", "reader", "approle", "service", "supported"}
)
TIMES: Final = frozenset(
    "server_time_utc creation_time expiration not_before generated expire_time raft_committed_index "
    "raft_applied_index".split()
)
NEARLY: Final = 2
"""Seconds that a duration may differ by: the recorder was not always as quick."""

SENT: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "{bad": b"{bad",
        "33 MiB": b'{"value": "%s"}' % (b"x" * (33 << 20)),
        "2 MiB": b'{"value": "%s"}' % (b"x" * (2 << 20)),
    }
)
"""What was sent where the recording does not hold it, or where it was no JSON."""

STARTS_ALIKE: Final = MappingProxyType(
    {"config wrong password": "error creating database object: error verifying connection: "}
)
"""Where the rest of the text is the database driver's own."""

READER: Final = """
path "secret/data/app/*" { capabilities = ["read"] }
path "db/creds/ro" { capabilities = ["read"] }
"""


@dataclass(kw_only=True)
class Stage:
    """
    A fake in the middle of a replay.

    Attributes:
        known: what the recorded server made up, and what ours made up in its place.
        tokens: the token that came of a step, by the step's name.

    """

    fake: FakeVault
    known: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    child: str = ""

    def translated(self, value: Any) -> Any:  # noqa: ANN401 -- any JSON
        """Return a part of a recorded request with what ours knows in the place of what it does not."""
        if isinstance(value, dict):
            return {name: self.translated(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.translated(part) for part in value]
        return self.known.get(value, value) if isinstance(value, str) else value

    def learn(self, recorded: Any, ours: Any) -> None:  # noqa: ANN401
        """Note what ours made up in the place of what."""
        if isinstance(recorded, dict) and isinstance(ours, dict):
            for name in recorded.keys() & ours.keys():
                self.learn(recorded[name], ours[name])
        elif isinstance(recorded, str) and isinstance(ours, str) and recorded != ours:
            self.known[recorded] = ours


KEY: Final = rsa.generate_private_key(65537, 2048)


def _set_up_auth(stage: Stage) -> None:
    """Make what the recorder had made before it logged in."""
    api = stage.fake.api
    api("POST", "sys/policies/acl/reader", {"policy": READER})
    for kind in ("approle", "userpass", "jwt"):
        api("POST", f"sys/auth/{kind}", {"type": kind})
    role = {"token_policies": "reader", "token_ttl": "10m", "token_max_ttl": "30m"}
    api("POST", "auth/approle/role/broker", role)
    api("POST", "auth/userpass/users/ann", {"password": "right", "token_policies": "reader", "token_ttl": "5m"})
    shape = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    api("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [KEY.public_key().public_bytes(*shape).decode()]})
    host = {"bound_audiences": ["vault"], "user_claim": "sub", "token_policies": "reader", "token_ttl": "5m"}
    api("POST", "auth/jwt/role/host", host)


def _set_up_roles(stage: Stage) -> None:
    """Make the roles that were not recorded being made, once the connection is there."""
    stage.fake.api("POST", "db/roles/short", {"db_name": "pg", "default_ttl": "4s", "max_ttl": "6s"})
    stage.fake.api("POST", "db/roles/forbidden", {"db_name": "pg"})


def _set_up_engines(stage: Stage) -> None:
    api = stage.fake.api
    for kind in ("pki", "ssh", "totp", "transit"):
        api("POST", f"sys/mounts/{kind}", {"type": kind})
    api("POST", "pki/root/generate/internal", {"common_name": "test ca"})
    role = {"allowed_domains": "example.org", "allow_subdomains": True, "max_ttl": "1h"}
    api("POST", "pki/roles/mcp", role)
    api("POST", "pki/roles/leased", {**role, "generate_lease": True})
    api("POST", "ssh/config/ca", {})
    api("POST", "ssh/roles/dev", {"key_type": "ca"})
    api("POST", "ssh/roles/otp", {"key_type": "otp", "default_user": "ubuntu"})
    api("POST", "totp/keys/a", {"key": "MFRGGZDFMZTWQ2LK"})


def _make_child(stage: Stage) -> None:
    _, made = stage.fake.api("POST", "auth/token/create", {"policies": ["reader"]})
    stage.child = made["auth"]["client_token"]


def _pass(seconds: float) -> Callable[[Stage], None]:
    return lambda stage: stage.fake.vault.clock.advance(seconds)


def _sign_anew(stage: Stage) -> None:
    """Put JWTs of our own, with the same claims and our times, in the place of those whose key is gone."""
    for step in _steps("auth"):
        body = step["request"]["body"] or {}
        if (text := body.get("jwt", "")).count(".") == 2 and len(text) > 10:
            claims = dict(read_jwt(text)[0])
            claims |= {name: int(claims[name] + time.time() - 1795424120) for name in ("iat", "exp")}
            stage.known[text] = _signed(claims)


def _signed(claims: Mapping[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _allow_without_cas(stage: Stage) -> None:
    stage.fake.api("POST", "secret/config", {"cas_required": False})


BEFORE: Final[Mapping[str, Callable[[Stage], None]]] = MappingProxyType(
    {
        "role id": _set_up_auth,
        "jwt login": _sign_anew,
        "read with an expired token": _pass(3),
        "creds": _set_up_roles,
        "short renew after max_ttl": _pass(8),
        "creds by a child token": _make_child,
        "pki issue": _set_up_engines,
        "kv2 metadata": _allow_without_cas,
        "read under a quota 1": _pass(2),
        "write of 33 MiB": _pass(2),
        "write of 2 MiB": _pass(2),
    }
)
"""What was done before a step and was not recorded."""


AS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "lookup-self",
                "renew-self",
                "renew-self beyond max_ttl (capped, warning)",
                "capabilities-self",
                "read allowed",
                "read denied by policy",
                "internal ui mounts, low privilege",
                "revoke-self",
                "read with a revoked token",
                "lookup-self with a revoked token",
            ),
            "approle login",
        ),
        "renew-self of a batch token": "batch token",
        "renew-self of a periodic token": "periodic token",
        "first use": "token with 1 use",
        "second use": "token with 1 use",
        "read with an expired token": "token with ttl 2s",
    }
)
"""Which step gave the token that a step was asked with; all others were asked by the root."""

LAST: Final = frozenset({"seal", "renew, sealed"})
WRAPPED: Final = frozenset({"unwrap", "unwrap again"})
CHILD: Final = frozenset({"creds by a child token", "child token revoked"})


def _steps(topic: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads((VECTORS / f"{topic}.json").read_text("utf-8"))
    return steps


def _in_order() -> list[tuple[str, dict[str, Any]]]:
    """Return every step with its topic, in the order in which they were asked: the server was sealed last."""
    steps = [(topic, step) for topic in TOPICS for step in _steps(topic)]
    return sorted(steps, key=lambda each: "sealed again" in each[1]["name"] or each[1]["name"] in LAST)


def _token(stage: Stage, step: Mapping[str, Any]) -> str:
    name = step["name"]
    if not step["request"].get("authenticated", True):
        return ""
    if name == "bad token":
        return "s.nobody"
    if name in CHILD:
        return stage.child
    if name in WRAPPED:
        return stage.tokens["wrapped secret id"]
    return stage.tokens[AS[name]] if name in AS else stage.fake.vault.root


def _replay(stage: Stage, step: Mapping[str, Any]) -> tuple[int, Any]:
    asked, name = step["request"], step["name"]
    if name in BEFORE:
        BEFORE[name](stage)
    body = stage.translated(asked["body"])
    if name == "config":
        body |= {"connection_url": PRETENDED}
    path = "/".join(stage.known.get(part, part) for part in asked["path"].removeprefix("/v1/").split("/"))
    headers = {"X-Vault-Wrap-TTL": "60s"} if name == "wrapped secret id" else {}
    space = asked.get("namespace") or ""
    if name == "unseal":
        body = {"key": stage.fake.vault.key}
    token = _token(stage, step)
    if isinstance(body, str):
        body = SENT[body]
    status, found = stage.fake.api(asked["method"], path, body, token=token, namespace=space, headers=headers)
    stage.learn(step["response"]["body"], found)
    part = (found.get("auth") or {}) or {"client_token": (found.get("wrap_info") or {}).get("token", "")}
    stage.tokens[name] = part["client_token"]
    return status, found or None


def masked(value: Any, name: str = "") -> Any:  # noqa: ANN401 -- any JSON
    """Return an answer without what a server makes up, so that two servers say the same."""
    if isinstance(value, dict):
        return {key: masked(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [masked(part, name) for part in value]
    if type(value) is int and name in TIMES:
        return "a time"
    if isinstance(value, str) and (name in MADE_UP_FIELDS or (value not in PLAIN_WORDS and MADE_UP.match(value))):
        return "made up"
    return value


def same(recorded: Any, ours: Any) -> bool:  # noqa: ANN401
    """Return whether two masked answers are the same but for a second or two in a duration."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return recorded.keys() == ours.keys() and all(same(recorded[key], ours[key]) for key in recorded)
    if isinstance(recorded, list) and isinstance(ours, list):
        return len(recorded) == len(ours) and all(map(same, recorded, ours))
    if type(recorded) is int and type(ours) is int:
        return abs(recorded - ours) <= NEARLY
    return _about(recorded) == _about(ours)


def _about(value: object) -> object:
    # "19m59s" and "20m" of a warning are a second apart.
    return value.replace("19m59s", "20m") if isinstance(value, str) else value


@pytest.fixture(scope="module")
def replayed() -> Iterator[dict[tuple[str, str], tuple[int, Any]]]:
    """Ask the fake all that was recorded of one server, in order; keep what it answered."""
    with FakeVault(vault=Vault(initialised=False, makers=MAKERS)) as fake:
        stage = Stage(fake=fake)
        yield {(topic, step["name"]): _replay(stage, step) for topic, step in _in_order()}


each_step = pytest.mark.parametrize(
    ("topic", "step"),
    [(topic, step) for topic in TOPICS for step in _steps(topic)],
    ids=[f"{topic}-{step['name']}" for topic in TOPICS for step in _steps(topic)],
)


@each_step
def test_the_fake_answers_what_the_real_one_answered(
    replayed: Mapping[tuple[str, str], tuple[int, Any]], topic: str, step: Mapping[str, Any]
) -> None:
    """Status, fields and texts are those that were recorded, but for what a server makes up."""
    status, body = replayed[topic, step["name"]]
    recorded = step["response"]
    if (start := STARTS_ALIKE.get(step["name"])) is not None:
        assert (recorded["status"], True) == (status, body["errors"][0].startswith(start))
        return
    expected, found = masked(recorded["body"]), masked(body)
    assert (recorded["status"], expected) == (status, expected if same(expected, found) else found)


def test_names_of_steps_are_known() -> None:
    """What stands in the tables of this file is in the recordings."""
    names = {step["name"] for topic in TOPICS for step in _steps(topic)}
    assert set() == {*BEFORE, *AS, *AS.values(), *WRAPPED, *CHILD, *STARTS_ALIKE} - names


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[FakeVault, FakeVault]]:
    """Give the active node and a standby of one cluster."""
    with FakeVault(node=Node(clustered=True)) as active:
        active.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        active.node.leader = active.address
        standby = Node(standby=True, clustered=True, leader=active.address, behind=3600)
        with FakeVault(vault=active.vault, node=standby) as other:
            yield active, other


def test_a_cluster_answers_what_a_real_one_answered(cluster: tuple[FakeVault, FakeVault]) -> None:
    """Standbys answer, lag, forward and redirect as they were recorded doing."""
    active, standby = cluster
    active.api("POST", "secret/data/a", {"data": {"k": "v"}})
    expected, found = [], []
    for step in _steps("cluster"):
        asked, said, name = step["request"], step["response"], step["name"]
        node = active if name == "health, active" else standby
        if name == "write at a standby (forwarded)":
            active.vault.clock.advance(10)
            standby.node.behind = 5
        standby.node.alive = "killed" not in name and "no active" not in name
        headers = {"X-Vault-No-Request-Forwarding": "1"} if "forwarding off" in name else {}
        token = active.vault.root if asked.get("authenticated", True) else ""
        path = asked["path"].removeprefix("/v1/")
        status, body = ask(node.address, asked["method"], path, asked["body"], token=token, headers=headers)
        pair = masked(said["body"]), masked(body or None)
        expected.append((name, said["status"], _addressed(pair[0])))
        found.append((name, status, _addressed(pair[0] if same(*pair) else pair[1])))
    assert expected == found


def _addressed(body: Any) -> Any:  # noqa: ANN401
    """Return a body without ports, which are others each time."""
    return json.loads(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", json.dumps(body)))
