"""
Becoming the server.

This module refuses to leave anything of ours behind: no descriptor, no ignored
signal, no variable.
"""

import _signal  # type: ignore[import-not-found]
import errno
import os

from broker.launch.failure import CannotStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def program(command: str, path: str) -> str:
    """
    Return the file that ``command`` names, looked for in ``path``.

    Places in it that depend on where the client happens to stand are passed
    over: a repository that was just cloned may hold a ``node`` of its own.
    """
    if "/" in command:
        return command
    for directory in path.split(":"):
        candidate = f"{directory}/{command}"
        if directory.startswith("/") and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    message = f"there is no {command!r} in the PATH that the client passes on ({path})"
    hint = f'write its whole path in the config; "command -v {command}" prints it'
    raise CannotStartError(message, code="config", hint=hint)


def become(command: list[bytes], environment: dict[bytes, bytes], *, path: str, keep: int) -> "NoReturn":
    """
    Replace this process by ``command``.

    Args:
        command: the program and its arguments.
        environment: the whole of the new environment.
        path: where to look for the program.
        keep: how many descriptors after the first three go on.

    Raises:
        CannotStartError: the system refuses to run it.

    """
    file = program(os.fsdecode(command[0]), path)
    close_on_exec(3 + keep)
    default_signals()
    try:
        os.execve(file, command, environment)  # noqa: S606 - no shell is what we want
    except OSError as error:
        raise _refused(file, error) from None
    except ValueError:
        message = f"the command {file!r} has a zero byte in it"
        raise CannotStartError(message, code="config", hint="mcp-broker check") from None


def _refused(file: str, error: OSError) -> CannotStartError:
    """Say why the system did not run a program."""
    why = {
        errno.ENOENT: "there is no such file, or the interpreter in its first line is missing",
        errno.EACCES: "it may not be executed",
        errno.ENOEXEC: "it is not a program for this machine, or a script without a first line that says #!",
        errno.E2BIG: "its arguments and its environment are longer than the system allows",
    }.get(error.errno or 0, (error.strerror or "the system refuses").lower())
    return CannotStartError(f"cannot start {file}: {why}", code="config", hint=f"ls -l {file}")


def close_on_exec(first: int) -> None:
    """Have the kernel close every descriptor from ``first`` on when the server starts, whoever opened it."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for descriptor in map(int, names):
            if descriptor >= first:
                try:
                    os.set_inheritable(descriptor, False)  # noqa: FBT003 - its only parameter
                except OSError:
                    continue  # the one that listed the directory
        return
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def default_signals() -> None:
    """Undo what Python and the caller ignore or block: a server expects the system's defaults."""
    for number in _signal.valid_signals():
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except OSError:
            continue  # SIGKILL, SIGSTOP
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def fill_standard_descriptors() -> None:
    """Open what is missing of the first three, so that no socket of ours takes the place of the server's stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - its only parameter
