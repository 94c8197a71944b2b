"""
Starting the user's own broker where none answers, as gpg does with its agent.

Whoever holds a lock starts it, the others wait. It is started apart from the
caller: by systemd where the user has one, else in a session of its own, without
the caller's pipes, directory and environment. This module refuses to start
anything for a system's own uid, on a host that has a broker of its own, in a
container, and where the config says ``autostart = false``.
"""

import fcntl
import os
import signal
import sys
import time

from broker.launch.become import fill_standard_descriptors
from broker.launch.failure import MEANINGS, CannotStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

WITHIN = 20.0
"""Seconds that a start may take. It takes less than one, unless the machine is very busy."""

TRIES = 3
"""How often it is started when something kills it before it is ready."""

SYSTEM_CONFIG = "/etc/mcp-broker"
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
"""What container managers leave in a container for programs to see. Without a marked one it is no harm to start."""

FIRST_USER, LAST_USER = 1000, 60513
"""The uids of people, systemd-homed's included (systemd's UIDS-GIDS.md); others are the system's or made up."""

SERVE = ("-I", "-m", "broker", "serve", "--user", "--idle", "15m")
UNIT = "mcp-broker.service"
UNIT_PLACES = ("/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")
PATH = "/usr/local/bin:/usr/bin:/bin"
PASSED = ("LANG", "LC_ALL", "TZ", "USER", "LOGNAME")

LONGEST_LOG = 65536
"""Bytes of the log of a broker that systemd does not start; at the next start it begins anew."""

_PAUSE = 0.03


def obstacle(uid: int, home: str) -> str:
    """Return why no broker of this user's is started by itself, or nothing."""
    config = f"{home}/.config/mcp-broker"
    why = ""
    if not sys.platform.startswith("linux"):
        why = "the broker itself needs Linux"
    elif not FIRST_USER <= uid <= LAST_USER:
        why = f"uid {uid} is not a person's"
    elif os.path.lexists(SYSTEM_CONFIG):
        why = "this host has a broker of its own"
    elif any(map(os.path.lexists, CONTAINER_MARKS)):
        why = "this is a container"
    elif not os.path.isdir(config):
        why = "there is no config yet"
    elif _declined(config):
        why = "the config says autostart = false"
    return why


def _declined(config: str) -> bool:
    """Say whether the config forbids it. One that cannot be read forbids nothing: the broker will say what is wrong."""
    import tomllib  # noqa: PLC0415 - only where nothing answers

    try:
        more = [f"{config}/broker.d/{name}" for name in os.listdir(f"{config}/broker.d") if name.endswith(".toml")]
    except OSError:
        more = []
    for path in [f"{config}/broker.toml", *more]:
        try:
            with open(path, "rb") as file:
                if tomllib.load(file).get("autostart") is False:
                    return True
        except (OSError, ValueError):
            continue
    return False


def start(home: str, answers: "Callable[[], bool]") -> None:
    """
    Start the user's own broker, or wait for who is doing it.

    Args:
        home: the user's home directory.
        answers: says whether a broker answers.

    Raises:
        CannotStartError: it cannot be started, with what it said.

    """
    begun, until = time.time_ns(), time.monotonic() + WITHIN
    state = f"{home}/.local/state/mcp-broker"
    lock = _lock(state)
    try:
        while not _taken(lock):
            if answers():
                return
            if time.monotonic() > until:
                message = "the broker is being started by another process, and that takes too long"
                raise CannotStartError(message, code="unavailable", hint="mcp-broker status")
            time.sleep(_PAUSE)
        if answers():
            return
        # Who waited while another one tried in vain need not try the same again.
        said = _said_since(lock, begun) or _started(home, state, answers)
        _note(lock, said)
        if said:
            raise _failure(said)
    finally:
        if lock >= 0:
            os.close(lock)


def _lock(state: str) -> int:
    """Open the file that says whose turn it is; -1 where there can be none, as on a full disk."""
    try:
        os.makedirs(state, 0o700, exist_ok=True)
        return os.open(f"{state}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return -1


def _taken(lock: int) -> bool:
    """Take the turn if nobody has it. Without a file everybody tries; the broker's own lock lets one of them win."""
    try:
        if lock >= 0:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _said_since(lock: int, begun: int) -> str:
    """Return what a broker said that could not be started since ``begun``, or nothing."""
    # One from the time to come is from before a clock was set back.
    if lock < 0 or not begun <= os.fstat(lock).st_mtime_ns <= time.time_ns():
        return ""
    return os.pread(lock, 4096, 0).decode("utf-8", "replace")


def _note(lock: int, said: str) -> None:
    """Leave for those who wait what the broker said, or that there was nothing."""
    try:
        if lock >= 0:
            os.ftruncate(lock, 0)
            os.pwrite(lock, said.encode(), 0)
    except OSError:
        pass  # a full disk: then each of them tries


def _failure(said: str) -> CannotStartError:
    """Return the error that a broker ended with: its code, what it said, and the hint."""
    code, message, hint = (*said.split("\n"), "", "")[:3]
    return CannotStartError(f"the broker could not be started: {message}", code=code, hint=hint or "mcp-broker serve")


def _started(home: str, state: str, answers: "Callable[[], bool]") -> str:
    """Start a broker by a process of its own, which knows how it ends; return why it did not start, or nothing."""
    for _ in range(TRIES):
        reading, writing = os.pipe()
        starter = os.fork()
        if not starter:
            os.close(reading)
            _start_and_end(home, state, answers, writing)
        os.close(writing)
        said = b""
        while piece := os.read(reading, 4096):
            said += piece
        os.close(reading)
        _, status = os.waitpid(starter, 0)
        if status == 0:
            return said.decode("utf-8", "replace")
    return "unavailable\nsomething ends it before it is ready\nmcp-broker serve"


def _start_and_end(home: str, state: str, answers: "Callable[[], bool]", writing: int) -> "NoReturn":
    """Be the process that starts it. It ends with 0 where that is settled, and what went wrong is written."""
    status = 1
    try:
        # Who ends the caller, by its session or its group, must not end what comes of this.
        os.setsid()
        os.chdir("/")
        # Nor must this one hold the caller's pipes when the caller has gone.
        fill_standard_descriptors()
        for descriptor in (0, 1, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
        os.umask(0o077)
        environment = _environment(home)
        said = None if _by_systemd(home, environment) else _detached(state, environment, answers)
        if said is not None:
            os.write(writing, said.encode("utf-8", "replace"))
        status = 0
    except _EndedError:
        status = 2
    except OSError as error:
        os.write(writing, f"unavailable\n{(error.strerror or 'the system refuses').lower()}\nmcp-broker serve".encode())
        status = 0
    finally:
        os._exit(status)


class _EndedError(Exception):
    """Something killed the broker before it was ready."""


def _environment(home: str) -> dict[str, str]:
    """Return the environment for a broker: what follows from the user, and nothing that the caller's window brought."""
    environment = {name: os.environ[name] for name in PASSED if name in os.environ}
    runtime = f"/run/user/{os.getuid()}"
    if os.path.isdir(runtime) and os.stat(runtime).st_uid == os.getuid():
        environment["XDG_RUNTIME_DIR"] = runtime
    return {**environment, "HOME": home, "PATH": PATH}


def _by_systemd(home: str, environment: dict[str, str]) -> bool:
    """Have the user's systemd start it, by its unit or as a service for once; say whether it has."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime is None or not os.path.exists(f"{runtime}/systemd/private"):
        return False
    places = (f"{home}/.config/systemd/user", f"{home}/.local/share/systemd/user", *UNIT_PLACES)
    if any(os.path.exists(f"{place}/{UNIT}") for place in places):
        return _ran(["systemctl", "--user", "--quiet", "start", UNIT], environment) == 0
    service = [
        *("systemd-run", "--user", "--quiet", "--collect", "--unit=mcp-broker-on-demand"),
        *("--description=MCP secrets broker, started when it was needed", "--working-directory=/"),
        *("--property=Type=notify", "--property=UMask=0077", "--property=LimitCORE=0"),
        *("--property=TimeoutStartSec=15s", "--property=TimeoutStopSec=30s", "--property=KillMode=mixed"),
    ]
    return _ran([*service, sys.executable, *SERVE], environment) == 0


def _ran(command: list[str], environment: dict[str, str]) -> int:
    """Run a command of the system's to its end; return its exit status."""
    for directory in PATH.split(":"):
        if os.access(f"{directory}/{command[0]}", os.X_OK):
            pid = _spawned(f"{directory}/{command[0]}", command, environment, "/dev/null")
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 127


def _detached(state: str, environment: dict[str, str], answers: "Callable[[], bool]") -> "str | None":
    """Start it as a process of nobody's; return None when it answers, or what it said when it ended."""
    log = f"{state}/daemon.log"
    pid = _spawned(sys.executable, [sys.executable, *SERVE], environment, log)
    until = time.monotonic() + WITHIN
    while time.monotonic() < until:
        # First whether it has ended: another one may answer by then, and that is as good.
        ended, status = os.waitpid(pid, os.WNOHANG)
        if answers():
            return None
        if ended:
            number = os.waitstatus_to_exitcode(status)
            if number < 0:
                raise _EndedError
            return _last_words(log, number)
        time.sleep(_PAUSE)
    return f"unavailable\nit is not ready after {WITHIN:.0f} seconds\ntail {log}"


def _spawned(file: str, command: list[str], environment: dict[str, str], log: str) -> int:
    """Start a program with nothing of ours but a log file; return its pid."""
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        if os.fstat(out).st_size > LONGEST_LOG:
            os.ftruncate(out, 0)
    except OSError:
        out = os.open("/dev/null", os.O_WRONLY)
    nothing = os.open("/dev/null", os.O_RDONLY)
    actions = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
    every = set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}
    return os.posix_spawn(file, command, environment, file_actions=actions, setsigmask=[], setsigdef=every)


def _last_words(log: str, status: int) -> str:
    """Return the code, the message and the hint with which a broker has ended."""
    code = next((code for code, (_, exit_status) in MEANINGS.items() if exit_status == status), "unavailable")
    message, hint = f"it ended with status {status}", f"tail {log}"
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file.read()[-4096:].splitlines():
                if line.startswith("mcp-broker: "):
                    message = line.removeprefix("mcp-broker: ")
                elif line.startswith("hint: "):
                    hint = line.removeprefix("hint: ")
    except OSError:
        pass
    return f"{code}\n{message}\n{hint}"
