"""
Ten thousand live leases, each of a process of its own.

The processes are real: each asks the broker and becomes ``sleep``, as a server
would become its program. This module refuses to measure: how long a start takes
with so many is in ``benchmarks``.
"""

import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.puppets import Puppet
from tests.running import RunningBroker, start, until

MANY: Final = 10_000
BATCH: Final = 500

CONFIG: Final = """
[servers.app]
allow = ["static"]

[limits]
leases = 0
connections = 0
requests_per_second = 0
"""

WORKLOADS: Final = """
from tests.running import Connection
from pathlib import Path
import select
result = []
for _ in range(count):
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Connection(Path(path)) as connection:
                accessor = connection.call("credential/issue", secret="static")["accessor"]
            os.write(sink, accessor.encode())
            os.execv("/bin/sleep", ["sleep", "3600"])
        finally:
            os._exit(1)
    os.close(sink)
    result.append([pid, os.read(source, 64).decode()])
    os.close(source)
"""


@pytest.fixture
def broker(place: Path) -> Iterator[RunningBroker]:
    """Run a broker that sets no limit."""
    with start(place, config=CONFIG, secrets={"static": "made up"}) as running:
        yield running


def _missing() -> str | None:
    """Return what this machine lacks for so many processes."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    pids = int(Path("/proc/sys/kernel/pid_max").read_text("ascii"))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = {
        "descriptors for one process": (descriptors, MANY + 1000),
        "processes for one user": (processes, MANY + 1000),
        "process ids": (pids, 2 * MANY),
        "bytes of free memory": (free, MANY * 400_000),
    }
    lacking = [
        f"{least} {what}, and there are {there}" for what, (there, least) in needed.items() if 0 <= there < least
    ]
    return lacking[0] if lacking else None


def _leases(broker: RunningBroker) -> dict[str, int]:
    """Return the process of each lease, by its accessor."""
    return {row["accessor"]: row["pid"] for row in broker.admin("lease/list")["leases"]}


def _on_disk(broker: RunningBroker) -> int:
    """Return how many leases a restart would find."""
    with closing(sqlite3.connect(broker.places.state / "state.db")) as connection:
        count: int = connection.execute("SELECT count(*) FROM leases").fetchone()[0]
    return count


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_leases_are_taken_up_again(stage: Puppet, broker: RunningBroker) -> None:
    """After a crash with ten thousand processes out, a third of which end meanwhile, the rest holds what it held."""
    if lacking := _missing():
        pytest.skip(f"needs {lacking}")
    held: dict[str, int] = {}
    for _ in range(MANY // BATCH):
        made = stage.run(WORKLOADS, path=str(broker.places.broker_socket), count=BATCH)
        held |= {accessor: pid for pid, accessor in made}
    assert held == _leases(broker)
    # A lease of something that cannot be revoked is written soon after its release, not before it.
    until(lambda: _on_disk(broker) == len(held), said="the last lease on disk")
    broker.kill()
    ended = set(list(held)[::3])
    for accessor in ended:
        os.kill(held[accessor], signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{held[accessor]}/cmdline").exists() for accessor in ended), said="their end")
    broker.launch()
    assert {accessor: pid for accessor, pid in held.items() if accessor not in ended} == _leases(broker)
    for accessor in held.keys() - ended:
        os.kill(held[accessor], signal.SIGKILL)
    until(lambda: not _leases(broker), said="the end of all leases")
    assert (0, 0) == (broker.admin("status")["processes"], broker.admin("status")["pending_revocations"])
