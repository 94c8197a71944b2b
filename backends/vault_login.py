"""
Logging in: reading the proof anew each time, showing it once, and taking the token that comes of it.

A wrapped secret-id is looked up before it is unwrapped: one that was made
elsewhere, or that somebody has used already, is an alarm and not a login. It
refuses to try anything a second time; ``vault_tokens`` decides when.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import msgspec
from hvac.api.auth_methods import JWT, AppRole, Kubernetes, Ldap, Token, Userpass
from hvac.api.system_backend import Wrapping

from backends import private_file
from backends.base import LockedError, MisconfiguredError, Secret
from backends.vault_engines import number
from backends.vault_http import VaultAdapter
from backends.vault_options import Login, Source
from backends.vault_wire import LONGEST_TIME, Answer, Auth

_CREDENTIALS: Final = "$CREDENTIALS_DIRECTORY"
_LONGEST: Final = 64 * 1024


@final
class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is shown to log in.

    Attributes:
        name: the role, the user name.
        secret: what proves it; None where the connection does.
        digest: of both, to know whether they are the ones that were refused.

    """

    name: str
    secret: Secret | None
    digest: bytes


def proof(login: Login) -> Proof:
    """
    Read what is to be shown, as it is now. Blocks.

    Raises:
        LockedError: a file is missing or cannot be read.
        MisconfiguredError: others could have read it, or it is empty.

    """
    name = login.name if login.name_file is None else _read(login.name_file, "role-id").expose()
    secret = None if login.proof is None else _read(login.proof, _WHAT[login.method])
    return Proof(name=name, secret=secret, digest=digest(name, secret))


def digest(name: str, secret: Secret | None) -> bytes:
    """Return what tells a proof from others, and does not tell it."""
    shown = "" if secret is None else secret.expose()
    return hashlib.sha256(f"{name}\0{shown}".encode()).digest()


_WHAT: Final = {
    "token": "token file",
    "approle": "secret-id",
    "userpass": "password file",
    "ldap": "password file",
    "jwt": "token file",
    "kubernetes": "token of the service account",
}


def _read(source: Source, what: str) -> Secret:
    path = _located(source.path, what)
    hint = f"put it there, with mode 600: {path}"
    if source.private:
        content = private_file.read(path, what, hint=hint)
    else:
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST)
        except OSError as error:
            message = f"the {what} {path} cannot be read: {error.strerror}"
            raise LockedError(message, hint=hint) from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        message = f"the {what} {path} is empty, or not one line of text"
        raise MisconfiguredError(message, hint=hint)
    return Secret(text)


def _located(path: Path, what: str) -> Path:
    if path.parts[:1] != (_CREDENTIALS,):
        return path
    directory = os.environ.get(_CREDENTIALS[1:])
    if directory is None:
        message = f"there is no systemd credential for the {what}: the broker was not started by a unit that loads it"
        raise LockedError(message, hint=f"LoadCredentialEncrypted={path.name} in the unit")
    return Path(directory, *path.parts[1:])


def logging_in(login: Login, shown: Proof, secret: Secret | None) -> Callable[[VaultAdapter], Answer]:
    """Return how to log in, in hvac's words; ``secret`` is what a wrapped proof held, else the proof itself."""
    value = "" if secret is None else secret.expose()
    mount, name = login.mount, shown.name

    def say(adapter: VaultAdapter) -> Answer:
        found: Answer
        match login.method:
            case "approle":
                found = AppRole(adapter).login(name, value, use_token=False, mount_point=mount)
            case "userpass":
                found = Userpass(adapter).login(name, value, use_token=False, mount_point=mount)
            case "ldap":
                found = Ldap(adapter).login(name, value, use_token=False, mount_point=mount)
            case "jwt":
                found = JWT(adapter).jwt_login(name, value, use_token=False, path=mount)
            case "kubernetes":
                found = Kubernetes(adapter).login(name, value, use_token=False, mount_point=mount)
            case "cert":
                # hvac's own wants the certificate's files for each request; here the connection has shown it.
                found = adapter.post(f"/v1/auth/{mount}/login", json={"name": name} if name else {})
            case "token":
                found = Token(adapter).lookup_self()
        return found

    return say


def as_auth(answer: Answer, given: Secret | None) -> Auth | None:
    """Return the login that an answer holds: to a login, or to the question what a given token is."""
    if given is None or answer.auth is not None:
        return answer.auth
    data = answer.data or {}
    policies = data.get("policies")
    return Auth(
        token=given,
        accessor=str(data.get("accessor", "")),
        policies=tuple(str(each) for each in policies) if isinstance(policies, list) else (),
        ttl=min(max(0.0, number(data.get("ttl")) or 0.0), LONGEST_TIME),
        renewable=bool(data.get("renewable")),
        batch=data.get("type") == "batch",
        name=str(data.get("display_name", "")),
    )


def looking_up_wrapped(token: Secret) -> Callable[[VaultAdapter], Answer]:
    """Return how to ask what a wrapping token is of, which does not use it up and needs no other token."""
    return lambda adapter: adapter.post("/v1/sys/wrapping/lookup", json={"token": token.expose()})


def unwrapping(adapter: VaultAdapter) -> Answer:
    """Unwrap what the adapter's own token wraps."""
    answer: Answer = Wrapping(adapter).unwrap()
    return answer


def renewing(adapter: VaultAdapter) -> Answer:
    """Renew the adapter's own token."""
    answer: Answer = Token(adapter).renew_self()
    return answer


def looking_up(adapter: VaultAdapter) -> Answer:
    """Ask what the adapter's own token is."""
    answer: Answer = Token(adapter).lookup_self()
    return answer


def revoking(adapter: VaultAdapter) -> Answer:
    """Revoke the adapter's own token, and all that hangs on it."""
    answer: Answer = Token(adapter).revoke_self()
    return answer
