"""Reading a proof each time anew, showing it as the server wants it, and taking the token that comes of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import LockedError, MisconfiguredError, Secret
from backends.vault_http import VaultAdapter
from backends.vault_login import Proof, as_auth, logging_in, looking_up_wrapped, proof, unwrapping
from backends.vault_options import Login, Method, Source
from backends.vault_wire import Answer, Auth
from tests.backends.test_vault_wire import ANY_JSON

SHOWN: Final = "canary-of-a-proof"


def login(path: Path, **more: Any) -> Login:  # noqa: ANN401 -- what a login has
    """Return a login whose proof is in a file."""
    return Login(**{"method": "approle", "mount": "approle", "name": "r", "proof": Source(path=path), **more})


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    """Write a proof."""
    path.touch(mode)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_a_proof_is_read_each_time(tmp_path: Path) -> None:
    """What is in the file now is shown, without the white space around it, and another one has another digest."""
    file = written(tmp_path / "secret-id", f" {SHOWN}\n")
    first, same = proof(login(file)), proof(login(file))
    written(file, "another")
    second = proof(login(file))
    assert (Secret(SHOWN), Secret("another"), True, False) == (
        first.secret,
        second.secret,
        first.digest == same.digest,
        first.digest == second.digest,
    )


def test_a_name_may_be_in_a_file(tmp_path: Path) -> None:
    """A role-id is read from its file, and belongs to what was refused."""
    name, file = written(tmp_path / "role-id", "role\n"), written(tmp_path / "secret-id", SHOWN)
    shown = proof(login(file, name="", name_file=Source(path=name)))
    assert ("role", False) == (shown.name, shown.digest == proof(login(file)).digest)


def test_a_certificate_needs_no_file() -> None:
    """What the connection shows is not read."""
    assert None is proof(Login(method="cert", mount="cert")).secret


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [
        (None, 0o600, LockedError),
        ("", 0o600, MisconfiguredError),
        (" \n", 0o600, MisconfiguredError),
        ("two\nlines", 0o600, MisconfiguredError),
        (b"\xff\xfe", 0o600, MisconfiguredError),
        (SHOWN, 0o644, MisconfiguredError),
    ],
)
def test_a_file_that_cannot_be_shown(
    tmp_path: Path, content: str | bytes | None, mode: int, error: type[Exception]
) -> None:
    """A proof that is missing, empty, more than a line or readable to others is an error that names the file."""
    file = tmp_path / "secret-id"
    if content is not None:
        written(file, content, mode)
    with pytest.raises(error) as caught:
        proof(login(file))
    assert (True, False) == (str(file) in str(caught.value), SHOWN in str(caught.value))


@pytest.mark.parametrize("content", [None, "", b"\xff"])
def test_a_token_of_a_pod_that_cannot_be_shown(tmp_path: Path, content: str | bytes | None) -> None:
    """A file that others may read, because the platform puts it there, is still held to hold something."""
    file = tmp_path / "token"
    if content is not None:
        written(file, content, 0o644)
    with pytest.raises((LockedError, MisconfiguredError)) as caught:
        proof(login(file, method="kubernetes", proof=Source(path=file, private=False)))
    assert "token of the service account" in str(caught.value)


def test_a_token_of_a_pod_may_be_readable(tmp_path: Path) -> None:
    """A service account's token is read whatever its mode."""
    file = written(tmp_path / "token", SHOWN, 0o644)
    shown = proof(login(file, method="kubernetes", proof=Source(path=file, private=False)))
    assert Secret(SHOWN) == shown.secret


def test_without_a_unit_there_is_no_credential() -> None:
    """A systemd credential that nobody has loaded is told with the line for the unit."""
    with pytest.raises(LockedError) as caught:
        proof(login(Path("$CREDENTIALS_DIRECTORY/vault-id")))
    assert "LoadCredentialEncrypted=vault-id in the unit" == caught.value.hint


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("approle", ("POST", "/v1/auth/there/login", {"role_id": "r", "secret_id": SHOWN})),
        ("userpass", ("POST", "/v1/auth/there/login/r", {"password": SHOWN})),
        ("ldap", ("POST", "/v1/auth/there/login/r", {"password": SHOWN})),
        ("jwt", ("POST", "/v1/auth/there/login", {"role": "r", "jwt": SHOWN})),
        ("kubernetes", ("POST", "/v1/auth/there/login", {"role": "r", "jwt": SHOWN})),
        ("cert", ("POST", "/v1/auth/there/login", {"name": "r"})),
        ("token", ("GET", "/v1/auth/token/lookup-self", None)),
    ],
)
def test_what_a_login_says(method: Method, expected: tuple[str, str, object]) -> None:
    """Each method says what the server's API wants, at the mount of the config."""
    shown = Proof(name="r", secret=Secret(SHOWN), digest=b"")
    assert expected == said(logging_in(Login(method=method, mount="there"), shown, Secret(SHOWN)))


def test_a_certificate_without_a_name_says_nothing() -> None:
    """Where no role is named the server finds one that fits."""
    found = Login(method="cert", mount="cert")
    assert ("POST", "/v1/auth/cert/login", {}) == said(logging_in(found, proof(found), None))


def test_a_wrapped_proof_is_looked_up_without_being_used() -> None:
    """The wrapping token is asked about in the body, and unwrapped as who asks."""
    looked = said(looking_up_wrapped(Secret("w")))
    assert [("POST", "/v1/sys/wrapping/lookup", {"token": "w"}), ("POST", "/v1/sys/wrapping/unwrap")] == [
        looked,
        said(unwrapping)[:2],
    ]


def said(say: Any) -> tuple[str, str, object]:  # noqa: ANN401 -- in hvac's words
    """Return method, path and body of what is asked."""
    found: list[tuple[str, str, object]] = []

    def ask(method: str, target: str, body: bytes | None) -> Answer:
        found.append((method, target, None if body is None else json.loads(body)))
        return Answer()

    say(VaultAdapter(ask))
    return found[0]


def test_a_token_that_was_given_is_what_the_server_says_of_it() -> None:
    """A token from a file is known by its own lookup."""
    data = {"accessor": "a", "policies": ["p"], "ttl": 60, "renewable": True, "type": "batch", "display_name": "d"}
    expected = Auth(token=Secret("t"), accessor="a", policies=("p",), ttl=60.0, renewable=True, batch=True, name="d")
    assert expected == as_auth(Answer(data=data), Secret("t"))


def test_a_login_is_what_it_gave() -> None:
    """What a login answered counts, and nothing where it gave nothing."""
    auth = Auth(token=Secret("t"), accessor="a", policies=(), ttl=0.0, renewable=False)
    assert [auth, auth, None] == [
        as_auth(Answer(auth=auth), None),
        as_auth(Answer(auth=auth), Secret("x")),
        as_auth(Answer(), None),
    ]


@given(data=st.dictionaries(st.sampled_from("accessor policies ttl renewable type display_name".split()), ANY_JSON))
def test_no_lookup_ever_raises(data: Mapping[str, Any]) -> None:
    """Whatever a server says of a token, its time is bounded and its policies are text."""
    auth = as_auth(Answer(data=data), Secret("t"))
    assert auth is not None
    assert (True, True) == (0 <= auth.ttl < 1e10, all(isinstance(each, str) for each in auth.policies))
