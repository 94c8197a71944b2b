"""
Removing the directory of a server that has ended, with whatever the server put into it.

This module refuses to follow a symbolic link, to go deeper than one level at a
time (what lies deeper is pulled up first, so that neither the stack nor the
table of descriptors can run out), and to let one thing that cannot be removed
keep the others.
"""

import os

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(base: int, name: str) -> None:
    """
    Remove the directory ``name`` in ``base`` with all that is in it.

    Nothing is raised: what is gone already somebody else has swept, and what
    cannot go now is tried again by the next sweep.
    """
    try:
        directory = _entered(base, name)
    except OSError:
        return
    try:
        pending = os.listdir(directory)
        while pending:
            pending += _removed(directory, pending.pop())
    except OSError:
        pass
    finally:
        os.close(directory)
    _gone(base, name)


def _removed(top: int, name: str) -> "list[str]":
    """Remove a file, or pull out what is in a directory and remove that; return the names of what was pulled out."""
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        pulled = _pulled_out(top, name)
        _gone(top, name)
        return pulled
    except OSError:
        pass
    return []


def _pulled_out(top: int, name: str) -> "list[str]":
    """Move all that is in a directory one level up, under names that are nobody's; return them."""
    pulled: list[str] = []
    try:
        directory = _entered(top, name)
    except OSError:
        return pulled
    try:
        for inner in os.listdir(directory):
            new = os.urandom(16).hex()
            try:
                _loosen(directory, inner)
                os.rename(inner, new, src_dir_fd=directory, dst_dir_fd=top)
            except OSError:
                continue
            pulled.append(new)
    except OSError:
        pass
    finally:
        os.close(directory)
    return pulled


def _entered(base: int, name: str) -> int:
    """Open a directory to empty it, whatever mode its owner has left it in."""
    _loosen(base, name)
    return os.open(name, DIRECTORY, dir_fd=base)


def _loosen(base: int, name: str) -> None:
    """Let the owner of a directory do with it what they like; leave what is none alone."""
    try:
        found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
    except OSError:
        return
    try:
        # By its descriptor, because the name may lead elsewhere by now.
        os.chmod(f"/proc/self/fd/{found}", 0o700)
    except OSError:
        pass
    finally:
        os.close(found)


def _gone(base: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=base)
    except OSError:
        pass
