"""
A backend that mints, and the source behind it: dynamic credentials without a server.

The source is a directory that survives whatever happens to the broker. Its
journal says what was minted, read, renewed and revoked, and ``behave`` tells it,
while the broker runs, to be slow, to refuse, to lose an answer, to hang, or to
take its broker down with SIGKILL. Some of its paths may be static ones, and it
may be one that prepares, or that examines. ``install`` makes an installed package of this very
file, with an entry point, as a third party would; so this module imports nothing
but ``backends.base`` and the standard library. It refuses to write down a value.
"""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backends.base import (
    Credential,
    Health,
    Lack,
    LeaseGoneError,
    LockedError,
    MisconfiguredError,
    OutcomeUnknownError,
    Preparation,
    RefusedError,
    Secret,
    SecretNotFoundError,
    Surroundings,
    UnavailableError,
)

KIND: Final = "minting"
HANDLE: Final = "handle-"
"""What the handle of an intent begins with; the intent follows."""
PREFIX: Final = "minted-value-"
"""What every value begins with, so that one can be looked for."""

_JOURNAL: Final = "journal"
_BEHAVIOUR: Final = "behaviour.json"
_ERRORS: Final = {
    "refused": RefusedError,
    "missing": SecretNotFoundError,
    "locked": LockedError,
    "gone": LeaseGoneError,
    "unavailable": UnavailableError,
    "unknown": OutcomeUnknownError,
    "unexpected": ZeroDivisionError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """One credential at the source: its name there, what it is for, the broker's intent, what became of it."""

    name: str
    path: str
    intent: str
    renewals: int
    revocations: int


class Source:
    """What stands behind the backend, as a test sees it."""

    def __init__(self, directory: Path) -> None:
        """Make the source in ``directory``, or take up the one that is there."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def behave(self, **verbs: Mapping[str, Any]) -> None:
        """
        Say how each verb behaves from now on; one that is not named behaves well.

        Args:
            verbs: ``open``, ``prepare``, ``issue``, ``read`` (``issue`` of what is static), ``renew``, ``revoke``,
                ``health``, ``examine``, ``close``, each with any of ``wait`` (seconds), ``hang`` (true), ``fail``
                (``refused``, ``missing``, ``locked``, ``gone``, ``unavailable``, ``unknown``, ``unexpected``: nothing
                is done), ``lose`` (the same words: it is done, and the answer is lost), ``kill`` (``before`` or
                ``after``: of the broker), ``text`` (of the error), and for ``issue`` and ``read`` with ``value``.

        """
        new = self.directory / "new"
        new.write_text(json.dumps(verbs), "utf-8")
        new.rename(self.directory / _BEHAVIOUR)

    def minted(self) -> dict[str, Minted]:
        """Return everything that was ever minted, by its name."""
        events: dict[str, list[list[str]]] = {}
        path = self.directory / _JOURNAL
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            word, name, *rest = line.split(" ")
            events.setdefault(name, []).append([word, *rest])
        found = {}
        for name, (first, *later) in events.items():
            if first[0] != "minted":
                continue
            # Who gives back what was prepared for an intent gives back all that came of it.
            words = [word for word, *_ in (*later, *events.get(HANDLE + first[2], ()))]
            found[name] = Minted(
                name=name,
                path=first[1],
                intent=first[2],
                renewals=words.count("renewed"),
                revocations=words.count("revoked"),
            )
        return found

    def count(self, word: str) -> int:
        """Return how often something was done: ``prepared``, ``minted``, ``read``, ``renewed``, ``revoked``."""
        path = self.directory / _JOURNAL
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return sum(line.startswith(f"{word} ") for line in lines)

    def revoke(self, name: str) -> None:
        """Revoke one at the source, behind the broker's back."""
        _write(self.directory, f"revoked {name}")

    def valid(self) -> dict[str, str]:
        """Return what was minted and not revoked: the broker's intent of each, by its name."""
        return {name: each.intent for name, each in self.minted().items() if not each.revocations}


class Minting:
    """The backend."""

    def __init__(self, name: str, directory: Path, options: Mapping[str, Any]) -> None:
        """Keep the options; ``open`` looks whether the source is there."""
        self.name = name
        self._directory = directory
        self._roles = frozenset(options.get("roles", ()))
        self._static = frozenset(options.get("static", ()))
        self._ttl: float | None = options.get("ttl")
        self._most: float | None = options.get("most")
        self._renewable: bool = options.get("renewable", True)
        self._leases: bool = options.get("leases", True)
        self._open = False

    async def open(self) -> None:
        """Be ready, where the source is there."""
        await self._misbehave("open")
        self._open = self._directory.is_dir()

    async def close(self) -> None:
        """Answer no more."""
        await self._misbehave("close")
        self._open = False

    def mints(self, path: str) -> bool:
        """Return that it does, but for what is static."""
        return path not in self._static

    def at_hand(self, path: str) -> Credential | None:
        """Return nothing: what is new each time is never at hand."""
        del path
        return None

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Mint a credential, or read a static one."""
        del params
        if path in self._static:
            await self._do("read", f"read {path}")
            value = Secret(self._behaviour().get("read", {}).get("value", f"{PREFIX}static"))
            return Credential(values={"value": value}, version=1, ttl=self._ttl)
        if path not in self._roles:
            message = f"the source has no role {path!r}"
            raise SecretNotFoundError(message, hint="add it to roles")
        name = secrets.token_hex(8)
        await self._do("issue", f"minted {name} {path} {intent} {time.time()}")
        value = Secret(self._behaviour().get("issue", {}).get("value", PREFIX + secrets.token_hex(16)))
        return Credential(
            values={"username": Secret(name), "password": value},
            backend_lease=name if self._leases else None,
            ttl=self._ttl,
            renewable=self._renewable,
        )

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Prolong one that is there, up to the most that it may live."""
        if backend_lease not in Source(self._directory).valid():
            message = "the source has no such lease"
            raise LeaseGoneError(message)
        await self._do("renew", f"renewed {backend_lease}")
        given = increment if self._ttl is None else min(increment, self._ttl)
        if self._most is None:
            return given
        lines = (self._directory / _JOURNAL).read_text("utf-8").splitlines()
        began = next(float(line.split(" ")[4]) for line in lines if line.startswith(f"minted {backend_lease} "))
        return max(0.0, min(given, began + self._most - time.time()))

    async def revoke(self, backend_lease: str) -> None:
        """Make one worthless."""
        await self._do("revoke", f"revoked {backend_lease}")

    async def health(self) -> Health:
        """Say whether the source is there, and where."""
        await self._misbehave("health")
        if not self._open:
            return Health(state="unavailable", detail="the source is not open")
        return Health(state="ok", facts={"directory": self._directory.name})

    async def _misbehave(self, verb: str) -> Mapping[str, Any]:
        """Behave as the source was told to before a verb does what it does; return how it was told to behave."""
        said = self._behaviour().get(verb, {})
        await asyncio.sleep(said.get("wait", 0))
        if said.get("hang"):
            await asyncio.Event().wait()
        if "fail" in said:
            raise _ERRORS[said["fail"]](said.get("text", "the source was told to fail"))
        if said.get("kill") == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return said

    async def _do(self, verb: str, line: str) -> None:
        """Do what the verb does, which is to write a line, the way the source was told to behave."""
        said = await self._misbehave(verb)
        _write(self._directory, line)
        if said.get("kill") == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if "lose" in said:
            raise _ERRORS[said["lose"]](said.get("text", "the answer was lost"))

    def _behaviour(self) -> Mapping[str, Mapping[str, Any]]:
        try:
            text = (self._directory / _BEHAVIOUR).read_text("utf-8")
        except FileNotFoundError:
            return {}
        found: Mapping[str, Mapping[str, Any]] = json.loads(text)
        return found


class Preparing(Minting):
    """One that says beforehand how to take back what a lost answer leaves behind."""

    async def prepare(self, path: str, *, params: Mapping[str, Any], intent: str) -> Preparation:
        """Name the handle of an intent; nothing is worth anything by that."""
        del path, params
        await self._do("prepare", f"prepared {HANDLE}{intent}")
        return Preparation(handle=HANDLE + intent, longest=self._most)


class Foretelling(Minting):
    """One that only knows beforehand how long what it mints may live."""

    async def prepare(self, path: str, *, params: Mapping[str, Any], intent: str) -> Preparation:
        """Say so, and do nothing."""
        del path, params, intent
        return Preparation(longest=self._most)


class Learning(Preparing):
    """One that takes every path for one that it mints at, until it has looked."""

    def __init__(self, name: str, directory: Path, options: Mapping[str, Any]) -> None:
        """Know nothing yet."""
        super().__init__(name, directory, options)
        self._looked: set[str] = set()

    def mints(self, path: str) -> bool:
        """Return that it does, but for what it has seen to be static."""
        return path not in self._looked or super().mints(path)

    async def prepare(self, path: str, *, params: Mapping[str, Any], intent: str) -> Preparation:
        """Look what is there, and prepare it where it is minted."""
        self._looked.add(path)
        return await super().prepare(path, params=params, intent=intent) if self.mints(path) else Preparation()


class Examining(Minting):
    """One that says what it would not be let do, and what it would need; it has a login that it can give back."""

    async def examine(self, wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Lack]:
        """Lack a role for each path that is none."""
        await self._misbehave("examine")
        known = self._roles | self._static
        return {path: Lack(f"no role {path!r}", hint=f"add {path} to roles") for path in wanted if path not in known}

    async def policy(self, wanted: Mapping[str, Mapping[str, Any]]) -> str:
        """Return a line for each path."""
        await self._misbehave("examine")
        return "".join(f"role {path} {json.dumps(dict(params))}\n" for path, params in sorted(wanted.items()))

    async def log_out(self) -> None:
        """Note that the login was given back."""
        _write(self._directory, "logged-out login")


_KINDS: Final = {
    "minting": Minting,
    "preparing": Preparing,
    "foretelling": Foretelling,
    "learning": Learning,
    "examining": Examining,
}
_OPTIONS: Final = frozenset({"source", "roles", "static", "ttl", "most", "renewable", "leases", "kind"})


def _write(directory: Path, line: str) -> None:
    # One write of a short line at the end of a file: nothing of it is lost or torn by SIGKILL.
    journal = os.open(directory / _JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(journal, f"{line}\n".encode())
    finally:
        os.close(journal)


def from_config(name: str, options: Mapping[str, Any], surroundings: Surroundings) -> Minting:
    """
    Make the backend.

    Args:
        name: as the config calls it.
        options: ``source``, a directory; ``roles`` and ``static``, its paths; ``ttl``, the most seconds it gives at
            once; ``most``, the seconds that one lives at most; ``renewable``; ``leases``, whether what it mints can be
            revoked; ``kind``, one of ``minting``, ``preparing``, ``foretelling``,
            ``learning``, ``examining``.
        surroundings: whose directory a relative path starts from.

    """
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown or "source" not in options:
        message = f"unknown option {unknown[0]}" if unknown else "the option source is missing"
        raise MisconfiguredError(message)
    kind = _KINDS[options.get("kind", "minting")]
    return kind(name, surroundings.config / options["source"], options)


def install(directory: Path) -> Path:
    """Install this module into ``directory`` as a package of somebody else's; return it, to be put on a path."""
    metadata = directory / "minting_backend-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (directory / "minting_backend.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: minting-backend\nVersion: 1.0\n", "utf-8")
    entry_points = f"[mcp_broker.backends]\n{KIND} = minting_backend:from_config\n"
    (metadata / "entry_points.txt").write_text(entry_points, "utf-8")
    return directory
