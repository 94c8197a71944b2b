"""
Who is at the other end of a socket, by the kernel's word.

The caller's duty: attest when the connection is accepted, ask ``alive`` again
right before a value leaves, and close. In between the process may end while
somebody else still holds its socket (``shared`` descriptors, fork); such a
holder gets nothing, because the pidfd is that of the process that connected.

This module refuses to look at anything a process can forge: its arguments, its
environment, its executable, units below its user's own manager. Where the
platform does not say who connected, it refuses rather than guesses.
"""

import errno
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Final, Protocol

from broker.core.chain import Facts
from broker.core.model import Lease, Process, Workload
from broker.errors import AttestationError, RequestError

_SO_PEERPIDFD: Final = 77
_SO_PEERGROUPS: Final = 59
_MOST_GROUPS: Final = 1024 // 4
"""Python's ``getsockopt`` reads 1024 bytes at most; who has more groups is known by none of them."""

_START_FIELD: Final = 22 - 3
"""``starttime`` is field 22 of ``/proc/PID/stat``, and the first after the last ``)`` is field 3."""

_MOST_ANCESTORS: Final = 64


class PeerSocket(Protocol):
    """The part of a socket that attestation needs; uvloop's is not a ``socket.socket``."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return an option of the socket."""
        ...


class Anchor:
    """
    A hold on one process that no other one can slip into: an open pidfd.

    The descriptor becomes readable when the process has ended, whether anybody
    has waited for it or not, and never means another process.
    """

    __slots__ = ("_poll", "pidfd", "process")

    def __init__(self, process: Process, pidfd: int) -> None:
        """Take over ``pidfd``, which is that of ``process``."""
        self.process = process
        self.pidfd = pidfd
        self._poll = select.poll()
        self._poll.register(pidfd, select.POLLIN)

    def alive(self) -> bool:
        """Return whether the process has not ended."""
        return self.pidfd >= 0 and not self._poll.poll(0)

    def copy(self) -> "Anchor":
        """Return another hold on the same process, closed apart from this one."""
        return Anchor(self.process, os.dup(self.pidfd))

    def close(self) -> None:
        """Let go; may be called twice."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Peer:
    """A connected workload: what was attested at accept, and a hold on its process."""

    __slots__ = ("anchor", "recorded", "selectors", "workload")

    def __init__(self, workload: Workload, anchor: Anchor) -> None:
        """Keep the facts; the selectors are worked out once."""
        self.workload = workload
        self.anchor = anchor
        self.selectors = workload.selectors
        self.recorded: dict[str, tuple[Lease, str | list[str], Facts]] = {}
        """What the recorder of releases remembers for this connection; it means nothing to anybody else."""

    def require_alive(self) -> None:
        """Raise ``AttestationError`` where the process that connected has ended."""
        if not self.anchor.alive():
            message = "the process that connected has ended"
            raise AttestationError(message, hint="a socket that was inherited or passed on gets nothing: connect anew")

    def close(self) -> None:
        """Let go of the process."""
        self.anchor.close()


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def overflow_uid() -> int:
    """Return the uid that the kernel shows for one that another user namespace hides."""
    return int(Path("/proc/sys/fs/overflowuid").read_text("ascii"))


class Attestor:
    """Attests the peers of accepted sockets; made once, because the boot id is read once."""

    def __init__(self, *, boot: str, hidden_uid: int, use_peerpidfd: bool = True) -> None:
        """
        Keep what does not change while this kernel runs.

        Args:
            boot: see ``boot_id``.
            hidden_uid: see ``overflow_uid``.
            use_peerpidfd: false takes the way of kernels before 6.5, for tests of it.

        """
        self._boot = boot
        self._hidden_uid = hidden_uid
        self._use_peerpidfd = use_peerpidfd

    def attest(self, sock: PeerSocket) -> Peer:
        """
        Return who connected this socket.

        Raises:
            AttestationError: the kernel does not say, hides it behind a
                namespace, or the process has ended already.

        """
        pid, uid, gid = self._credentials(sock)
        pidfd = self._pidfd(sock, pid, uid)
        try:
            start = start_time(pid)
            workload = Workload(
                process=Process(boot=self._boot, pid=pid, start=start, uid=uid),
                gid=gid,
                groups=_groups(sock),
                unit=unit_of(Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")),
            )
            peer = Peer(workload, Anchor(workload.process, pidfd))
            # Only now, when the process was seen alive after /proc was read, are those reads known to be its own.
            peer.require_alive()
        except (OSError, ValueError) as error:
            os.close(pidfd)
            message = f"the process that connected cannot be read: {type(error).__name__}"
            raise AttestationError(message) from None
        except AttestationError:
            os.close(pidfd)
            raise
        return peer

    def _credentials(self, sock: PeerSocket) -> tuple[int, int, int]:
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            message = f"this platform ({sys.platform}) does not say which process connected"
            raise AttestationError(message, hint="the broker's daemon needs Linux")
        size = struct.calcsize("3i")
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, size))
        if pid <= 0:
            message = "another pid namespace hides the process that connected"
            raise AttestationError(message, hint="run the broker and its servers in one pid namespace")
        # The kernel's uid_t is unsigned; -1 is the uid of nobody at all.
        uid, gid = uid & 0xFFFFFFFF, gid & 0xFFFFFFFF
        if uid in {self._hidden_uid, 0xFFFFFFFF}:
            message = "another user namespace hides the user that connected"
            raise AttestationError(message, hint="run the broker and its servers in one user namespace")
        return pid, uid, gid

    def _pidfd(self, sock: PeerSocket, pid: int, uid: int) -> int:
        if self._use_peerpidfd:
            try:
                raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
                return int(struct.unpack("i", raw)[0])
            except OSError as error:
                # Any other error means that it has gone: falling back to its pid then would name whoever has that now.
                if error.errno != errno.ENOPROTOOPT:
                    message = "the process that connected has ended"
                    raise AttestationError(message) from None
        return _pidfd_by_proc(pid, uid)


def _pidfd_by_proc(pid: int, uid: int) -> int:
    """
    Return a pidfd of ``pid`` where the kernel does not give the socket's own.

    The owner is looked at before and after, with the start time, so that a pid
    that changed hands meanwhile is noticed. What this cannot notice, and
    ``SO_PEERPIDFD`` can: a pid that went to another process of the same user
    between ``connect`` and here.
    """
    try:
        before = start_time(pid)
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, AttributeError) as error:
        message = f"the process that connected cannot be held: {type(error).__name__}"
        raise AttestationError(message, hint="Linux 5.3 or later is needed") from None
    try:
        if start_time(pid) == before and uid in uids_of(pid):
            return pidfd
    except (OSError, ValueError):
        pass
    os.close(pidfd)
    message = "the process that connected has ended, and its pid is another's"
    raise AttestationError(message)


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; OSError where it has gone."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    # The name in parentheses is the process's own choice and may hold spaces and parentheses.
    return int(stat[stat.rindex(b")") + 2 :].split()[_START_FIELD])


def uids_of(pid: int) -> frozenset[int]:
    """Return the real, effective, saved and file-system uid of a process; OSError where it has gone."""
    for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
        if line.startswith(b"Uid:"):
            return frozenset(int(uid) for uid in line.split()[1:])
    message = "no uid"
    raise ValueError(message)


def parent_of(pid: int) -> int:
    """Return the parent's pid; OSError where the process has gone."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def unit_of(cgroup: str) -> str | None:
    """
    Return the systemd unit in the text of a ``/proc/PID/cgroup``, or None.

    It is the first ``.service`` from the root with nothing but slices above
    it. Whoever was given a cgroup of their own, a user or a container, can make
    any name below it, but none above.
    """
    path = _systemd_path(cgroup)
    for part in path.split("/")[1:]:
        if part.endswith(".slice"):
            continue
        if not part.endswith(".service") or part.startswith("user@"):
            return None
        return part.removeprefix("_")
    return None


def _systemd_path(cgroup: str) -> str:
    """Return the path in the hierarchy that systemd keeps: its own where there is one, else the unified."""
    unified = ""
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "name=systemd":
            return path
        if not controllers:
            unified = path
    return unified


def _groups(sock: PeerSocket) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


def process_now(pid: int, *, boot: str) -> Workload:
    """
    Return what a process would be attested as if it connected now, for ``explain``.

    For no decision: unlike a connection this names a process by its pid alone.
    """
    try:
        status = dict(
            line.split(b":", 1) for line in Path(f"/proc/{pid}/status").read_bytes().splitlines() if b":" in line
        )
        return Workload(
            process=Process(boot=boot, pid=pid, start=start_time(pid), uid=int(status[b"Uid"].split()[1])),
            gid=int(status[b"Gid"].split()[1]),
            groups=frozenset(int(group) for group in status[b"Groups"].split()),
            unit=unit_of(Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")),
        )
    except (OSError, ValueError, KeyError):
        message = f"there is no process {pid}"
        raise AttestationError(message) from None


def find(process: Process, *, boot: str) -> Anchor | None:
    """
    Return a hold on a process remembered from before, or None where it has ended.

    It is the same one where boot, pid and start time are, whatever its uid is
    now: a server that drops its privileges stays the one it was. The start time
    is read with the pidfd open, so that the hold is on what was looked at.

    Raises:
        OSError: the kernel does not say, for want of descriptors or memory. Whoever took that for an end would
            revoke what is in use.

    """
    if process.boot != boot:
        return None
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    anchor = Anchor(process, pidfd)
    try:
        same = start_time(process.pid) == process.start
    except (FileNotFoundError, ProcessLookupError, ValueError):
        same = False
    except OSError:
        anchor.close()
        raise
    if same and anchor.alive():
        return anchor
    anchor.close()
    return None


def ancestor(peer: Peer, pid: int) -> Anchor:
    """
    Return a hold on an ancestor of the peer, on which it may hang a lease.

    Raises:
        RequestError: ``pid`` is no ancestor, is pid 1, or is another user's.

    """
    hint = 'name the pid of a shell or a program above the caller, or say "bind": "none" with a short ttl'
    child = peer.workload.process
    try:
        if pid <= 1 or pid not in _ancestors(child.pid):
            message = f"process {pid} is no ancestor of the caller that a lease may hang on"
            raise RequestError(message, hint=hint)
        pidfd = os.pidfd_open(pid)
    except OSError:
        message = f"process {pid} has ended"
        raise RequestError(message, hint=hint) from None
    try:
        start = start_time(pid)
        # Looked at again with the pidfd open: now it is certain which process the pid means.
        trusted = pid in _ancestors(child.pid) and uids_of(pid) == {child.uid}
    except (OSError, ValueError):
        start, trusted = 0, False
    if not trusted:
        os.close(pidfd)
        message = f"process {pid} is not the caller's own"
        raise RequestError(message, hint=hint)
    return Anchor(Process(boot=child.boot, pid=pid, start=start, uid=child.uid), pidfd)


def _ancestors(pid: int) -> frozenset[int]:
    found: list[int] = []
    while pid > 1 and len(found) < _MOST_ANCESTORS:
        pid = parent_of(pid)
        found.append(pid)
    return frozenset(found)
