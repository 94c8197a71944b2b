"""
The table of leases beside a list, step by random step.

This module refuses to know when exactly a failed renewal is tried again.
"""

from dataclasses import replace
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.leases import GRACE, LATE, LEAST_GRACE, Expire, LeaseTable, Renew, Replace, grows, renewal_at
from broker.core.model import Lease
from tests.core.test_leases import lease, process

ANY: Final = st.integers(0, 12)
"""Which lease, counted back from the newest."""


class Model(RuleBasedStateMachine):
    """
    A table beside a list that is searched from end to end for everything.

    The list keeps for each lease its end, and whether it has come up since it was
    made or renewed. It says what must be due and what must not; when exactly a
    failed renewal is tried again is the table's own affair.
    """

    def __init__(self) -> None:
        """Begin at 0 with nothing."""
        super().__init__()
        self.table = LeaseTable()
        self.naive: list[Lease] = []
        self.came_up: dict[str, float] = {}
        self.last_given: dict[str, float] = {}
        self.now = 0.0
        self.made = 0

    @rule(
        holder=st.sampled_from([1, 1, 1, 2, None]),
        secret=st.sampled_from("sst"),
        uid=st.sampled_from([1000, 1001]),
        ttl=st.sampled_from([1.0, 10.0, 1000.0]),
        renewable=st.booleans(),
        barred=st.integers(0, 4).map(bool).map(lambda usual: not usual),
    )
    def add(self, holder: int | None, secret: str, uid: int, ttl: float, *, renewable: bool, barred: bool) -> None:
        """Make a lease; one of a process may come back barred."""
        self.made += 1
        new = lease(
            f"{self.made}",
            None if holder is None else process(holder),
            secret=secret,
            uid=uid,
            issued_at=self.now,
            expires_at=self.now + ttl,
            ttl=ttl,
            renewable=renewable,
            barred=barred and holder is not None,
        )
        self.table.add(new)
        self.naive.append(new)

    @rule(which=ANY)
    def remove(self, which: int) -> None:
        """Remove one that may have ended."""
        accessor = self._name(which)
        expected = self._take_out(lambda each: each.accessor == accessor)
        assert expected == [each for each in [self.table.remove(accessor)] if each is not None]

    @rule(holder=st.integers(1, 2))
    def end(self, holder: int) -> None:
        """End a process."""
        expected = self._take_out(lambda each: each.process == process(holder))
        assert expected == list(self.table.ended(process(holder)))

    @rule(which=ANY)
    def bar(self, which: int) -> None:
        """Revoke one by an admin's word."""
        accessor = self._name(which)
        before = self._find(accessor)
        assert before == self.table.bar(accessor)
        if before is not None and before.process is None:
            self._take_out(lambda each: each.accessor == accessor)
        elif before is not None:
            self._replace(before, barred=True)

    @rule(
        which=ANY,
        ttl=st.sampled_from([0.0, 1.0, 10.0, 1000.0]),
        asked=st.sampled_from([None, None, 10.0, 1000.0]),
        version=st.none() | st.integers(1, 3),
    )
    def renew(self, which: int, ttl: float, asked: float | None, version: int | None) -> None:
        """Report a renewal, perhaps too late, perhaps of less than was asked for."""
        accessor = self._name(which)
        before = self._find(accessor)
        expires_at = self.now + ttl
        after = self.table.renewed(accessor, now=self.now, expires_at=expires_at, version=version, asked=asked)
        if before is None:
            assert None is after
            return
        last = asked is not None and not grows(before, now=self.now, expires_at=expires_at, asked=asked)
        renewable = before.renewable and not last
        expected = self._replace(before, expires_at=expires_at, version=version, renewable=renewable)
        assert expected == after
        if expires_at != before.expires_at or renewable != before.renewable:
            self.came_up.pop(accessor, None)
            self.last_given[accessor] = ttl

    @rule(step=st.sampled_from([0.0, 0.3, 3.0, 31.0, 500.0]))
    def due(self, step: float) -> None:
        """Let time pass and ask what is due."""
        self.now += step
        told = self.table.due(self.now)
        assert len(told) == len({each.lease.accessor for each in told})
        must, may = self._expected()
        for each in told:
            name = each.lease.accessor
            assert self._find(name) == each.lease
            assert name in must | may
            if isinstance(each, Expire):
                assert each.lease.expires_at <= self.now
                self._take_out(lambda other, name=name: other.accessor == name)
                continue
            if isinstance(each, Replace):
                grace = max(each.lease.ttl * GRACE[1], min(LEAST_GRACE, each.lease.ttl / 3))
                assert each.lease.expires_at - grace <= self.now + 1e-6
            else:
                assert each.lease.renewable
            self.came_up.setdefault(name, self.now)
        assert must <= {each.lease.accessor for each in told}

    @rule(by=st.sampled_from([-1000.0, 5.0]))
    def set_clock(self, by: float) -> None:
        """Set the clock; nobody's time gets shorter or longer by that."""
        self.now += by
        self.naive = [replace(each, expires_at=each.expires_at + by) for each in self.naive]
        self.came_up = {name: at + by for name, at in self.came_up.items()}
        assert self.naive == list(self.table.shift(by))

    def _expected(self) -> tuple[set[str], set[str]]:
        """Return what has to come up now, and what may."""
        must: set[str] = set()
        may: set[str] = set()
        for each in self.naive:
            if each.barred:
                continue
            name, over = each.accessor, each.expires_at <= self.now
            first = self.came_up.get(name)
            if each.process is None or not each.renewable or self.last_given.get(name) == 0.0:
                must |= {name} if over else set()
                may |= {name} if each.process is not None else set()
            elif first is None:
                given = self.last_given.get(name, each.ttl)
                at = max(renewal_at(each), each.expires_at - given / 3)
                must |= {name} if at <= self.now - 1e-6 else set()
                may |= {name} if at <= self.now + 1e-6 else set()
            else:
                must |= {name} if over and self.now >= max(each.expires_at, first + LATE) else set()
                may |= {name}
        return must, may

    def _name(self, which: int) -> str:
        """Return a name that a lease has or had, the newest most often."""
        return str(max(1, self.made - which))

    def _find(self, accessor: str) -> Lease | None:
        return next((each for each in self.naive if each.accessor == accessor), None)

    def _take_out(self, wanted: Any) -> list[Lease]:  # noqa: ANN401 -- a condition
        out = [each for each in self.naive if wanted(each)]
        self.naive = [each for each in self.naive if each not in out]
        return out

    def _replace(self, before: Lease, **changes: Any) -> Lease:  # noqa: ANN401
        after = replace(before, **changes)
        self.naive = [after if each is before else each for each in self.naive]
        return after

    @invariant()
    def holds_the_same(self) -> None:
        """Both hold the same leases, in the order in which they came."""
        assert self.naive == list(self.table)

    @invariant()
    def finds_the_same(self) -> None:
        """Both find the newest lease of a process for a secret, and the same bars."""
        for holder in (process(1), process(2)):
            for secret in "st":
                held = [each for each in self.naive if (each.process, each.secret) == (holder, secret)]
                assert (held[-1] if held else None) == self.table.find(holder, secret)
                assert any(each.barred for each in held) == self.table.barred(holder, secret, "none")

    @invariant()
    def counts_the_same(self) -> None:
        """Both count the same leases for each user, and the same processes."""
        counted = [sum(each.uid == uid for each in self.naive) for uid in (1000, 1001)]
        assert counted == [self.table.count(1000), self.table.count(1001)]
        assert len({each.process for each in self.naive} - {None}) == self.table.processes

    def teardown(self) -> None:
        """In the end every lease that is not barred leaves, once, and the renewable ones have come up before."""
        left: list[str] = []
        for step in range(200):
            for each in self.table.due(self.now + 2000.0 + step * LATE):
                if isinstance(each, Renew | Replace):
                    self.came_up.setdefault(each.lease.accessor, self.now)
                else:
                    left.append(each.lease.accessor)
        expected = [each.accessor for each in self.naive if not each.barred]
        unasked = [
            each.accessor
            for each in self.naive
            if not each.barred
            and each.process is not None
            and each.renewable
            and self.last_given.get(each.accessor) != 0.0
            and each.accessor not in self.came_up
        ]
        assert (sorted(expected), []) == (sorted(left), unasked)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
