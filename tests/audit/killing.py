"""
A broker that is killed under load, again and again, and what its log is like afterwards.
"""

import signal
from pathlib import Path
from typing import Final

from broker import audit_keys
from broker.audit_pages import Pages
from broker.core import checkpoint as c
from broker.core.findings import Report
from broker.core.verification import split, verify
from tests.running import ONE_SERVER, start, until

CONFIG: Final = f"""
[audit]
segment_bytes = 65536
checkpoint = 1
{ONE_SERVER}
[limits]
requests_per_second = 0
leases = 0
"""


def killed(directory: Path, kills: int) -> list[str]:
    """
    Kill a broker so many times while it answers; return what is wrong with its log.

    That is every lease that somebody was given and no record has, and every alarm of the verification.
    """
    got: set[str] = set()
    with start(directory, config=CONFIG, secrets={"github": "made up"}) as broker:
        for number in range(kills):
            with broker.connect() as connection:
                for _ in range(40 + 17 * (number % 12)):
                    got.add(connection.call("credential/issue", secret="github", fresh=True)["accessor"])
                connection.send("credential/issue", secret="github", fresh=True)
                broker.signal(signal.SIGKILL)
            broker.wait()
            broker.launch()
        until(lambda: broker.admin("status")["audit"]["vouched"] > 0, said="a checkpoint")
        broker.stop()
        found = judged(broker.places.audit).findings
        text = b"".join(page_text(broker.places.audit))
    lost = [accessor for accessor in sorted(got) if accessor.encode() not in text]
    return [*lost, *(f"{each.where}: {each.text}" for each in found if each.alarm)]


def judged(place: Path) -> Report:
    """Verify a log with its checkpoints, compressed segments included."""
    pages = Pages(place)

    def text(name: str) -> bytes:
        pieces, at, end = [], 0, False
        while not end:
            page = pages.page(name, at, 4096)
            pieces.append(page.text)
            at, end = page.next, page.end
        return b"".join(pieces)

    segments = [(each.name, split([text(each.name)])) for each in pages.segments()]
    notes = c.notes(text(c.FILE).splitlines(keepends=True))
    return verify(segments, notes=notes, signed=audit_keys.signed)


def page_text(place: Path) -> list[bytes]:
    """Return all there is."""
    pages = Pages(place)
    return [pages.page(each.name, 0, 1 << 20).text for each in pages.segments()]
