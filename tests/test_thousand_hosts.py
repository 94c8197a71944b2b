"""
A thousand brokers after an outage of what all of them depend on.

Each has a lease, a revocation and a reading that failed while it lasted. Time is a
number here: the rules are asked what they would do at each second, and this module
refuses to ask anything else.
"""

import random
from collections import Counter
from typing import Final

import pytest

from broker.core.freshness import quiet_for
from broker.core.leases import Expire, LeaseTable, renewal_at
from broker.revoker import wait_before
from tests.core.test_leases import lease, process

HOSTS: Final = 1000
MOST: Final = 60
"""Hosts that come back in one second at most; all of them in the same one is what must not be."""


def busiest(times: list[float], begins: float) -> int:
    """Return how many of the first moments after a time fall into one second."""
    assert HOSTS == len(times)
    return max(Counter(int(when - begins) for when in times).values())


@pytest.mark.parametrize("outage", [60.0, 600.0], ids=["a minute", "ten minutes"])
def test_renewals_come_back_one_after_the_other(outage: float) -> None:
    """A thousand leases of an hour, made in one second and due in the outage, come up again spread over time."""
    begins, back = 2400.0, []
    ends = begins + outage
    for host in range(HOSTS):
        table = LeaseTable()
        table.add(lease(f"lease-of-{host}", process(host), ttl=3600.0, expires_at=3600.0))
        now = begins
        # What is told before the end fails, and the table is told nothing of it.
        while not (told := table.due(now)) or now < ends:
            now += 1.0
        assert not isinstance(told[0], Expire)
        back.append(now)
    assert busiest(back, ends) < MOST


@pytest.mark.parametrize("outage", [60.0, 3600.0], ids=["a minute", "an hour"])
def test_revocations_come_back_one_after_the_other(outage: float) -> None:
    """A thousand revocations that have failed since the same second are tried again spread over time."""
    draw, back = random.Random(7), []  # noqa: S311 -- jitter, the same in each run
    for _ in range(HOSTS):
        now, attempts = 0.0, 1
        while now < outage:
            now += wait_before(attempts, jitter=draw.random())
            attempts += 1
        back.append(now)
    assert busiest(back, outage) < MOST * 2


@pytest.mark.parametrize("outage", [60.0, 3600.0], ids=["a minute", "an hour"])
def test_readings_come_back_one_after_the_other(outage: float) -> None:
    """A thousand hosts that leave a silent backend alone do not ask it again in one second, however often they want."""
    draw, back = random.Random(7), []  # noqa: S311
    for _ in range(HOSTS):
        now, failures = 0.0, 1
        while now < outage:
            now += quiet_for(failures, jitter=draw.random())
            failures += 1
        back.append(now)
    assert busiest(back, outage) < MOST * 2


def test_what_was_made_in_one_second_is_renewed_over_two_minutes() -> None:
    """A thousand leases of an hour that were made in one second are not renewed in one, without any outage."""
    due = [renewal_at(lease(f"lease-of-{host}", ttl=3600.0, expires_at=3600.0)) for host in range(HOSTS)]
    assert busiest(due, 2400.0) < MOST
