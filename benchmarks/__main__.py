"""
Measure everything that has a figure to reach, and show it beside that figure.

    python -m benchmarks [--seconds 2] [--rounds 5] [--json]

Each comparison is made ``rounds`` times in turns, the broker and what it is
compared with right after each other; shown is the median and the spread.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import audit_log
from benchmarks import keyring as k
from benchmarks import rig as r
from benchmarks import vault as v
from benchmarks.figure import Figure

LINE: Final = '{"jsonrpc":"2.0","id":1,"method":"credential/issue","params":{"secret":"bench"}}\n'
BODY: Final = "{}"
HTTP: Final = (
    f"POST /v1/secrets/bench/issue HTTP/1.1\r\nHost: broker\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
)
LINE_END: Final = "}\n"
HTTP_END: Final = '"version":1}'
LEASES: Final = 10_000


def throughput(rig: r.Rig, rounds: int, seconds: float) -> Iterator[Figure]:
    """Compare warm issues with bare servers of the same libraries."""
    wanted = {("lines", 32): 15.0, ("lines", 128): 25.0, ("http", 32): 50.0, ("http", 128): 50.0}
    with (
        rig.serving(),
        r.peer("echo", rig.directory / "echo.sock") as echo,
        r.peer("aiohttp", rig.directory / "http.sock") as http,
    ):
        r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
        for dialect, request, mark, bare in (("lines", LINE, LINE_END, echo), ("http", HTTP, HTTP_END, http)):
            for connections in (1, 32, 128):
                yield _against_bare(
                    rig,
                    dialect,
                    request,
                    mark,
                    bare,
                    connections,
                    rounds,
                    seconds,
                    wanted.get((dialect, connections), 0.0),
                )
        yield _one_issue(rig, rounds, seconds)


def _against_bare(  # noqa: PLR0917 -- one measurement, and all that it consists of
    rig: r.Rig,
    dialect: str,
    request: str,
    mark: str,
    bare: Path,
    connections: int,
    rounds: int,
    seconds: float,
    wanted: float,
) -> Figure:
    ratios, notes = [], []
    for _ in range(rounds):
        ours = r.load(rig.broker, request, mark, connections=connections, seconds=seconds)
        theirs = r.load(bare, request, mark, connections=connections, seconds=seconds)
        ratios.append(100 * ours["rate"] / theirs["rate"])
        notes.append(f"{ours['rate']:,.0f}/s of {theirs['rate']:,.0f}/s, p50 {ours['p50']:.2f} ms")
    middle = ratios.index(sorted(ratios)[len(ratios) // 2])
    what = "bare echo" if dialect == "lines" else "bare aiohttp"
    return Figure(
        f"issue, {dialect}, {connections} connections",
        f"% of {what}",
        ratios,
        wanted,
        at_least=True,
        note=notes[middle],
    )


def _one_issue(rig: r.Rig, rounds: int, seconds: float) -> Figure:
    over, notes = [], []
    for _ in range(rounds):
        sync = r.fdatasync_ms(rig.directory)
        issue = r.load(rig.broker, LINE, LINE_END, connections=1, seconds=seconds)["p50"]
        over.append(issue - sync)
        notes.append(f"{issue:.2f} ms, one fdatasync {sync:.2f} ms")
    middle = over.index(sorted(over)[len(over) // 2])
    return Figure("one warm issue over one fdatasync", "ms", over, 0.3, at_least=False, note=notes[middle])


def launching(rig: r.Rig, rounds: int, _: float) -> Iterator[Figure]:
    """Compare ``exec`` with starting the same command bare."""
    with rig.serving():
        r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
        bare = shutil.which("true") or "/bin/true"
        timed: dict[str, list[float]] = {"exec": [], "bare": [], "python": []}
        for _round in range(rounds * 8):
            timed["exec"].append(_run_ms(*r.MCP_BROKER, "exec", "bench", "--dir", str(rig.directory)))
            timed["bare"].append(_run_ms(bare))
            timed["python"].append(_run_ms(sys.executable, "-c", "pass"))
    over = [ours - theirs for ours, theirs in zip(timed["exec"], timed["bare"], strict=True)]
    python = statistics.median(timed["python"])
    note = f"python -c pass takes {python:.0f} ms here, so {50 * max(1.0, python / 20):.0f} ms is the figure"
    yield Figure(
        "exec over the bare command", "ms", sorted(over), 50 * max(1.0, python / 20), at_least=False, note=note
    )


def _run_ms(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


def standing(rig: r.Rig, rounds: int, _: float) -> Iterator[Figure]:
    """Measure the daemon's start and its memory."""
    starts, idle = [], []
    for _round in range(rounds):
        with rig.serving() as (pid, seconds):
            starts.append(seconds)
            idle.append(r.resident_mb(pid))
    yield Figure("ready after start", "s", sorted(starts), 1.0, at_least=False)
    yield Figure("memory, idle", "MB", sorted(idle), 50.0, at_least=False)
    with rig.serving() as (pid, _seconds):
        r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
        _take_leases(rig.broker, LEASES)
        full = r.resident_mb(pid)
    yield Figure(f"memory, {LEASES:,} leases", "MB", [full], float("inf"), at_least=False, note="no figure to reach")


def _take_leases(path: Path, count: int) -> None:
    """Hold ``count`` leases by one process, over one connection."""
    import socket  # noqa: PLC0415 -- here alone

    request = LINE.replace('"bench"}', '"bench","fresh":true}').encode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        with sock.makefile("rb") as lines:
            for _ in range(count // 50):
                sock.sendall(request * 50)
                for _line in range(50):
                    assert b'"accessor"' in lines.readline()


def keyring(rig: r.Rig, rounds: int, seconds: float) -> Iterator[Figure]:
    """Compare a keyring with the bare library, with the sealed store, and with a broker that has none."""
    if missing := k.missing():
        print(f"the keyring is not measured: {' '.join(missing)} not installed", file=sys.stderr)
        return
    directory = rig.directory / "desktop"
    with k.desktop(directory) as there:
        reads = list(k.cold_ms(there, directory, rounds))
        ours, bare = (statistics.median(column) for column in zip(*reads, strict=True))
        over = [mine - theirs for mine, theirs in reads]
        note = f"{ours:.2f} ms, the library {bare:.2f} ms"
        yield Figure("cold read over the bare library's", "ms", sorted(over), 2.0, at_least=False, note=note)
        without = k.starts(rig, rounds)
        k.configured(rig, there)
        delays = [mine - theirs for mine, theirs in zip(sorted(k.starts(rig, rounds)), sorted(without), strict=True)]
        note = f"{statistics.median(without):.2f} s without"
        yield Figure("start over one without a keyring", "s", delays, 0.02, at_least=False, note=note)
        with rig.serving():
            pairs = list(k.warm(rig, rounds, seconds))
        ratios = [100 * kept["rate"] / sealed["rate"] for kept, sealed in pairs]
        note = f"{pairs[-1][0]['rate']:,.0f}/s of {pairs[-1][1]['rate']:,.0f}/s"
        yield Figure("warm issue, 32 connections", "% of the sealed store's", ratios, 95.0, at_least=True, note=note)


def vault(rig: r.Rig, rounds: int, seconds: float) -> Iterator[Figure]:
    """Compare a Vault with the bare request to it, and with the sealed store; count what it sees."""
    with v.running(rig.directory / "vault") as place:
        v.configured(rig, place)
        with rig.serving():
            reads = list(v.cold_ms(rig, place, rounds))
            ours, bare = (statistics.median(column) for column in zip(*reads, strict=True))
            over = [mine - theirs for mine, theirs in reads]
            note = f"{ours:.2f} ms, bare {bare:.2f} ms, of {place.what}"
            yield Figure("cold issue over the bare request", "ms", sorted(over), 3.0, at_least=False, note=note)
            opened = [v.leases(rig, place) for _ in range(rounds)]
            took = [f"{each[0]:.2f}" for each in opened]
            note = f"{v.LEASES} leases in {min(took)}-{max(took)} s, {opened[-1][2]} requests"
            most = [float(each[1]) for each in opened]
            yield Figure(f"{v.LEASES} leases at once", "requests under way", most, 16, at_least=False, note=note)
            pairs = list(v.warm(rig, rounds, seconds))
        ratios = [100 * warm["rate"] / sealed["rate"] for warm, sealed in pairs]
        note = f"{pairs[-1][0]['rate']:,.0f}/s of {pairs[-1][1]['rate']:,.0f}/s"
        yield Figure("warm issue, 32 connections", "% of the sealed store's", ratios, 95.0, at_least=True, note=note)


PARTS: Final[dict[str, Callable[[r.Rig, int, float], Iterator[Figure]]]] = {
    "throughput": throughput,
    "exec": launching,
    "standing": standing,
    "keyring": keyring,
    "vault": vault,
    "verify": audit_log.verifying,
    "copies": audit_log.copying,
    "tampering": audit_log.tampering,
    "kills": audit_log.killing,
}


def main() -> int:
    """Measure what was asked for and print it; the status is 0 whatever came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[1])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure; all without")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison")
    parser.add_argument("--json", action="store_true", help="figures for a program")
    chosen = parser.parse_args()
    console = Console(stderr=chosen.json)
    figures: list[Figure] = []
    with r.rig() as rig:
        for name in chosen.parts or PARTS:
            with console.status(f"measuring {name}…"):
                for figure in PARTS[name](rig, chosen.rounds, chosen.seconds):
                    figures.append(figure)
                    console.print(f"{figure.name}: {figure.median:.2f} {figure.unit}", style="dim")
    if chosen.json:
        print(
            json.dumps([{**asdict(figure), "median": figure.median, "reached": figure.reached} for figure in figures])
        )
    else:
        console.print(table(figures))
    return 0


def table(figures: list[Figure]) -> Table:
    """Return the figures as a table."""
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    shown = Table(title=f"mcp-secrets-broker: what it costs ({machine})")
    for heading in ("what", "median", "spread", "figure", "", "in absolute terms, this run"):
        shown.add_column(heading)
    for figure in figures:
        bound = "-" if figure.wanted in {0.0, float("inf")} else f"{'≥' if figure.at_least else '≤'} {figure.wanted:g}"
        mark = "" if bound == "-" else "✓" if figure.reached else "✗"
        spread = f"{min(figure.values):.2f}-{max(figure.values):.2f}"
        shown.add_row(figure.name, f"{figure.median:.2f} {figure.unit}", spread, bound, mark, figure.note)
    return shown


if __name__ == "__main__":
    sys.exit(main())
