"""
Finding the broker, knowing who listens there, and carrying lines to it.

The commands use it too, through ``broker.client``. This module refuses to
connect to what somebody else put where the broker should be, and to wait
without a deadline.
"""

import _socket
import os
import sys
import time

from broker.launch.failure import CannotStartError

APPEAR_WITHIN = 2.0
"""Seconds to wait for a broker that is just being started or restarted."""

SPEAK_WITHIN = 5.0
"""Seconds in which a broker says something; one that hangs on a disk accepts connections and never does."""

SYSTEM_RUN = "/run/mcp-broker"

ADMINS = "use sudo, or become a member of the group mcp-broker-admin"
"""What lets somebody in at the admin socket of the host's broker."""

NOBODY = "no broker answers"
"""How it is said that there is none."""

RESTART = "look at the broker's log, and restart it"
"""What to do about a broker that is there and does not work: it cannot be asked what is wrong."""

Where = tuple[str, str]
"""Which broker: an option (``--user``, ``--system``, ``--socket``, ``--dir`` or none) and its path."""

ANYWHERE: Where = ("", "")
"""The user's own broker, else the host's."""


def sockets(where: Where, name: str) -> list[tuple[str, set[int]]]:
    """
    Return the paths at which the socket ``name`` may be, in order, each with the uids that may listen there.

    The places follow from the uid and the user database alone, because MCP
    clients pass almost no environment on.
    """
    option, path = where
    uid = os.getuid()
    if option == "--dir":
        return [(os.path.join(os.path.abspath(path), "run", name), {uid})]
    if option == "--socket":
        directory, last = os.path.split(os.path.abspath(path))
        # The two sockets of a broker lie side by side: naming one of them names both.
        last = name if last in {"broker.sock", "admin.sock"} else last
        return [(os.path.join(directory, last), {uid, 0} | ({_owner(directory)} if directory == SYSTEM_RUN else set()))]
    own = [(f"/run/user/{uid}/mcp-broker/{name}", {uid}), (f"{_home(uid)}/.local/state/mcp-broker/run/{name}", {uid})]
    host = [(f"{SYSTEM_RUN}/{name}", {0, _owner(SYSTEM_RUN)})]
    return {"--user": own, "--system": host}.get(option, own + host)


def _home(uid: int) -> str:
    """Return the home directory that the user database names, or HOME where it names none."""
    import pwd  # noqa: PLC0415 - a module of C that costs nothing, unlike what may stand behind it

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")


def _owner(directory: str) -> int:
    """Return who owns a directory in which only its owner can write; root where there is no such."""
    try:
        status = os.lstat(directory)
    except OSError:
        return 0
    return 0 if status.st_mode & 0o022 else status.st_uid


def connect(
    where: Where, name: str = "broker.sock", *, within: float = APPEAR_WITHIN, autostart: bool = True
) -> "Wire":
    """
    Connect to the first broker that answers, once it is known who listens.

    The user's own is started first, where none answers and that is wanted.

    Raises:
        CannotStartError: none answers within ``within`` seconds, it lets nobody
            in, or somebody else listens where it should.

    """
    until = time.monotonic() + within
    places = sockets(where, name)
    may_start = autostart and where[0] in {"", "--user"}
    while True:
        troubles: dict[str, OSError] = {}
        for path, trusted in places:
            try:
                return Wire(_connected(path, trusted), path)
            except OSError as error:
                troubles[path] = error
        if may_start and all(_absent(path, error) for path, error in troubles.items()):
            may_start = False
            if _started(where):
                until = time.monotonic() + within
                continue
        # Who may not connect now may not in two seconds either; one that is absent may appear.
        barred = all(_barred(path, error) for path, error in troubles.items())
        if barred or time.monotonic() >= until:
            raise _nobody(where, troubles)
        time.sleep(0.05)


def _absent(path: str, error: OSError) -> bool:
    """Say whether nobody listens at a path. A directory in /run/user that one may not enter is not one's own."""
    closed = isinstance(error, PermissionError) and path.startswith("/run/user/")
    return closed or isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError))


def _barred(path: str, error: OSError) -> bool:
    return isinstance(error, PermissionError) and not _absent(path, error)


def _started(where: Where) -> bool:
    """Start the user's own broker, unless something speaks against it; say whether it was."""
    from broker.launch import autostart  # noqa: PLC0415 - only where nothing answers

    home = _home(os.getuid())
    if autostart.obstacle(os.getuid(), home):
        return False
    places = sockets(("--user", where[1]), "broker.sock")
    autostart.start(home, lambda: any(_answers(path, trusted) for path, trusted in places))
    return True


def _answers(path: str, trusted: set[int]) -> bool:
    try:
        _connected(path, trusted).close()
    except OSError:
        return False
    return True


def _connected(path: str, trusted: set[int]) -> _socket.socket:
    """Connect to one socket and make sure that its listener is one of ``trusted``."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(SPEAK_WITHIN)
        connection.connect(path)
        _check(connection, path, trusted)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: _socket.socket, path: str, trusted: set[int]) -> None:
    """Refuse a listener that is not one of ``trusted``: it could name any program to start."""
    uid = listener(connection)
    if uid not in trusted:
        message = f"what listens at {path} belongs to uid {uid}, and that is not whose broker it would be"
        raise CannotStartError(message, code="denied", hint=f"ls -l {path}")


def listener(connection: _socket.socket) -> int:
    """Return the uid that listens at the other end, by the kernel's word."""
    if sys.platform == "darwin":
        answer = connection.getsockopt(0, 1, 8)  # SOL_LOCAL, LOCAL_PEERCRED: the head of struct xucred
    else:
        answer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(answer[4:8], sys.byteorder)


def _nobody(where: Where, troubles: dict[str, OSError]) -> CannotStartError:
    """Say why no broker could be reached, by the first trouble that is more than an absence."""
    for path, error in troubles.items():
        if _barred(path, error):
            hint = ADMINS if path == f"{SYSTEM_RUN}/admin.sock" else f"ls -ld {path}"
            return CannotStartError(f"you may not connect to the broker at {path}", code="denied", hint=hint)
        if isinstance(error, (BlockingIOError, TimeoutError)):
            message = f"the broker at {path} takes no connections"
            return CannotStartError(message, code="unavailable", hint=RESTART)
        if error.errno is None:
            message = f"the path of the socket is longer than the system allows: {path}"
            return CannotStartError(message, code="config", hint="use a directory with a shorter path")
    option, _ = where
    whose = {
        "": "neither your own nor this host's",
        "--user": "your own does not run",
        "--system": "this host's does not run",
    }
    message = f"{NOBODY}: {whose[option]}" if option in whose else f"{NOBODY} at {' or '.join(troubles)}"
    return CannotStartError(message, code="unavailable", hint=_first_step(where))


def _first_step(where: Where) -> str:
    """Return the command that makes a broker answer: the one that starts it, or the one that comes before that."""
    option, directory = where
    if option == "--system":
        return "systemctl start mcp-broker"
    if option == "--socket":
        return "mcp-broker serve"
    config = f"{directory}/config" if option == "--dir" else f"{_home(os.getuid())}/.config/mcp-broker"
    verb = "serve" if os.path.isdir(config) else "init"
    return f"mcp-broker {verb} --dir {directory}" if option == "--dir" else f"mcp-broker {verb}"


class Wire:
    """
    One connection that carries lines, each by a deadline (a time of the monotonic clock).

    Attributes:
        path: the socket that it leads to.
        heard: whether the other side has said anything.
        ended: whether the other side has closed it.

    """

    def __init__(self, connection: _socket.socket, path: str) -> None:
        """Carry lines over ``connection``, which leads to ``path``."""
        self.path = path
        self.heard = False
        self.ended = False
        self._connection = connection
        self._rest = b""

    def send(self, line: str, until: float) -> None:
        """Send one line."""
        self._wait(until)
        try:
            self._connection.sendall(line.encode() + b"\n")
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._gone() from None

    def receive(self, until: float) -> str:
        """Return the next line, without its end."""
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            self._wait(until)
            try:
                pieces.append(self._connection.recv(262144))
            except TimeoutError:
                self._rest = b"".join(pieces)
                raise self._silent() from None
            except OSError:
                raise self._gone() from None
            if not pieces[-1]:
                raise self._gone()
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        self.heard = True
        return line.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the connection. What hangs on this process lives on."""
        self._connection.close()

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise self._silent()
        self._connection.settimeout(left)

    def _silent(self) -> CannotStartError:
        said = "did not answer in time" if self.heard else "accepts connections but does not answer"
        return CannotStartError(f"the broker at {self.path} {said}", code="unavailable", hint=RESTART)

    def _gone(self) -> CannotStartError:
        self.ended = True
        message = f"the broker at {self.path} closed the connection without an answer"
        return CannotStartError(message, code="unavailable", hint=RESTART)
