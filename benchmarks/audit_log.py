"""
What the audit log costs: to verify, to hold in memory, to copy, and to keep from being changed unseen.

The logs are made here, in the rig's directory, and go with it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from benchmarks import rig as r
from benchmarks.figure import Figure
from broker.core import chain
from tests.audit.killing import killed
from tests.audit.tampering import ATTACKS, LINE_IS_NAMED, built

LINE: Final = '{"jsonrpc":"2.0","id":1,"method":"credential/issue","params":{"secret":"bench"}}\n'
LINE_END: Final = "}\n"
SHORT: Final = 500_000
LONG: Final = 10_000_000
TAMPERED: Final = 1_000_000
KILLS: Final = 1000
_BATCH: Final = 1000
_FACTS: Final = {
    "server": "github",
    "secret": "github",
    "backend": "local",
    "accessor": "y6NOF3yMgfCQtCXu3Kqr",
    "uid": 1000,
    "gid": 1000,
    "pid": 19017,
    "start": 1519597,
    "expires_at": 1_790_000_000,
    "version": 1,
    "bound": 19017,
    "dialect": "lines",
    "fingerprint": "7928b6b0ca3b06c430877a7aab083e54",
}

_VERIFY: Final = """
import json, resource, sys, time
from pathlib import Path
from broker import audit_keys
from broker.cli.audit_log import DirectoryLog, lines
from broker.core.verification import verify
log = DirectoryLog(Path(sys.argv[1]))
begin = time.perf_counter()
report = verify(lines(log), notes=[], signed=audit_keys.signed)
took = time.perf_counter() - begin
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
assert report.intact and not report.findings, report.findings
print(json.dumps({"rate": report.records / took, "memory": memory}))
"""


def verifying(rig: r.Rig, rounds: int, _: float) -> Iterator[Figure]:
    """Measure how fast a log is verified, and in how much memory a long one."""
    short = written(rig.directory / "short", SHORT)
    found = [verified(short) for _ in range(rounds)]
    rates = sorted(each["rate"] for each in found)
    yield Figure("audit verify", "records/s", rates, 200_000, at_least=True, note=f"{SHORT:,} records of 430 bytes")
    small = max(each["memory"] for each in found)
    once = verified(written(rig.directory / "long", LONG))
    note = f"{small:.0f} MB for {SHORT:,}; {once['rate']:,.0f} records/s"
    yield Figure(f"audit verify, {LONG:,} records", "MB", [once["memory"]], small * 1.2, at_least=False, note=note)


def written(place: Path, count: int) -> Path:
    """Write a log of so many records, in segments of a million."""
    place.mkdir()
    facts, head, segment = chain.facts(_FACTS), chain.GENESIS, 0
    left = count
    while left:
        segment += 1
        some = min(left, 1_000_000)
        left -= some
        name = chain.archived(segment) if left else chain.CURRENT
        said = {"format": 1, "segment": segment, "why": "size" if segment > 1 else "first"}
        with (place / name).open("wb") as file:
            text, head = chain.extend(head, [chain.body(1.79e9, chain.SEGMENT, said)])
            file.write(text)
            for _ in range(some // _BATCH):
                text, head = chain.extend(head, [chain.body(1.79e9, "credential/authorised", facts)] * _BATCH)
                file.write(text)
    return place


def verified(place: Path) -> dict[str, float]:
    """Verify a log in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _VERIFY, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def copying(rig: r.Rig, rounds: int, seconds: float) -> Iterator[Figure]:
    """
    Compare what a warm issue costs with and without checkpoints and a sink that gets every record.

    In processor time of the whole broker, copies included: that says the same on a machine that has other things to do.
    """
    config = rig.directory / "config" / "broker.toml"
    plain = config.read_text()
    path = rig.directory / "sink"
    sink = f'\n[audit]\ncheckpoint = 1\n[audit.sinks.bench]\ntype = "syslog"\nsend = "records"\naddress = "unix://{path}"\n'
    costs, notes = [], []
    with listening(path):
        for number in range(rounds * 2):
            rates, spent = {}, {}
            # In turns, and each first as often as the other: what the machine does meanwhile hits both.
            for name, text in sorted({"bare": plain, "copied": plain + sink}.items(), reverse=bool(number % 2)):
                config.write_text(text)
                with rig.serving() as (pid, _):
                    r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
                    before, issued = processor(pid), recorded(rig)
                    rates[name] = r.load(rig.broker, LINE, LINE_END, connections=32, seconds=seconds)["rate"]
                    spent[name] = 1e6 * (processor(pid) - before) / (recorded(rig) - issued)
                shutil.rmtree(rig.directory / "state" / "audit")
                shutil.rmtree(rig.directory / "state" / "copies", ignore_errors=True)
                shutil.rmtree(rig.directory / "state" / "signing")
            costs.append(100 * (spent["copied"] / spent["bare"] - 1))
            rate = f"{rates['copied']:,.0f}/s and {rates['bare']:,.0f}/s"
            notes.append(f"{spent['copied']:.1f} µs instead of {spent['bare']:.1f}, {rate}")
    config.write_text(plain)
    middle = costs.index(sorted(costs)[len(costs) // 2])
    name = "checkpoints and a sink, warm issues"
    yield Figure(name, "% more work", costs, 5.0, at_least=False, note=notes[middle])


def processor(pid: int) -> float:
    """Return the seconds of processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def recorded(rig: r.Rig) -> int:
    """Return how many records there are."""
    found: int = r.ask(rig.admin, "status")["audit"]["records"]
    return found


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Take every datagram, as the journal's or the syslog daemon's socket does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(0.2)
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            try:
                sock.recv(1 << 17)
            except TimeoutError:
                continue

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sock.close()


def killing(rig: r.Rig, _: int, __: float) -> Iterator[Figure]:
    """Kill a broker a thousand times under load; nothing that it has answered may be lost."""
    lost = killed(rig.directory / "killed", KILLS)
    yield Figure(f"lost over {KILLS:,} kills", "records", [float(len(lost))], 0.0, at_least=False)


def tampering(_: r.Rig, __: int, ___: float) -> Iterator[Figure]:
    """Make every class of change on a log of a million records; each has to be found, and named."""
    for name, (attack, kinds) in ATTACKS.items():
        made = built(TAMPERED, every=TAMPERED // 50)
        at = attack(made, Random(name))  # noqa: S311 -- the same each time
        begin = time.perf_counter()
        report = made.judged()
        took = time.perf_counter() - begin
        alarms = [each for each in report.findings if each.alarm]
        named = bool(kinds & {each.kind for each in alarms})
        where = name not in LINE_IS_NAMED or alarms[0].where == f"{chain.CURRENT}:{at + 1}"
        note = f"{alarms[0].kind} at {alarms[0].where}, {took:.1f} s" if alarms else "not found"
        yield Figure(f"found: {name}", "of 1", [float(named and where)], 1.0, at_least=True, note=note)
