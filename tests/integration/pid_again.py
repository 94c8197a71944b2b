"""
Gives the pid of a process that has ended to another, and looks what that gets.

A program of its own (``python -m tests.integration.pid_again DIR CASE KERNEL``),
for a pid namespace of its own in which nobody else takes pids: there the kernel
can be told which one comes next. It refuses to run anywhere else.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

from tests.fakes import minting
from tests.puppets import Puppet, theatre
from tests.running import AnswerError, HungUpError, RunningBroker, start, until

FIRST: Final = 12346
OTHER: Final = 12347
NEXT: Final = Path("/proc/sys/kernel/ns_last_pid")

CONFIG: Final = f"""
[backends.mint]
type = "minting"
source = "../source"
roles = ["db"]

[secrets.db]
backend = "mint"
path = "db"

[servers.app]
selectors = ["uid:{FIRST}"]
unsafe_user_selector = true
allow = ["db", "static"]

[servers.other]
selectors = ["uid:{OTHER}"]
unsafe_user_selector = true
allow = ["others"]
"""


def outcome(puppet: Puppet, secret: str) -> str:
    """Return ``issued``, the code of a refusal, or ``hung up``."""
    try:
        puppet.call("credential/issue", secret=secret)
    except AnswerError as error:
        return error.code
    except HungUpError:
        return "hung up"
    return "issued"


def again(stage: Puppet, pid: int, uid: int) -> Puppet:
    """Return a new process of this user that has this pid, which nobody has any more."""

    def forked() -> Puppet | None:
        NEXT.write_text(str(pid - 1), "ascii")
        puppet = stage.fork()
        if puppet.pid == pid:
            return puppet
        puppet.kill()
        return None

    until(lambda: not Path(f"/proc/{pid}").exists(), said="the end of a process")
    puppet = until(forked, said="the second use of a pid")
    puppet.become(uid)
    return puppet


def held(stage: Puppet, broker: RunningBroker) -> None:
    """A connection that was attested is worth nothing when its pid is another's, of whatever user."""
    for uid in (FIRST, OTHER):
        puppet = stage.fork()
        puppet.become(FIRST)
        puppet.connect(broker.places.broker_socket)
        assert outcome(puppet, "static") == "issued"
        holder = puppet.fork()
        puppet.kill()
        second = again(stage, puppet.pid, uid)
        assert outcome(holder, "static") == "denied"
        descriptor = holder.take()
        second.give(descriptor)
        os.close(descriptor)
        assert outcome(second, "static") == "denied"
        second.kill()


def queued(stage: Puppet, broker: RunningBroker) -> None:
    """
    A connection that nobody has accepted yet is not that of whoever has its pid by then.

    Without ``SO_PEERPIDFD`` a process of the same user cannot be told from the
    first one; of another user it can.
    """
    users = {"this": (FIRST, OTHER), "old": (OTHER,)}[sys.argv[3]]
    for uid in users:
        puppet = stage.fork()
        puppet.become(FIRST)
        holder = stage.fork()
        broker.signal(signal.SIGSTOP)
        try:
            puppet.connect(broker.places.broker_socket)
            descriptor = puppet.take()
            holder.give(descriptor)
            os.close(descriptor)
            puppet.kill()
            second = again(stage, puppet.pid, uid)
        finally:
            broker.signal(signal.SIGCONT)
        assert outcome(holder, "static" if uid == FIRST else "others") == "denied"
        second.kill()


def restart(stage: Puppet, broker: RunningBroker) -> None:
    """A lease is not that of whoever has the pid of its process after a restart."""
    source = minting.Source(broker.places.run.parent / "source")
    puppet = stage.fork()
    puppet.become(FIRST)
    puppet.connect(broker.places.broker_socket)
    assert outcome(puppet, "db") == "issued"
    broker.kill()
    puppet.kill()
    again(stage, puppet.pid, FIRST)
    broker.launch()
    until(lambda: not source.valid(), said="the revocation")
    assert [] == broker.admin("lease/list")["leases"]


def main(words: list[str]) -> int:
    """Run one case."""
    if os.getpid() != 1:
        sys.stderr.write("this is no pid namespace of its own\n")
        return 1
    place, case, kernel = Path(words[0]), words[1], words[2]
    minting.Source(place / "source")
    packages = [minting.install(place / "packages")]
    secrets = {"static": "made up", "others": "made up"}
    with (
        theatre() as stage,
        start(
            place,
            config=CONFIG,
            mode="system",
            secrets=secrets,
            packages=packages,
            kernel="old" if kernel == "old" else "this",
        ) as broker,
    ):
        {"held": held, "queued": queued, "restart": restart}[case](stage, broker)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
