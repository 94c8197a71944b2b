"""Every class of change is found and named, on logs of any length; nothing is found where nobody changed anything."""

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import chain
from tests.audit.tampering import ATTACKS, LINE_IS_NAMED, built

LENGTHS = (8, 100, 1000, 20_000)
"""Records; ``python -m benchmarks tampering`` goes on to a million."""


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_change_is_found_and_named(name: str, length: int) -> None:
    """Verification says what was done, and at which line where one line was changed."""
    attack, kinds = ATTACKS[name]
    made = built(length, every=max(3, length // 9))
    at = attack(made, Random(f"{name} {length}"))  # noqa: S311 -- the same each time
    report = made.judged()
    alarms = [each for each in report.findings if each.alarm]
    assert not report.intact
    assert kinds & {each.kind for each in alarms}, alarms
    if name in LINE_IS_NAMED:
        assert f"{chain.CURRENT}:{at + 1}" == alarms[0].where
        assert kinds == {alarms[0].kind}


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(8, 300), every=st.integers(3, 50), seed=st.integers(0, 10**6), name=st.sampled_from([*ATTACKS])
)
def test_no_change_goes_unseen(length: int, every: int, seed: int, name: str) -> None:
    """Wherever a change is made in whatever log with two checkpoints, it is found and called what it is."""
    attack, kinds = ATTACKS[name]
    made = built(length, every=min(every, length // 2))
    attack(made, Random(seed))  # noqa: S311
    found = {each.kind for each in made.judged().findings if each.alarm}
    assert found & kinds, found


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 300), every=st.integers(1, 50), more=st.integers(0, 20))
def test_no_false_alarm(length: int, every: int, more: int) -> None:
    """A log that nobody changed is intact, with records after its last checkpoint or without."""
    made = built(length, every=every)
    vouched = len(made.lines) if length else 0
    head = chain.Head(seq=len(made.lines), digest=sha256(made.lines[-1]).hexdigest())
    text, _ = chain.extend(head, [chain.body(1.79e9, "test/later", {"count": number}) for number in range(more)])
    made.lines += text.splitlines()
    report = made.judged()
    assert ((), True, vouched) == (report.findings, report.intact, report.vouched)


def test_what_was_not_kept_elsewhere_can_be_written_anew() -> None:
    """A whole log with all its checkpoints made anew is not found without a copy: that is said, not passed over."""
    made = built(100, every=20)
    ATTACKS["signed again from the first on"][0](made, Random(1))  # noqa: S311
    made.expected = []
    report = made.judged()
    assert (True, False) == (report.intact, report.compared)


@pytest.mark.parametrize("length", [20, 6000])
def test_the_first_record_of_all_can_be_replayed_too(length: int) -> None:
    """A copy of the record that begins the log is a replay, near it and so far away that its hash is forgotten."""
    made = built(length, every=length // 2)
    made.lines.insert(length - 3, made.lines[0])
    assert "replayed" == made.judged().findings[0].kind
