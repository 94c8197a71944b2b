"""
The files of the checkpoints and of their keys, as the one thread that writes them sees them.

    key n+1 on disk → checkpoint n on disk → key n destroyed

Whatever ends in between leaves one key that may sign the next checkpoint, and
the next start finds which (``broker.core.checkpoint.plan``). Keys are files for
their owner alone, in a directory that is not the log's: who copies the log has
no key along. This module refuses to return a checkpoint that may not be on the
disk, to write on to a file after an error, and to keep a key that has signed.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

from backends.base import BackendError
from backends.private_file import read
from broker import audit_keys
from broker.audit_files import Files
from broker.core import checkpoint as c
from broker.core.chain import Head, rfc3339
from broker.errors import AuditError

_KEY: Final = re.compile(r"checkpoint-([0-9]{6,16})\.key")
_ID_BYTES: Final = 8


@final
class Checkpoints:
    """The checkpoints of one log. One thread at a time."""

    def __init__(self, directory: Path, keys: Path, *, files: Files, clock: Callable[[], float]) -> None:
        """
        Touch nothing yet.

        Args:
            directory: the log's.
            keys: where the private key for the next checkpoint is.
            files: the disk.
            clock: Unix seconds.

        """
        self._path = directory / c.FILE
        self._keys = keys
        self._files = files
        self._clock = clock
        self._plan: c.Plan | None = None
        self.last: c.Signed | None = None
        """The last checkpoint that is on the disk."""
        self.lost = False
        """Whether the key was gone that the last checkpoint named: the next one is signed with another."""

    def start(self) -> c.Signed | None:
        """
        Find what there is, finish what a crash broke off, and return the last checkpoint.

        Raises:
            AuditError: the disk or a file's mode says no.

        """
        try:
            self._make_directory()
            self.last = self._read()
            found = c.Found(last=None if self.last is None else self.last.checkpoint, keys=dict(self._held()))
            self._plan = c.plan(found)
            self.lost = self.lost or self._plan.lost
            for number in self._plan.destroy:
                self._destroy(number)
            for path in [path for path in self._keys.iterdir() if path.suffix == ".new"]:
                self._files.destroy(path)
        except OSError as error:
            raise self._failed(error) from None
        return self.last

    def make(self, head: Head) -> c.Signed:
        """
        Make the next checkpoint, of the log with this head, which is on the disk.

        Raises:
            AuditError: there is none. Whether a part of it is on the disk is found out before the next.

        """
        if self._plan is None:
            self.start()
        plan, self._plan = self._plan, None
        assert plan is not None
        try:
            made = self._made(plan, head)
        except OSError as error:
            raise self._failed(error) from None
        self._plan = c.Plan(number=plan.number + 1, destroy=(), fresh=False, lost=False)
        self.last = made
        return made

    def _made(self, plan: c.Plan, head: Head) -> c.Signed:
        private = self._new_key(plan.number) if plan.fresh else self._key(plan.number)
        following = audit_keys.public(self._new_key(plan.number + 1))
        self._files.sync_directory(self._keys)
        said = c.Checkpoint(
            log=secrets.token_hex(_ID_BYTES) if self.last is None else self.last.checkpoint.log,
            number=plan.number,
            head=head,
            time=rfc3339(self._clock()),
            key=audit_keys.public(private),
            next=following,
        )
        signature = audit_keys.sign(private, said.text)
        note = said.note(signature)
        self._append(note)
        self._destroy(plan.number)
        return c.Signed(checkpoint=said, signature=signature, note=note)

    # -- the checkpoints -----------------------------------------------------

    def _read(self) -> c.Signed | None:
        """Return the last checkpoint; have the file whole and on the disk, without one that broke off."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        each = list(c.notes(text.splitlines(keepends=True)))
        found = [signed for note in each if (signed := c.read(note)) is not None]
        whole = b"".join(each[:-1] if each and c.broke_off(each[-1]) else each)
        # After a crash or an error nobody knows what of the file is on the disk, so it is written anew.
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        self._written(new, whole)
        self._files.rename(new, self._path)
        self._files.sync_directory(self._path.parent)
        return found[-1] if found else None

    def _append(self, note: bytes) -> None:
        if not self._path.exists():
            self._written(self._path, note)
            self._files.sync_directory(self._path.parent)
            return
        descriptor = self._files.append_to(self._path)
        try:
            self._write(descriptor, note)
        finally:
            os.close(descriptor)

    def _written(self, path: Path, content: bytes) -> None:
        descriptor = self._files.create(path)
        try:
            self._write(descriptor, content)
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, content: bytes) -> None:
        while content:
            taken = self._files.write(descriptor, content)
            if not taken:
                raise OSError(28, os.strerror(28))
            content = content[taken:]
        self._files.sync(descriptor)

    # -- the keys ------------------------------------------------------------

    def _make_directory(self) -> None:
        if not self._keys.is_dir():
            self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files.sync_directory(self._keys.parent)
        if self._files.stat(self._keys).st_mode & 0o077:
            message = "others have access to the directory of the keys for checkpoints"
            raise AuditError(message, hint=f"chmod 700 {self._keys}")

    def _held(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the number and the public key of every private one."""
        for path in self._keys.iterdir():
            found = _KEY.fullmatch(path.name)
            if found is not None:
                number = int(found[1])
                private = self._key(number)
                yield number, audit_keys.public(private) if len(private) == c.KEY_BYTES and any(private) else None

    def _key(self, number: int) -> bytes:
        path = self._name(number)
        try:
            return read(path, "key for checkpoints", hint=f"ls -l {path}")
        except BackendError as error:
            raise AuditError(error.message, hint=error.hint) from None

    def _new_key(self, number: int) -> bytes:
        private = audit_keys.fresh()
        path = self._name(number)
        new = path.with_suffix(".new")
        self._files.destroy(new)
        self._files.destroy(path)
        self._written(new, private)
        self._files.rename(new, path)
        self._files.sync_directory(self._keys)
        return private

    def _destroy(self, number: int) -> None:
        self._files.destroy(self._name(number))
        self._files.sync_directory(self._keys)

    def _name(self, number: int) -> Path:
        return self._keys / f"checkpoint-{number:06d}.key"

    def _failed(self, error: OSError) -> AuditError:
        reason = (error.strerror or type(error).__name__).lower()
        return AuditError(
            f"no checkpoint can be made: {reason}", hint=f"df -h {self._path.parent}; ls -ld {self._keys}"
        )
