"""The audit log whose current file somebody deletes, replaces, cuts off or writes to."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.audit import AuditLog
from broker.errors import AuditError
from tests.audit_steps import QUICK, judged, opened, reasons, recovered, refused, run, until


def delete(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def delete_all(path: Path) -> None:
    """Delete the directory with everything in it."""
    shutil.rmtree(path.parent)


def replace_by_copy(path: Path) -> None:
    """Put a copy in the place of the file."""
    shutil.copy(path, path.parent / "copy")
    (path.parent / "copy").rename(path)


def replace_by_forgery(path: Path) -> None:
    """Put another text in the place of the file."""
    (path.parent / "forgery").write_bytes(path.read_bytes()[:-1] + b" \n")
    (path.parent / "forgery").rename(path)


def replace_by_directory(path: Path) -> None:
    """Put a directory in the place of the file."""
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    """Put a link to the file in its place."""
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def truncate(path: Path) -> None:
    """Cut the last line off."""
    os.truncate(path, path.read_bytes()[:-1].rfind(b"\n") + 1)


def append(path: Path) -> None:
    """Append to the file."""
    with path.open("ab") as file:
        file.write(b"{}\n")


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize(
    ("harm", "why", "alarm"),
    [
        (delete, "missing", "missing-segment"),
        (delete_all, "missing", "missing-segment"),
        (replace_by_copy, "replaced", None),
        (replace_by_forgery, "replaced", "edited"),
        (replace_by_directory, "replaced", "missing-segment"),
        (replace_by_link, "replaced", "missing-segment"),
        (truncate, "truncated", "dropped"),
        (append, "appended", "not-json"),
    ],
)
def test_file_that_others_touched(
    tmp_path: Path, harm: Callable[[Path], None], why: str, alarm: str | None, *, busy: bool
) -> None:
    """What others do to the current segment is noticed at the next record or soon; then a new one begins."""
    place = tmp_path / "audit"

    async def body() -> None:
        async with opened(place) as log:
            await log.record("test/before")
            harm(place / "audit.jsonl")
            if busy:
                assert "current segment" in await refused(log)
            else:
                await until(lambda: log.state().state == "failed")
            await recovered(log)
            await log.record("test/after")
            assert b"test/after" in (place / "audit.jsonl").read_bytes().splitlines()[-1]

    run(body)
    assert why == reasons(place)[-1]
    first = judged(place).first_alarm
    assert alarm == (first and first.kind)


def test_directory_that_was_replaced_is_locked_again(tmp_path: Path) -> None:
    """A log whose directory was replaced by another holds the lock there too."""
    place = tmp_path / "audit"

    async def body() -> None:
        async with opened(place) as log:
            delete_all(place / "audit.jsonl")
            place.mkdir(mode=0o700)
            (place / "lock").touch()
            await refused(log)
            await recovered(log)
            with pytest.raises(AuditError, match="another broker"):
                await AuditLog(place, settings=QUICK).open()

    run(body)
