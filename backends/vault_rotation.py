"""
What a Vault replaces when it is told to: the accounts that it holds itself, and what the broker logs in with.

A static account is rotated by the server, which writes the new password down
before it uses it and goes on trying by itself; being told twice is harmless.
The broker's own secret-id is made here and written to its file's side before the
server knows it, and the one before stays beside it until the server has forgotten
it, so that whatever is cut off in between can be taken up again.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from backends import private_file
from backends.base import MisconfiguredError, OutcomeUnknownError, Secret, SecretNotFoundError, UnavailableError
from backends.vault_asking import Asking
from backends.vault_engines import Plan
from backends.vault_options import Login
from backends.vault_tokens import Tokens

_ROTATED_AT: Final[Mapping[str, str]] = MappingProxyType(
    {"static-creds": "rotate-role", "static-cred": "rotate-role", "config": "rotate-root"},
)
"""Where what stands at a path is rotated, by the second word of the path."""

_LENGTH: Final = 32
"""Random bytes of a new secret-id."""

Stage = Callable[[str], None]
"""Is told that a stage is done; tests end everything there."""


def rotated_at(path: str) -> str:
    """Return the path that rotates what stands at ``path``. Raises ``MisconfiguredError``."""
    mount, _, inside = path.strip("/").partition("/")
    word, slash, name = inside.partition("/")
    if word in _ROTATED_AT.values():
        return f"{mount}/{inside}"
    if word not in _ROTATED_AT:
        message = f"the server rotates nothing at {path}"
        raise MisconfiguredError(message, hint="path = database/static-creds/ROLE, or database/config/NAME for root")
    return f"{mount}/{_ROTATED_AT[word]}{slash}{name}"


async def rotate(asking: Asking, path: str) -> None:
    """Have the server replace what stands at ``path``."""
    there = Plan(path=rotated_at(path), write=True, body={})
    await asking.ask(asking.calls.fetching(there), what=there.path)


async def rotate_secret_id(asking: Asking, tokens: Tokens, login: Login, *, stage: Stage = lambda _: None) -> None:
    """
    Replace the broker's own secret-id; done again after a crash, it goes on where it was.

    Two files beside it say how far it is: ``.next`` holds the one to come, and ``.old``, which is there
    once the new one has logged in, the one that the server has yet to forget.

    Args:
        asking: asks the server.
        tokens: the login that goes on with the new one.
        login: how the broker logs in.
        stage: told of each moment at which everything before is on disk or at the server.

    Raises ``MisconfiguredError`` where it is not in a file that the broker may replace.

    """
    file = _replaceable(login)
    coming, leaving = file.with_name(f"{file.name}.next"), file.with_name(f"{file.name}.old")
    place = f"auth/{login.mount}/role/{(await tokens.current()).name}"
    stage("begun")
    if not await asyncio.to_thread(leaving.exists):
        before = await asyncio.to_thread(_read, file)
        fresh = await asyncio.to_thread(_written, coming, Secret(secrets.token_urlsafe(_LENGTH)))
        stage("made")
        await _register(asking, place, fresh)
        stage("registered")
        await tokens.log_in_with(fresh)
        stage("logged in")
        await asyncio.to_thread(_written, leaving, before)
        stage("kept")
    await asyncio.to_thread(private_file.put_in_place, coming, file)
    stage("in place")
    before = await asyncio.to_thread(_read, leaving)
    if before != await asyncio.to_thread(_read, file):
        await _destroy(asking, place, before)
    stage("destroyed")
    await asyncio.to_thread(_forget, leaving)
    stage("forgotten")


def _replaceable(login: Login) -> Path:
    if login.method != "approle" or login.wrapped or login.proof is None:
        message = f"the login by {login.method} cannot be replaced here"
        raise MisconfiguredError(message, hint="auth.approle with secret_id_file, where the broker may write")
    file = login.proof.path
    if file.parts[0].startswith("$"):
        message = "a secret-id in a systemd credential can be replaced by an operator alone"
        raise MisconfiguredError(message, hint="use secret_id_file")
    return file


async def _register(asking: Asking, place: str, fresh: Secret) -> None:
    """Tell the server the new one; where it may know it already, the login will show."""
    known = Plan(path=f"{place}/custom-secret-id", write=True, body={"secret_id": fresh.expose()})
    try:
        await asking.ask(asking.calls.fetching(known), what=known.path)
    except (MisconfiguredError, OutcomeUnknownError, UnavailableError):
        return


async def _destroy(asking: Asking, place: str, before: Secret) -> None:
    """Have the server forget one; where it does not know it any more, that is done."""
    destroy = Plan(path=f"{place}/secret-id/destroy", write=True, body={"secret_id": before.expose()})
    with contextlib.suppress(SecretNotFoundError):
        await asking.ask(asking.calls.fetching(destroy), what=destroy.path)


def _written(path: Path, value: Secret) -> Secret:
    """Return what a file holds, which is ``value`` unless it is there already; on disk before anybody else knows."""
    try:
        private_file.create(path, value.expose().encode())
    except FileExistsError:
        pass
    except OSError as error:
        message = f"a secret-id cannot be written to {path}: {error.strerror}"
        raise MisconfiguredError(message, hint=f"the broker has to be able to write in {path.parent}") from None
    return _read(path)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        private_file.sync_directory(path.parent)
    except OSError as error:
        message = f"{path} cannot be removed: {error.strerror}"
        raise MisconfiguredError(message, hint=f"the broker has to be able to write in {path.parent}") from None


def _read(path: Path) -> Secret:
    try:
        return Secret(private_file.read(path, "secret-id", hint=f"put it into {path}").decode().strip())
    except UnicodeDecodeError:
        message = f"{path} holds no secret-id"
        raise MisconfiguredError(message) from None
