"""The files of checkpoints and their keys: one legal state, wherever it breaks off, and no key that signed is left."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from broker import audit_keys
from broker.audit_checkpoints import Checkpoints
from broker.audit_files import Disk
from broker.core import chain
from broker.core import checkpoint as c
from broker.core.findings import Report
from broker.core.verification import verify
from broker.errors import AuditError
from tests.fakes.bad_disk import BadDisk

HEADS = [chain.Head(seq=number, digest=sha256(bytes([number])).hexdigest()) for number in range(1, 200)]


class DiedError(BaseException):
    """The process ends here."""


class Mortal(BadDisk):
    """A disk whose process dies before one of its calls, or in the middle of a write."""

    def __init__(self, dies_at: int, *, torn: bool = False) -> None:
        """Die before this call, counted from 1; or after a part of it, where it is a write."""
        super().__init__()
        self.dies_at, self.torn, self.count = dies_at, torn, 0

    def _call(self, name: str) -> None:
        super()._call(name)
        if name.startswith("rename to"):
            return
        self.count += 1
        if self.count == self.dies_at and not (self.torn and name == "write"):
            raise DiedError

    def write(self, descriptor: int, text: bytes) -> int:
        """Write all, or a part and die."""
        taken = super().write(descriptor, text if self.count + 1 != self.dies_at or not self.torn else text[:-40])
        if self.count == self.dies_at:
            raise DiedError
        return taken


def kept(place: Path, files: Disk | BadDisk | None = None) -> Checkpoints:
    """Return the checkpoints in a place."""
    (place / "audit").mkdir(exist_ok=True)
    return Checkpoints(place / "audit", place / "signing", files=files or Disk(), clock=lambda: 1_790_000_000.0)


def keys(place: Path) -> list[str]:
    """Return the names of the key files."""
    return sorted(path.name for path in (place / "signing").iterdir())


def notes(place: Path) -> list[c.Signed | None]:
    """Return what stands in the file of checkpoints."""
    text = (place / "audit" / c.FILE).read_bytes() if (place / "audit" / c.FILE).exists() else b""
    return [c.read(note) for note in c.notes(text.splitlines(keepends=True))]


def judged(place: Path) -> Report:
    """Verify the file of checkpoints beside a chain that nothing is compared with."""
    text = (place / "audit" / c.FILE).read_bytes()
    return verify([], notes=c.notes(text.splitlines(keepends=True)), signed=audit_keys.signed)


def wrong(report: Report) -> list[str]:
    """Return what is wrong with checkpoints, whatever there is to say of a chain that is not there."""
    return [each.kind for each in report.findings if each.alarm and each.where.startswith(c.FILE)]


def test_keys_move_forward(tmp_path: Path) -> None:
    """Each checkpoint is signed by the key that the one before names, and that key is gone."""
    checkpoints = kept(tmp_path)
    made = [checkpoints.make(head).checkpoint for head in HEADS[:4]]
    assert [1, 2, 3, 4] == [each.number for each in made]
    assert [each.next for each in made[:-1]] == [each.key for each in made[1:]]
    assert ["checkpoint-000005.key"] == keys(tmp_path)
    assert [] == wrong(judged(tmp_path))
    assert 1 == len({each.log for each in made})


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Keys and checkpoints have mode 0600, in a directory of mode 0700; others' access is refused."""
    before = os.umask(0)
    try:
        kept(tmp_path).make(HEADS[0])
    finally:
        os.umask(before)
    paths = [tmp_path / "signing", *(tmp_path / "signing").iterdir(), tmp_path / "audit" / c.FILE]
    assert {0o700, 0o600} == {path.stat().st_mode & 0o777 for path in paths}
    (tmp_path / "signing").chmod(0o755)
    with pytest.raises(AuditError, match="others have access"):
        kept(tmp_path).make(HEADS[1])
    (tmp_path / "signing").chmod(0o700)
    (tmp_path / "signing/checkpoint-000002.key").chmod(0o640)
    with pytest.raises(AuditError, match="others than its owner have access"):
        kept(tmp_path).make(HEADS[1])


def test_no_key_is_in_a_checkpoint_and_none_is_reused(tmp_path: Path) -> None:
    """No private key stands in the file that is copied, and after a restart the next one signs."""
    kept(tmp_path).make(HEADS[0])
    private = (tmp_path / "signing/checkpoint-000002.key").read_bytes()
    kept(tmp_path).make(HEADS[1])
    text = (tmp_path / "audit" / c.FILE).read_bytes()
    assert private not in text
    assert [audit_keys.public(private)] == [each.checkpoint.key for each in notes(tmp_path)[1:] if each is not None]


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_crash_between_any_two_steps_leaves_one_legal_state(tmp_path: Path, before: int, *, torn: bool) -> None:
    """
    Wherever the process dies, the next start has one key, the checkpoints verify, and the next one is made.

    Not a single step may be left out: it goes on until a run reaches its end.
    """
    for dies_at in range(1, 100):
        place = tmp_path / str(dies_at)
        place.mkdir()
        for head in HEADS[:before]:
            kept(place).make(head)
        try:
            kept(place, Mortal(dies_at, torn=torn)).make(HEADS[before])
        except DiedError:
            after = kept(place)
            last = after.start()
            number = 0 if last is None else last.checkpoint.number
            assert number in {before, before + 1}
            assert (False, [f"checkpoint-{number + 1:06d}.key"] if number else keys(place)) == (after.lost, keys(place))
            assert number + 1 == after.make(HEADS[before + 1]).checkpoint.number
            assert [f"checkpoint-{number + 2:06d}.key"] == [name for name in keys(place) if name.endswith(".key")]
            assert [] == wrong(judged(place))
        else:
            assert dies_at > 8
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("call", ["create", "write", "sync", "sync_directory", "rename", "destroy", "append_to"])
def test_a_disk_that_fails_at_any_call_loses_nothing(tmp_path: Path, call: str) -> None:
    """What fails is told, nothing that may not be on the disk is returned, and the next checkpoint goes on."""
    disk = BadDisk()
    checkpoints = kept(tmp_path, disk)
    checkpoints.make(HEADS[0])
    disk.failing = {call: 28}
    with pytest.raises(AuditError, match="no checkpoint can be made: no space left on device"):
        checkpoints.make(HEADS[1])
    disk.failing = {}
    checkpoints.make(HEADS[2])
    assert [] == wrong(judged(tmp_path))
    assert 1 == len(keys(tmp_path))
    assert all(each is not None for each in notes(tmp_path))


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda place: (place / "signing/checkpoint-000004.key").unlink(), True),
        (lambda place: (place / "signing/checkpoint-000004.key").write_bytes(bytes(range(32))), True),
        (lambda place: (place / "audit" / c.FILE).unlink(), True),
        (lambda place: (place / "signing/checkpoint-000007.key").write_bytes(bytes(32)), False),
    ],
)
def test_a_key_that_does_not_fit_is_said_and_shows(
    tmp_path: Path, change: Callable[[Path], object], *, lost: bool
) -> None:
    """Without the key that the last checkpoint names the next is signed by another, and verification finds that."""
    for head in HEADS[:3]:
        kept(tmp_path).make(head)
    before = (tmp_path / "audit" / c.FILE).read_bytes()
    change(tmp_path)
    for path in (tmp_path / "signing").iterdir():
        path.chmod(0o600)
    checkpoints = kept(tmp_path)
    checkpoints.make(HEADS[3])
    assert lost == checkpoints.lost
    now = (tmp_path / "audit" / c.FILE).read_bytes()
    if now.startswith(before):
        assert (["signed-again"] if lost else []) == wrong(judged(tmp_path))
    assert ["checkpoint-000005.key" if now.startswith(before) else "checkpoint-000002.key"] == keys(tmp_path)


def test_a_note_has_one_spelling(tmp_path: Path) -> None:
    """Of a checkpoint with any byte changed nothing verifies: it is none, or its signature does not fit."""
    signed = kept(tmp_path).make(HEADS[0])
    good = []
    for at in range(len(signed.note)):
        changed = bytearray(signed.note)
        changed[at] ^= 1
        found = c.read(bytes(changed))
        if found is not None and audit_keys.signed(found.checkpoint.key, found.signature, found.checkpoint.text):
            good.append(at)
    assert [] == good


def test_a_note_is_what_other_tools_read(tmp_path: Path) -> None:
    """The form is that of C2SP signed notes: text, an empty line, a signature line whose first bytes name the key."""
    signed = kept(tmp_path).make(HEADS[0])
    text, _, line = signed.note.decode().partition("\n\n")
    dash, name, _ = line.split(" ")
    key = c.verifier_key(signed.checkpoint)
    assert ("—", signed.checkpoint.name, name) == (dash, name, text.splitlines()[0])
    assert (name, sha256(name.encode() + b"\n\x01" + signed.checkpoint.key).hexdigest()[:8]) == tuple(
        key.split("+")[:2]
    )
