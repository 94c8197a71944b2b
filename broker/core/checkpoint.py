"""
Checkpoints of the audit log: what one says, how it is signed, and which key may sign the next.

A checkpoint says how many records there are and the hash of the last one's
line. It has the form of a C2SP signed note (https://c2sp.org/signed-note) with
an Ed25519 signature, and names the key that the next one is signed with: the
key that signed this one is destroyed then, so that nobody can sign it again.
This module refuses to hold a private key, to sign, and to check a signature:
who calls brings a function that does.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from broker.core.chain import Head

FILE: Final = "checkpoints"
"""The file, in the directory of the log, that holds all checkpoints, oldest first."""

MADE: Final = "audit/checkpoint"
"""The event of the record that says that a checkpoint was made."""

REMOVED: Final = "audit/removed"
"""The event of the record that says that a segment is about to be removed."""

KEY_BYTES: Final = 32
LONGEST: Final = 4096
"""Bytes. No checkpoint is as long as this."""

_ORIGIN: Final = "mcp-broker.audit"
_ED25519: Final = b"\x01"
_ID_BYTES: Final = 4
_NOTE: Final = re.compile(
    rb"(?P<text>(?P<name>mcp-broker\.audit/[0-9a-f]{16})\n"
    rb"checkpoint (?P<number>[1-9][0-9]{0,15})\n"
    rb"records (?P<records>[1-9][0-9]{0,15})\n"
    rb"head (?P<head>[0-9a-f]{64})\n"
    rb"time (?P<time>[0-9TZ:.+-]{20,32})\n"
    rb"key (?P<key>[A-Za-z0-9+/]{43}=)\n"
    rb"next (?P<next>[A-Za-z0-9+/]{43}=)\n)"
    rb"\n\xe2\x80\x94 mcp-broker\.audit/[0-9a-f]{16} (?P<signature>[A-Za-z0-9+/]{91}=)\n"
)
_SIGNATURE_LINE: Final = "— ".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """
    One checkpoint, before it is signed.

    Attributes:
        log: the name of the log, 16 hex digits that were drawn when its first key was made.
        number: counted from 1.
        head: the last record that it vouches for, and so all before it.
        time: when it was made, RFC 3339.
        key: the public key that it is signed with.
        next: the public key that the next one is signed with.

    """

    log: str
    number: int
    head: Head
    time: str
    key: bytes
    next: bytes

    @property
    def name(self) -> str:
        """Return what the note calls its signer."""
        return f"{_ORIGIN}/{self.log}"

    @property
    def text(self) -> bytes:
        """Return what is signed."""
        lines = (
            self.name,
            f"checkpoint {self.number}",
            f"records {self.head.seq}",
            f"head {self.head.digest}",
            f"time {self.time}",
            f"key {_base64(self.key)}",
            f"next {_base64(self.next)}",
            "",
        )
        return "\n".join(lines).encode("ascii")

    def note(self, signature: bytes) -> bytes:
        """Return the whole note."""
        signed = _base64(key_id(self.name, self.key) + signature)
        return self.text + b"\n" + _SIGNATURE_LINE + f"{self.name} {signed}\n".encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint with its signature, and the note that it was read from."""

    checkpoint: Checkpoint
    signature: bytes
    note: bytes


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def key_id(name: str, public: bytes) -> bytes:
    """Return the four bytes by which a signed note names its key."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_ID_BYTES]


def verifier_key(checkpoint: Checkpoint) -> str:
    """Return the key of a checkpoint in the form in which tools for signed notes take it."""
    public = checkpoint.key
    return f"{checkpoint.name}+{key_id(checkpoint.name, public).hex()}+{_base64(_ED25519 + public)}"


def read(note: bytes) -> Signed | None:
    """Return what a note says, whoever signed it; None where it is no checkpoint in the one form that there is."""
    found = _NOTE.fullmatch(note)
    if found is None:
        return None
    try:
        key, following, signed = (base64.b64decode(found[name], validate=True) for name in ("key", "next", "signature"))
    except ValueError:
        return None
    checkpoint = Checkpoint(
        log=found["name"].decode().rpartition("/")[2],
        number=int(found["number"]),
        head=Head(seq=int(found["records"]), digest=found["head"].decode()),
        time=found["time"].decode(),
        key=key,
        next=following,
    )
    signature = signed[_ID_BYTES:]
    # One way to write each checkpoint: no other key's id, no other spelling of the same bits.
    if checkpoint.note(signature) != note:
        return None
    return Signed(checkpoint=checkpoint, signature=signature, note=note)


def notes(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each note of a file of them; what is none is yielded too, so that somebody says so."""
    gathered: list[bytes] = []
    length = 0
    for line in lines:
        gathered.append(line)
        length += len(line)
        if line.startswith(_SIGNATURE_LINE) or length > LONGEST:
            yield b"".join(gathered)
            gathered, length = [], 0
    if gathered:
        yield b"".join(gathered)


def broke_off(note: bytes) -> bool:
    """Return whether this is the beginning of a note: a crash came before its signature was written."""
    start = note.rfind(b"\n", 0, -1) + 1
    return len(note) <= LONGEST and not (note.startswith(_SIGNATURE_LINE, start) and note.endswith(b"\n"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    What is on disk: the last checkpoint, and which keys.

    Attributes:
        last: the last whole checkpoint, or None where there is none.
        keys: the public key of each private one, by the number of the checkpoint that it is for; None for one that
            cannot be read.

    """

    last: Checkpoint | None
    keys: Mapping[int, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What to do before the next checkpoint is made.

    Attributes:
        number: which one is next.
        destroy: keys that are of no use any more, or never were.
        fresh: whether a key for it has to be made: there is none that the last checkpoint names.
        lost: whether there should have been one. The next checkpoint is then signed with a key that nobody vouches for.

    """

    number: int
    destroy: tuple[int, ...]
    fresh: bool
    lost: bool


def plan(found: Found) -> Plan:
    """
    Return how to go on, whatever a crash has left.

    There are four steps: the next key is made, the checkpoint is written, the
    key that signed it is destroyed, the next key is the one. A crash leaves the
    key for the next checkpoint (one too many, or not), and that one counts
    alone: nothing else may sign.
    """
    number = 1 if found.last is None else found.last.number + 1
    held = found.keys.get(number)
    fits = held is not None and (found.last is None or held == found.last.next)
    destroy = tuple(sorted(each for each in found.keys if each != number or not fits))
    # Before the first checkpoint there are at most the keys for the first two.
    expected = found.last is not None or not found.keys.keys() <= {1, 2}
    return Plan(number=number, destroy=destroy, fresh=not fits, lost=not fits and expected)
