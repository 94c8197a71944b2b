"""How often anybody is asked again: floors, caps, jitter, an account never locked, a thousand brokers at once."""

import random
from collections import Counter
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.vault_pacing import (
    FORGOTTEN,
    LOGIN_CAP,
    LOGIN_FLOOR,
    MOST_REFUSED,
    SERVER_CAP,
    SERVER_FLOOR,
    Pacing,
    Refusals,
    renew_after,
    worn_out,
)

LOCKING: Final = 5
"""Refused logins after which a server locks an account, and the seconds for which it counts them."""
COUNTED: Final = 900.0

JITTER: Final = st.floats(0, 1, exclude_max=True)


def test_who_has_not_failed_may_be_asked() -> None:
    """Without a failure nobody waits."""
    assert Pacing().may(0.0)


@given(failures=st.integers(1, 200), jitter=JITTER)
def test_every_wait_has_a_floor_and_a_cap(failures: int, jitter: float) -> None:
    """However often it failed, the next question comes no earlier than the floor and no later than the cap."""
    pacing = Pacing()
    for _ in range(failures):
        pacing.failed(100.0, jitter=jitter)
    assert SERVER_FLOOR <= pacing.until - 100.0 <= SERVER_CAP


@given(jitter=JITTER)
def test_a_wait_grows_until_it_is_the_cap(jitter: float) -> None:
    """Each failure makes the wait longer, up to the cap."""
    pacing, waits = Pacing(floor=LOGIN_FLOOR, cap=LOGIN_CAP), []
    for _ in range(12):
        pacing.failed(0.0, jitter=jitter)
        waits.append(pacing.until)
    assert (sorted(waits), LOGIN_CAP * (0.5 + jitter / 2)) == (waits, waits[-1])


@given(jitter=JITTER, wait=st.floats(0, 300))
def test_a_server_waits_at_least_as_it_says(jitter: float, wait: float) -> None:
    """What ``Retry-After`` says is kept, and spread by a quarter: many clients were told the same."""
    pacing = Pacing()
    pacing.failed(0.0, jitter=jitter, wait=wait)
    assert wait <= pacing.until <= max(2 * SERVER_FLOOR, wait * 1.25)


def test_an_answer_ends_the_wait() -> None:
    """After a success nobody waits, and the next failure begins anew."""
    pacing = Pacing()
    for _ in range(9):
        pacing.failed(0.0, jitter=0.0)
    pacing.succeeded()
    freed = pacing.may(0.0)
    pacing.failed(0.0, jitter=0.0)
    assert (True, SERVER_FLOOR) == (freed, pacing.until)


def test_of_many_that_wait_one_tries() -> None:
    """While one finds out whether a server is back, the others do not ask."""
    pacing = Pacing()
    pacing.failed(0.0, jitter=0.0)
    pacing.trying(1.0, 10.0)
    assert [False, True] == [pacing.may(10.9), pacing.may(11.0)]


def test_of_many_that_ask_a_healthy_server_all_may() -> None:
    """A question under way to a server that has not failed keeps nobody from asking."""
    pacing = Pacing()
    pacing.trying(1.0, 10.0)
    assert pacing.may(1.0)


PAUSES: Final = st.sampled_from([0.0, 1.0, 60.0, 299.0, 301.0, 899.0, 901.0, 1199.0, 1201.0]) | st.floats(0, 2000)


@given(steps=st.lists(st.tuples(PAUSES, st.integers(0, 9)), min_size=8, max_size=60))
def test_refused_logins_lock_no_account(steps: list[tuple[float, int]]) -> None:
    """Whatever is put into the file and whenever it is tried, no fifth refusal comes within the server's 15 minutes."""
    assert most_refused(steps) < LOCKING


@pytest.mark.parametrize("pause", [0.0, 1.0, 240.0, 400.0, 600.0])
def test_a_file_that_changes_all_the_time_locks_no_account(pause: float) -> None:
    """Three refusals of different proofs, and no more, come within the time for which a server counts."""
    assert 3 >= most_refused([(pause, number) for number in range(200)])


def most_refused(steps: list[tuple[float, int]]) -> int:
    """Try proofs after pauses, all of them refused; return how many refusals at most a server counts at a time."""
    refusals, now, tried = Refusals(), 0.0, list[float]()
    for pause, number in steps:
        now += pause
        proof = bytes([number])
        if refusals.may(now, proof) == 0:
            refusals.refused(now, proof)
            tried.append(now)
    return max(sum(1 for at in tried if begin - COUNTED <= at <= begin) for begin in tried)


@given(wakes=st.lists(st.floats(0.001, 30), min_size=1, max_size=300))
def test_the_same_proof_is_not_shown_again_before_it_is_forgotten(wakes: list[float]) -> None:
    """A login that is refused is tried once in twenty minutes with the same proof, however often somebody asks."""
    refusals, now, tried = Refusals(), 0.0, list[float]()
    for pause in wakes:
        now += pause
        if refusals.may(now, b"same") == 0:
            refusals.refused(now, b"same")
            tried.append(now)
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert all(gap >= FORGOTTEN for gap in gaps)


def test_another_proof_may_be_shown_at_once_and_a_fourth_may_not() -> None:
    """What was mended is tried without a wait; after three different ones that were refused it waits, too."""
    refusals = Refusals()
    waits = []
    for proof in (b"1", b"2", b"3", b"4"):
        waits.append(refusals.may(100.0, proof))
        refusals.refused(100.0, proof)
    assert ([0.0] * MOST_REFUSED + [FORGOTTEN]) == waits


def test_a_login_that_succeeds_ends_the_count() -> None:
    """A server counts from the beginning after a success, and so do we."""
    refusals = Refusals()
    for proof in (b"1", b"2", b"3"):
        refusals.refused(0.0, proof)
    refusals.accepted()
    assert (0.0, Refusals()) == (refusals.may(0.0, b"3"), refusals)


@given(back=st.floats(0, 1e9))
def test_a_clock_that_was_set_back_keeps_nobody_for_longer(back: float) -> None:
    """After the wall clock jumps back, the wait is as long as from now and no longer."""
    refusals = Refusals()
    refusals.refused(2e9, b"x")
    assert 0 < refusals.may(2e9 - back, b"x") <= FORGOTTEN


@given(ttl=st.floats(1.6, 1e8), jitter=JITTER)
def test_a_token_is_renewed_between_half_and_two_thirds_of_its_time(ttl: float, jitter: float) -> None:
    """Two thirds less a third of a grace of 10 to 20 %: there is time left to try again."""
    assert 0.59 * ttl <= renew_after(ttl, jitter=jitter) <= ttl * 2 / 3


@given(ttl=st.floats(0, 1.5), jitter=JITTER)
def test_no_renewal_is_a_hot_loop(ttl: float, jitter: float) -> None:
    """However little is left, a second passes between two renewals."""
    assert 1.0 == renew_after(ttl, jitter=jitter)


@pytest.mark.parametrize(
    ("granted", "jitter", "worn"), [(100, 0.0, True), (101, 0.0, False), (200, 1.0, True), (201, 1.0, False)]
)
def test_a_token_is_replaced_when_a_renewal_gives_little(granted: float, jitter: float, *, worn: bool) -> None:
    """A renewal that gives no more than the grace says that the end is near."""
    assert worn is worn_out(1000, granted, jitter=jitter)


class Broker:
    """One of many, as far as asking goes: it has a request every second, and asks when it may."""

    def __init__(self, seed: int) -> None:
        """Have requests at a time of the second of its own."""
        self._jitter = random.Random(seed)  # noqa: S311 -- jitter, the same in every run
        self.pacing = Pacing()
        self.next = self._jitter.random()

    def ask(self, now: float, *, answers: bool) -> bool:
        """Ask if it may; return whether it did."""
        self.next = now + 1.0
        if not self.pacing.may(now):
            return False
        if answers:
            self.pacing.succeeded()
        else:
            self.pacing.failed(now, jitter=self._jitter.random())
        return True


def outage(brokers: int, *, down: float, up: float) -> tuple[Counter[int], Counter[int]]:
    """Let a server be down and come back; return the questions of each second before, and the first ones after."""
    all_of_them = [Broker(seed) for seed in range(brokers)]
    during, after = Counter[int](), Counter[int]()
    waiting = set(all_of_them)
    for tick in range(int((down + up) * 10)):
        now = tick / 10
        for broker in all_of_them:
            if broker.next <= now and broker.ask(now, answers=now >= down):
                if now < down:
                    during[int(now)] += 1
                elif broker in waiting:
                    waiting.remove(broker)
                    after[int(now - down)] += 1
    assert not waiting
    return during, after


def test_a_thousand_brokers_do_not_come_back_in_one_second() -> None:
    """After ten minutes without a server a thousand brokers find it again in half a minute, 80 a second at most."""
    during, after = outage(1000, down=600.0, up=60.0)
    # It was 53 in the busiest second, in 30 seconds; with the same wait for all it would be 1,000 in one.
    late = [during[second] for second in range(120, 600)]
    assert (1000, True, True, True) == (
        after.total(),
        max(after.values()) <= 80,
        max(after) <= SERVER_CAP + 1,
        max(late) <= 80,
    )
