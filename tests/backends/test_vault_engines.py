"""What is asked for at which path, and what the answer is worth: every engine that a config may name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Credential, MisconfiguredError, Secret
from backends.vault_engines import Mount, Plan, fields, lifetime, mount_of, plan, static, version_of
from backends.vault_wire import Answer, read
from tests.backends.test_vault_wire import ANY_JSON

VECTORS: Final = Path(__file__).parent.parent / "vectors/vault"
KV1: Final = Mount(path="kv1/", kind="kv")
KV2: Final = Mount(path="secret/", kind="kv", version=2)
NOW: Final = 1795424160.0
KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG7njZZ7i9Y8E2xzvWdZv93lkxmZjoFhGwV0niZcOXPJ"


def recorded(topic: str, name: str) -> Answer:
    """Return a recorded answer as it is read."""
    steps = json.loads((VECTORS / f"{topic}.json").read_text())
    body = next(step["response"]["body"] for step in steps if step["name"] == name)
    found = read(200, {}, json.dumps(body).encode())
    assert isinstance(found, Answer)
    return found


def written(path: str, **body: str) -> Plan:
    """Return a write that mints."""
    return Plan(path=path, write=True, body=body, mints=True)


def engine(kind: str) -> Mount:
    """Return a mount called as its kind."""
    return Mount(path=f"{kind}/", kind=kind)


@pytest.mark.parametrize("path", ["secret/app/github", "/secret/app/github/", "secret/data/app/github"])
def test_a_secret_of_kv_2_is_read_below_data(path: str) -> None:
    """A path as a person writes it, and one from the API's documentation, are the same secret of K/V 2."""
    assert Plan(path="secret/data/app/github", versioned=True, kept=True) == plan(KV2, path, {})


def test_a_version_of_kv_2_goes_into_the_url() -> None:
    """``version`` asks for that one, by the query."""
    expected = Plan(path="secret/data/a", query={"version": 3}, versioned=True, kept=True)
    assert expected == plan(KV2, "secret/a", {"version": 3})


def test_kv_2_takes_no_other_parameter() -> None:
    """A parameter that K/V 2 does not know is an error with what it takes, and not a write."""
    with pytest.raises(MisconfiguredError) as caught:
        plan(KV2, "secret/a", {"verison": 3})
    assert ("params = { version = 3 }", True) == (caught.value.hint, "secret/a" in caught.value.message)


@pytest.mark.parametrize(
    ("mount", "path", "params", "expected"),
    [
        (KV1, "kv1/a", {}, Plan(path="kv1/a", kept=True)),
        (engine("cubbyhole"), "cubbyhole/a", {}, Plan(path="cubbyhole/a", kept=True)),
        (engine("database"), "database/creds/ro", {}, Plan(path="database/creds/ro", mints=True)),
        (engine("database"), "database/static-creds/app", {}, Plan(path="database/static-creds/app", kept=True)),
        (engine("ldap"), "ldap/static-cred/app", {}, Plan(path="ldap/static-cred/app", kept=True)),
        (engine("ldap"), "ldap/creds/app", {}, Plan(path="ldap/creds/app", mints=True)),
        (engine("rabbitmq"), "rabbitmq/creds/app", {}, Plan(path="rabbitmq/creds/app", mints=True)),
        (engine("totp"), "totp/code/a", {}, Plan(path="totp/code/a")),
        (engine("ssh"), "ssh/creds/otp", {"ip": "::1"}, written("ssh/creds/otp", ip="::1")),
        (engine("ssh"), "ssh/sign/dev", {"public_key": "k"}, written("ssh/sign/dev", public_key="k")),
        (engine("aws"), "aws/sts/deploy", {"ttl": "1h"}, written("aws/sts/deploy", ttl="1h")),
        (engine("aws"), "aws/creds/deploy", {}, Plan(path="aws/creds/deploy", mints=True)),
        (
            engine("kubernetes"),
            "kubernetes/creds/r",
            {"kubernetes_namespace": "x"},
            written("kubernetes/creds/r", kubernetes_namespace="x"),
        ),
        (
            engine("pki"),
            "pki/issue/mcp",
            {"common_name": "a"},
            Plan(path="pki/issue/mcp", write=True, body={"common_name": "a"}, mints=True, revoke="pki/revoke"),
        ),
        (engine("of-a-plugin"), "of-a-plugin/x", {}, Plan(path="of-a-plugin/x", mints=True)),
        (None, "team/db/creds/ro", {}, Plan(path="team/db/creds/ro", mints=True)),
        (None, "team/ssh/sign/x", {"a": "b"}, written("team/ssh/sign/x", a="b")),
    ],
)
def test_what_is_asked_of_an_engine(mount: Mount | None, path: str, params: Mapping[str, Any], expected: Plan) -> None:
    """Each engine is read or written as its API has it; of an unknown one everything counts as minted."""
    assert expected == plan(mount, path, params)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("issuer/old/issue/mcp", "pki/revoke"),
        ("issuer/old/sign/mcp", "pki/revoke"),
        ("issuer/old/sign-verbatim", "pki/revoke"),
        ("issuer/issue", None),
        ("cert/ca", None),
    ],
)
def test_a_certificate_of_a_named_issuer_can_be_revoked(inside: str, expected: str | None) -> None:
    """What one of several issuers has signed is revoked by its serial number, as what the usual one has."""
    assert expected == plan(engine("pki"), f"pki/{inside}", {"common_name": "a"}).revoke


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("internal ui mounts, kv2", Mount(path="secret/", kind="kv", version=2)),
        ("internal ui mounts, kv1", Mount(path="kv1/", kind="kv", version=1)),
    ],
)
def test_the_server_says_which_version_of_kv_it_is(name: str, expected: Mount) -> None:
    """The recorded answers tell K/V 1 from K/V 2."""
    assert expected == mount_of(recorded("kv", name).data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, None),
        ({}, None),
        ({"path": "a/"}, None),
        ({"path": 1, "type": "kv"}, None),
        ({"path": "a", "type": "kv", "options": None, "config": None}, Mount(path="a/", kind="kv")),
        ({"path": "a/", "type": "kv", "options": [], "config": "x"}, Mount(path="a/", kind="kv")),
        ({"path": "a/", "type": "kv", "options": {"version": 2}}, Mount(path="a/", kind="kv", version=2)),
        (
            {"path": "db/", "type": "database", "config": {"max_lease_ttl": 7200}},
            Mount(path="db/", kind="database", longest=7200.0),
        ),
    ],
)
def test_what_is_mounted(data: Mapping[str, Any] | None, expected: Mount | None) -> None:
    """What the server says of a mount is taken as far as it makes sense."""
    assert expected == mount_of(data)


def test_fields_are_text_and_what_is_null_is_none() -> None:
    """A nested value is JSON, text is itself, and null is no field."""
    found = static(plan(KV2, "secret/app/nested", {}), recorded("kv", "kv2 read nested value"))
    texts = {"f": "1.5", "n": "1", "o": '{"a":[1,2]}', "t": "true", "u": "snow \u2603"}
    assert Credential(values={name: Secret(text) for name, text in texts.items()}, version=1) == found


def test_a_chain_of_certificates_is_one_text() -> None:
    """A list of PEM blocks is one after the other, as a file for a server has it."""
    block = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
    expected = {"ca_chain": Secret(f"{block}\n{block}"), "names": Secret('["a","b"]'), "none": Secret("[]")}
    assert expected == fields({"ca_chain": [block + "\n", block], "names": ["a", "b"], "none": []})


def test_a_recorded_certificate_can_be_read() -> None:
    """The fields of a recorded certificate are PEM, its chain included."""
    found = fields(recorded("engines", "pki issue").data or {})
    starts = {name: found[name].expose()[:11] for name in ("certificate", "ca_chain", "issuing_ca")}
    assert dict.fromkeys(("certificate", "ca_chain", "issuing_ca"), "-----BEGIN ") == starts


def test_kv_1_is_what_it_holds() -> None:
    """The duration of K/V 1 is a hint and promises nothing, and so is a field that is called ``ttl``."""
    expected = Credential(values={"token": Secret("one"), "ttl": Secret("30m")})
    assert expected == static(plan(KV1, "kv1/a", {}), recorded("kv", "kv1 read"))


def test_a_static_account_is_good_until_it_is_rotated() -> None:
    """A database's static account ends when the server rotates it."""
    found = static(plan(engine("database"), "database/static-creds/st", {}), recorded("database", "static creds"))
    assert found is not None
    assert (3600.0, None, "staticuser") == (found.ttl, found.backend_lease, found.values["username"].expose())


@pytest.mark.parametrize("ttl", [0, -1, "0"])
def test_a_static_account_that_is_being_rotated_is_not_there(ttl: object) -> None:
    """``ttl`` 0 means that the password is just being replaced: there is none to hand out."""
    answer = Answer(data={"username": "u", "password": "p", "ttl": ttl, "last_vault_rotation": "x"})
    assert None is static(Plan(path="db/static-creds/x", kept=True), answer)


@pytest.mark.parametrize("data", [None, {"metadata": {}}, {"data": None, "metadata": {"destroyed": True}}])
def test_a_version_without_data_is_not_there(data: Mapping[str, Any] | None) -> None:
    """A version of K/V 2 that was deleted holds nothing, even where the status is a success."""
    assert None is static(Plan(path="secret/data/a", versioned=True), Answer(data=data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"metadata": {"version": 4, "created_time": "2026-11-23T08:55:16Z"}}, (4, "2026-11-23T08:55:16Z")),
        ({"metadata": {"version": "9" * 400}}, (0, "")),
        ({"metadata": {"version": True}}, (0, "")),
        ({"metadata": "none"}, (0, "")),
        (None, (0, "")),
    ],
)
def test_which_version_it_is(data: Mapping[str, Any] | None, expected: tuple[int, str]) -> None:
    """The version is a number, and 0 where the server says none."""
    assert expected == version_of(Answer(data=data))


@pytest.mark.parametrize(
    ("topic", "name", "expected"),
    [
        ("database", "creds", 300.0),
        ("engines", "ssh otp", 2764800.0),
        ("engines", "pki issue with a lease", 600.0),
        ("engines", "ssh sign", 1795425935.0 - NOW),
    ],
)
def test_how_long_what_was_minted_is_good(topic: str, name: str, expected: float) -> None:
    """By its lease, and without one by what it says of itself, an SSH certificate too."""
    assert expected == lifetime(recorded(topic, name), now=NOW)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(data={"expiration": NOW + 60}), 60.0),
        (Answer(data={"expiration": str(int(NOW) + 60)}), 60.0),
        (Answer(data={"expiration": NOW - 60}), 0.0),
        (Answer(data={"ttl": "3600s"}), 3600.0),
        (Answer(data={"ttl": 900}), 900.0),
        (Answer(data={"expiration": float("nan"), "ttl": 5}), 5.0),
        (Answer(data={"expiration": True}, lease_duration=7.0), 7.0),
        (Answer(lease_id="x", data={"ttl": 5}), None),
        (Answer(data={"signed_key": "of-a-new-kind AAAA"}), None),
        (Answer(data={"signed_key": "ssh-ed25519 AAAA"}), None),
        (Answer(data={"signed_key": ""}), None),
        (Answer(data={"ttl": -5}), None),
        (Answer(data={"signed_key": KEY}), None),
        (Answer(), None),
    ],
)
def test_how_long_it_says_itself(answer: Answer, expected: float | None) -> None:
    """Without a lease the end that the answer names counts; a plain key has none."""
    assert expected == lifetime(answer, now=NOW)


@given(data=st.dictionaries(st.sampled_from("path type options config metadata data ttl expiration".split()), ANY_JSON))
def test_no_answer_ever_raises(data: Mapping[str, Any]) -> None:
    """Whatever JSON a server sends, reading it ends with something or nothing."""
    answer = Answer(data=data)
    mount_of(data)
    version, written = version_of(answer)
    static(Plan(path="a", versioned=True), answer)
    static(Plan(path="a"), Answer(data={**data, "last_vault_rotation": ""}))
    ends = lifetime(answer, now=NOW)
    assert (True, True, True) == (version == int(version), isinstance(written, str), ends is None or ends >= 0)


@given(at=st.integers(0, 800), byte=st.integers(32, 126))
def test_no_mangled_certificate_raises(at: int, byte: int) -> None:
    """An SSH certificate of which a byte was changed has an end or none."""
    key = bytearray(str((recorded("engines", "ssh sign").data or {})["signed_key"]).encode())
    key[at % len(key)] = byte
    ends = lifetime(Answer(data={"signed_key": key.decode()}), now=NOW)
    assert ends is None or ends >= 0
