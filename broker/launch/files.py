"""
Credentials as files, on a file system that is in memory and nowhere else.

Each process has a private directory named ``PID.STARTTIME``, so that anybody
who finds it can tell whether that process still lives and remove it otherwise.
Outside the first pid namespace the name ends in ``.NAMESPACE`` too: its pids
mean nothing to others. This module refuses to write to a disk, to a directory
that others can enter, through a symbolic link, and where nobody would remove
the files when the server has ended.
"""

import os

from broker.launch.failure import CannotStartError
from broker.launch.removal import DIRECTORY, remove

IN_MEMORY = {"tmpfs", "ramfs"}
FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel, the same on every machine."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - what is ours in it is checked below
MOUNT = f"mount -t tmpfs -o mode=1777 tmpfs {SHARED_MEMORY}"
UNIT = "write RuntimeDirectory=NAME under [Service] in the server's unit; systemd removes it when the server has ended"

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _UnfitError(Exception):
    """This directory will not do."""


class Files:
    """The directory of this process."""

    def __init__(self, base: str, descriptor: int, name: str) -> None:
        """Stand for the directory ``name`` in ``base``, which is open as ``descriptor``."""
        self.path = f"{base}/{name}"
        self._base = descriptor
        self._name = name

    def write(self, name: str, value: str) -> str:
        """Write one file that nobody else can read; return its path."""
        directory = os.open(self._name, DIRECTORY, dir_fd=self._base)
        try:
            with open(os.open(name, _NEW_FILE, 0o600, dir_fd=directory), "wb") as file:
                file.write(value.encode())
        finally:
            os.close(directory)
        return f"{self.path}/{name}"

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        remove(self._base, self._name)


def write_all(files: dict[str, str], runtime_directory: str, *, swept: bool) -> tuple[Files, dict[str, str]]:
    """
    Write every file.

    Args:
        files: variables, and what stands in the files that they name.
        runtime_directory: what systemd made for this service, and removes; several are separated by colons.
        swept: whether the broker removes the files where systemd does not, which takes one of our own uid.

    Returns:
        The directory, and the path of the file for each variable.

    Raises:
        CannotStartError: there is no place in memory that is ours alone, or it is full.

    """
    place = _place(_bases(runtime_directory, swept=swept), hint=MOUNT if swept else UNIT)
    try:
        return place, {name: place.write(_name(name), value) for name, value in files.items()}
    except OSError as error:
        place.remove()
        message = f"cannot write a file in {place.path}: {_reason(error)}"
        raise CannotStartError(message, code="unavailable", hint=f"df {place.path}/..") from None


def _name(variable: str) -> str:
    """Return a variable's name as that of a file, which it is not if it leads elsewhere."""
    if not variable or "/" in variable or "\0" in variable or variable in {".", ".."}:
        message = f"{variable!r} cannot be the name of a variable"
        raise CannotStartError(message, code="config", hint="mcp-broker check")
    return variable


def _place(bases: list[str], *, hint: str) -> Files:
    """Make the directory of this process in the first place that will do, and sweep there what the dead left."""
    reasons = []
    for base in bases:
        try:
            return _made(base)
        except _UnfitError as error:
            reasons.append(f"{base}: {error}")
        except OSError as error:
            reasons.append(f"{base}: {_reason(error)}")
    message = f"there is no directory in memory for the server's files ({'; '.join(reasons)})"
    raise CannotStartError(message, code="unavailable", hint=hint)


def _made(base: str) -> Files:
    """Make the directory of this process in one place."""
    descriptor = _open(base)
    try:
        name = _own_name()
        _sweep(descriptor)
        remove(descriptor, name)  # an earlier life of this very process, which was `exec` before
        os.mkdir(name, 0o700, dir_fd=descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return Files(base, descriptor, name)


def _bases(runtime_directory: str, *, swept: bool) -> list[str]:
    """
    Return the directories to try, in order; what systemd made for this service first.

    Anybody can take our name in the shared memory before we do. The last place
    has a name that nobody can guess.
    """
    given = runtime_directory.partition(":")[0]
    of_systemd = [f"{given}/mcp-broker-files"] if given.startswith("/") else []
    if swept:
        return [*of_systemd, *_swept_bases(), f"{_shared()}-{os.urandom(8).hex()}"]
    if not of_systemd:
        message = (
            "a server that this host's broker gives files needs a RUNTIME_DIRECTORY from systemd:"
            " the broker is another user and cannot remove them when the server has ended"
        )
        raise CannotStartError(message, code="config", hint=UNIT)
    return of_systemd


def _swept_bases() -> list[str]:
    """Return the directories of this user that its broker looks after."""
    ours, uid = _shared(), os.getuid()
    fixed = [f"/run/user/{uid}/mcp-broker/files", ours]
    try:
        found = [f"{SHARED_MEMORY}/{name}" for name in sorted(os.listdir(SHARED_MEMORY))]
    except OSError:
        return fixed
    return [*fixed, *(path for path in found if path.startswith(f"{ours}-") and _owner(path) == uid)]


def _shared() -> str:
    return f"{SHARED_MEMORY}/mcp-broker-{os.getuid()}"


def _owner(path: str) -> "int | None":
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _open(base: str) -> int:
    """Open a directory, made if it is missing, that is in memory and ours alone."""
    parent, made = os.path.dirname(base), False
    for directory in (parent, base) if parent.endswith("/mcp-broker") else (base,):
        try:
            os.mkdir(directory, 0o700)
            made = True
        except FileExistsError:
            made = False
    descriptor = os.open(base, DIRECTORY)
    try:
        _check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        if made:
            os.rmdir(base)  # each start would leave another one
        raise
    return descriptor


def _check(status: os.stat_result) -> None:
    """Refuse a directory that is not ours, not private, or not in memory."""
    kind = _file_system(status.st_dev)
    if status.st_uid != os.getuid():
        message = f"belongs to uid {status.st_uid}"
    elif status.st_mode & 0o077:
        message = "can be entered by others"
    elif kind not in IN_MEMORY:
        message = f"is on {kind or 'an unknown file system'}, not in memory"
    else:
        return
    raise _UnfitError(message)


def _file_system(device: int) -> str:
    """Return what kind of file system a device number stands for, or nothing where the kernel does not say."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            if line.split(" ", 3)[2] == wanted:
                return line.partition(" - ")[2].partition(" ")[0]
    return ""


def _own_name() -> str:
    """Return the name of this process's directory."""
    pid = os.getpid()
    start = started(pid)
    if start is None:
        message = "the kernel does not say when this process started"
        raise _UnfitError(message)
    return f"{pid}.{start}{_namespace()}"


def _namespace() -> str:
    """Return how names end in this pid namespace."""
    namespace = os.readlink("/proc/self/ns/pid")
    return "" if namespace == FIRST_PID_NAMESPACE else f".{namespace[5:-1]}"


def started(pid: int) -> "int | None":
    """Return when a process started, in clock ticks since boot; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name in parentheses may hold spaces and parentheses itself: count from the last one.
            return int(stat.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _sweep(base: int) -> None:
    """Remove the directories of processes of this namespace that have ended."""
    ending = _namespace()
    for name in os.listdir(base):
        pid, dot, rest = name.partition(".")
        start, more, namespace = rest.partition(".")
        ours = pid.isdecimal() and dot and start.isdecimal() and more + namespace == ending
        if ours and started(int(pid)) != int(start):
            remove(base, name)


def _reason(error: OSError) -> str:
    return (error.strerror or "failed").lower()


def sweep() -> None:
    """Remove what this user's ended processes left, wherever it may be. For the daemon, which sees them end."""
    for base in _swept_bases():
        try:
            descriptor = os.open(base, DIRECTORY)
        except OSError:
            continue
        try:
            _check(os.fstat(descriptor))
            _sweep(descriptor)
        except (_UnfitError, OSError):
            pass
        finally:
            os.close(descriptor)
