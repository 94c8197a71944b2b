"""
SIGKILL of the daemon between every two steps of an issue, a thousand times over.

The killing is in ``crash``, which says what is looked up after each kill. This
module refuses to be quick about it: it takes a few minutes.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from typing import Any, Final

import pytest

from tests import running
from tests.integration.crash_steps import SCENARIOS

LANES: Final = 2
STRIDE: Final = 12
"""Each lane kills at every twelfth step, beginning at random; the two of them at every sixth."""

KILLS: Final = 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_that_was_promised_is_lost_over_a_thousand_kills() -> None:
    """
    Wherever the daemon is killed, what it promised holds afterwards.

    Every value that somebody received is on record, everything that was minted is
    in use by a living process, revoked or listed, the store opens, the chain
    verifies, and a server that was running holds what it held.
    """
    seed = random.SystemRandom().randrange(2**32)
    kills: Counter[str] = Counter()
    places: set[str] = set()
    with running.room() as room:
        lanes = []
        for number in range(LANES):
            directory = room / f"lane-{number}"
            directory.mkdir()
            words = [str(word) for word in (directory, number, LANES, STRIDE, KILLS // LANES, seed)]
            command = [sys.executable, "-m", "tests.integration.crash", *words]
            lanes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        try:
            ended: list[tuple[str, str, int]] = [(*each.communicate(), each.returncode) for each in lanes]
        finally:
            for each in lanes:
                each.kill()
                each.wait()
    assert [(0, "")] * LANES == [(status, said) for _, said, status in ended], f"seed {seed}"
    for printed, _, _ in ended:
        report: dict[str, Any] = json.loads(printed)
        kills.update(report["kills"])
        places |= set(report["places"])
    assert sum(kills.values()) >= KILLS
    assert [] == [scenario.name for scenario in SCENARIOS if kills[scenario.name] < 10]
    # Between which steps: those of the issue itself are all among them, whatever the stride.
    assert {"service.py", "store.py", "audit.py", "audit_writer.py"} <= {place.split(":")[0] for place in places}
