"""
Kills the daemon between every two steps, again and again, and looks at what is left.

A step is a line of ours, in whichever thread (``crash_steps``): nothing in the
daemon is there for this test, and no step that somebody adds later is left out.
Those in the kernel and in libraries have no such name; for them the daemon is also
killed at random moments. Between two kills it is started anew over the same
directory, and everything that was promised is looked up: in the files while it is
down, and from the socket once it is up.

This is a program of its own (``python -m tests.integration.crash DIR LANE LANES
STRIDE LEAST SEED``): it loads everything once and forks each daemon and each
workload, which takes a tenth of the time of a start. Of several lanes each takes
every STRIDEth step, beginning at another one. It refuses to go on after a promise
was broken.
"""

import contextlib
import gc
import json
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import uvloop  # noqa: F401 -- loaded here, so that no fork has to

from backends import registry
from broker.core import chain
from broker.core.verification import verify
from broker.daemon import serve
from broker.paths import Places, within
from tests.fakes import minting
from tests.integration.crash_steps import ANY_MOMENT, SCENARIOS, Child, Scenario, Steps, Workload, issue
from tests.running import Connection, HungUpError, prepare, until

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
roles = ["db"]
ttl = 600

[backends.prep]
type = "minting"
kind = "preparing"
source = "../source"
roles = ["db"]
ttl = 600

[secrets.db]
backend = "mint"
path = "db"
ttl = "10m"

[secrets.prepared]
backend = "prep"
path = "db"
ttl = "10m"

[secrets.shared]
backend = "prep"
path = "db"
ttl = "10m"
share = true

[servers.app]
command = ["true"]
allow = ["prepared", "shared"]
env.TOKEN = "{static}"
env.OTHER = "{other.user}:{other.password}"
env.DATABASE = "{db.username}:{db.password}"
"""

MOMENTS: Final = 100
"""Kills at a random moment, for each lane."""

LONGEST: Final = 0.004
"""Seconds after the beginning of a request in which such a moment lies; the request takes about one thousandth."""

QUIET: Final = 0.02
"""Seconds after an answer in which nothing more happens in the daemon, so that no step is left to kill it at."""


@dataclass(slots=True)
class Lane:
    """One directory, one daemon after the other."""

    places: Places
    source: minting.Source
    kills: Counter[str] = field(default_factory=Counter)
    server: Workload | None = None
    last: Workload | None = None
    revoked: set[str] = field(default_factory=set)
    """Leases that an admin revoked and was told so."""
    daemon: Child | None = None
    where: Path = Path()

    def start(self, steps: Steps | None) -> bool:
        """Start a daemon; return whether it got as far as answering."""
        log = os.open(self.places.run.parent / "daemon.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        def run() -> None:
            os.dup2(log, 2)
            if steps is not None:
                steps.begin()
            serve(self.places)

        daemon = self.daemon = Child(run)
        os.close(log)

        def answers() -> bool:
            if daemon.ended(0):
                return True
            with contextlib.suppress(OSError, HungUpError), Connection(self.places.admin_socket) as connection:
                return bool(connection.call("whoami"))
            return False

        until(answers, said="the start of the daemon")
        return not daemon.ended(0)

    def admin(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask the daemon as an admin."""
        with Connection(self.places.admin_socket) as connection:
            return connection.call(method, **params)

    # -- one round -----------------------------------------------------------

    def round(self, scenario: Scenario, at: int) -> bool:
        """Kill a daemon at one step of a scenario; return false where there is none, and it was killed from outside."""
        steps = Steps(scenario=scenario, at=at, places=self.where) if scenario.trigger else None
        if scenario.then == "start":
            self.leave_something_to_do(scenario)
        started = self.start(steps)
        if scenario.then != "start":
            assert started, "the daemon died before anything was asked of it"
            self.look_from_outside()
            if self.last is not None:
                self.last.kill()
            self.do(scenario)
        assert self.daemon is not None
        by_itself = self.daemon.ended(QUIET)
        self.daemon.kill()
        self.kills[scenario.name] += by_itself
        self.look_into_files()
        return by_itself

    def leave_something_to_do(self, scenario: Scenario) -> None:
        """Let a workload end while no daemon runs, so that the next one finds a lease of nobody."""
        assert self.start(None)
        self.look_from_outside()
        self.do(scenario)
        assert self.daemon is not None
        assert self.last is not None
        self.daemon.kill()
        self.last.kill()

    def do(self, scenario: Scenario) -> None:
        """Do what the scenario does, to a daemon that may die of it."""
        assert self.daemon is not None
        workload = self.last = Workload(self.places.broker_socket, scenario.asks)
        if scenario.then == "moment":
            time.sleep(random.random() * LONGEST)  # noqa: S311
            self.daemon.kill()
        workload.collect()
        if scenario.then == "end":
            workload.kill()
            until(self._is_over, said="giving back what an ended process had")
        elif scenario.then == "revoke":
            for accessor in workload.accessors:
                with contextlib.suppress(OSError, HungUpError):
                    self.admin("lease/revoke", accessor=accessor)
                    self.revoked.add(accessor)
            until(self._is_over, said="giving back what was revoked")

    def _is_over(self) -> bool:
        """Return whether the daemon has died, or given back what the last workload had."""
        assert self.daemon is not None
        assert self.last is not None
        return self.daemon.ended(0) or not self.last.accessors & set(self.source.valid().values())

    # -- what was promised ---------------------------------------------------

    def look_into_files(self) -> None:
        """With the daemon down: what a workload has received is on record."""
        recorded = {record.get("accessor") for record in self.records() if record["event"] == "credential/authorised"}
        for workload in (self.server, self.last):
            if workload is not None and not workload.accessors <= recorded:
                message = f"released without a record: {workload.accessors - recorded}"
                raise AssertionError(message)

    def look_from_outside(self) -> None:
        """With the daemon up again: every lease is in use, revoked or listed, and who was running holds theirs."""
        until(lambda: not self.admin("status")["pending_revocations"], said="giving back what had ended")
        leases = {row["accessor"]: row for row in self.admin("lease/list")["leases"]}
        living = {child.pid for child in (self.server, self.last) if child is not None and child.running}
        strangers = [row["accessor"] for row in leases.values() if row["pid"] not in living]
        assert [] == strangers, f"leases of processes that have ended: {strangers}"
        held = self.server.accessors if self.server is not None else set()
        assert held <= leases.keys(), f"a running server lost {held - leases.keys()}"
        back = [
            row["accessor"] for row in leases.values() if row["accessor"] in self.revoked and row["state"] == "active"
        ]
        assert [] == back, f"revoked by an admin and in force again: {back}"
        minted = {each.intent: each for each in self.source.minted().values()}
        listed = len(self.admin("status")["unknown"])
        # The rows of those that were given back by their handles go a moment later.
        until(lambda: len(self.intents()) <= listed, said="the end of the other intents")
        unknown = self.intents()
        assert len(unknown) == listed, "not every intent is listed"
        for intent, each in minted.items():
            active = intent in leases and leases[intent]["state"] == "active"
            assert active or each.revocations or intent in unknown, f"{each} is in no use, not revoked and not listed"
        if self.last is not None and self.last.running:
            got = self.last.accessors & minted.keys()
            assert got <= leases.keys(), f"what a living workload was given is in no list: {got - leases.keys()}"

    def intents(self) -> set[str]:
        """Return the intents on disk."""
        with contextlib.closing(sqlite3.connect(f"file:{self.places.state}/state.db?mode=ro", uri=True)) as connection:
            return {row[0] for row in connection.execute("SELECT accessor FROM intents")}

    def rows(self) -> set[str]:
        """Return the leases on disk."""
        with contextlib.closing(sqlite3.connect(f"file:{self.places.state}/state.db?mode=ro", uri=True)) as connection:
            return {row[0] for row in connection.execute("SELECT accessor FROM leases")}

    def records(self) -> Iterator[dict[str, Any]]:
        """Go over all audit records; a torn last line is none."""
        for path in self.segments():
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def seen(self) -> set[str]:
        """Return the places in our files before which a daemon was killed."""
        return set(self.where.read_text("utf-8").split()) if self.where.exists() else set()

    def segments(self) -> list[Path]:
        """Return the files of the audit log, oldest first."""
        return [*sorted(self.places.audit.glob("audit-*.jsonl")), self.places.audit / chain.CURRENT]

    def conclude(self) -> None:
        """Start once more: all is given back when everybody has ended, the store is whole, the chain verifies."""
        assert self.start(None)
        self.look_from_outside()
        for child in (self.last, self.server):
            if child is not None:
                child.kill()
        self.last = self.server = None
        until(lambda: not self.admin("lease/list")["leases"], said="the end of all leases")
        self.look_from_outside()
        self.admin("stop")
        assert self.daemon is not None
        assert self.daemon.ended(15)
        with contextlib.closing(sqlite3.connect(self.places.state / "state.db")) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        lines = [(path.name, path.read_bytes().splitlines(keepends=True)) for path in self.segments()]
        alarms = [found for found in verify(lines).findings if found.alarm]
        assert [] == alarms, alarms

    def close(self) -> None:
        """Leave no process behind."""
        for child in (self.daemon, self.last, self.server):
            if child is not None:
                child.kill()


def lane(directory: Path) -> Lane:
    """Return a lane over a new directory, in which a server runs that holds one credential of each kind."""
    source = minting.Source(directory / "source")
    made = Lane(places=within(directory), source=source, where=directory / "places")
    prepare(made.places, CONFIG)
    assert made.start(None)
    made.admin("secret/set", name="static", values={"value": "made up"})
    made.admin("secret/set", name="other", values={"user": "somebody", "password": "made up"})
    made.server = Workload(made.places.broker_socket, (("server/open", {"server": "app"}), issue("db", fresh=True)))
    made.server.collect()
    assert 4 == len(made.server.accessors)
    # The rows of static leases need not be on disk before the release; a moment later they are.
    until(lambda: made.rows() >= made.server.accessors if made.server else True, said="the rows of the leases")
    made.daemon.kill() if made.daemon else None
    return made


def main(words: list[str]) -> int:
    """Run one lane; print what was done as JSON."""
    directory, numbers = Path(words[0]), [int(word) for word in words[1:]]
    number, lanes, stride, least, seed = numbers
    sys.path.append(str(minting.install(directory / "packages")))
    # What a start would load is loaded here, once; what is here now is left alone by every fork's collector.
    for kind in ("sealed", minting.KIND):
        registry.factory(kind)
    gc.freeze()
    random.seed(seed)
    kills: Counter[str] = Counter()
    places: set[str] = set()
    while sum(kills.values()) < least:
        first = 1 + (random.randrange(stride) + number * stride // lanes) % stride  # noqa: S311
        for scenario in (*SCENARIOS, ANY_MOMENT):
            made = lane(directory / f"{len(kills)}-{sum(kills.values())}")
            at = 0
            try:
                for at in count(first, stride) if scenario.trigger else range(MOMENTS):
                    if not made.round(scenario, at) and scenario.trigger:
                        break
                made.conclude()
            except BaseException:
                sys.stderr.write(f"in {scenario.name!r} at step {at}, in {made.places.run.parent}\n")
                raise
            finally:
                made.close()
            kills += made.kills
            places |= made.seen()
    sys.stdout.write(json.dumps({"kills": kills, "places": sorted(places)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
