"""
Every lease there is: whose it is, what is due.

Time is a number here. This module refuses to know what a process is: it is a name
that no other one has.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import strategies as st

from broker.core.leases import LATE, RETRY_CAP, RETRY_FLOOR, LeaseTable, grows, renewal_at, replaceable, replacement_at
from broker.core.model import Lease, Process

LONG: Final = 1e7

ANY: Final = st.integers(0, 12)
"""Which lease, counted back from the newest."""


def process(number: int) -> Process:
    """Return a process."""
    return Process(boot="boot", pid=number, start=1, uid=1000)


def lease(accessor: str = "a", holder: Process | None = process(7), **changes: Any) -> Lease:  # noqa: ANN401, B008
    """Return a lease of 90 s, made at 0, for the secret ``s``."""
    plain = Lease(
        accessor=accessor,
        secret="s",
        server="app",
        backend="local",
        process=holder,
        uid=1000,
        issued_at=0.0,
        expires_at=90.0,
        ttl=90.0,
    )
    return replace(plain, **changes)


DUE: Final = renewal_at(lease())
"""When that lease is to be renewed."""


def table(*leases: Lease) -> LeaseTable:
    """Return a table with these in it."""
    made = LeaseTable()
    for each in leases:
        made.add(each)
    return made


def told(made: LeaseTable, now: float) -> list[tuple[str, str]]:
    """Return what is due, as words."""
    return [(type(due).__name__, due.lease.accessor) for due in made.due(now)]


class TestWhoHoldsWhat:
    """A lease is found by its name, by its process and secret, and by its process."""

    def test_an_empty_table_has_nothing(self) -> None:
        """In an empty table nothing is found, counted or due."""
        empty = LeaseTable()
        found = (len(empty), list(empty), empty.get("a"), empty.find(process(7), "s"), empty.of(process(7)))
        assert (0, [], None, None, ()) == found

    def test_a_lease_is_found_by_process_and_secret(self) -> None:
        """What a process holds for a secret is found, and for another secret or process it is not."""
        made = table(lease())
        found = [made.find(process(7), "s"), made.find(process(7), "t"), made.find(process(8), "s")]
        assert [lease(), None, None] == found

    def test_a_lease_of_no_process_is_found_by_its_name_alone(self) -> None:
        """What hangs on its time alone belongs to nobody who could ask for it again."""
        made = table(lease(holder=None))
        assert (lease(holder=None), None, 0) == (made.get("a"), made.find(None, "s"), made.processes)

    def test_the_newest_is_the_one_that_is_found(self) -> None:
        """Of two leases of one process for one secret the later one is found."""
        made = table(lease("a"), lease("b"))
        found = made.find(process(7), "s")
        assert "b" == (found and found.accessor)

    def test_when_the_newest_goes_the_one_before_is_found_again(self) -> None:
        """A process that gives back its newest lease for a secret still holds the older one."""
        made = table(lease("a"), lease("b"), lease("t", secret="t"), lease("c"))
        made.remove("c")
        found = made.find(process(7), "s")
        assert "b" == (found and found.accessor)

    def test_when_an_older_one_goes_the_newest_stays_found(self) -> None:
        """Removing an older lease changes nothing for the newest."""
        made = table(lease("a"), lease("b"))
        made.remove("a")
        found = made.find(process(7), "s")
        assert "b" == (found and found.accessor)

    def test_a_lease_is_found_for_the_server_it_counts_for(self) -> None:
        """Of leases for two servers each is found by its own, the newest of them first, and by another none."""
        made = table(lease("a"), lease("b"), lease("c", server="other"))
        found = [made.find(process(7), "s", server=server) for server in (None, "app", "other", "none")]
        assert ["c", "b", "c", None] == [each and each.accessor for each in found]

    def test_leases_are_chosen_by_server_and_by_secret(self) -> None:
        """Leases are picked out by their server, by their secret, by both, or all of them are, oldest first."""
        made = table(lease("b"), lease("a", server="other"), lease("c", server="other", secret="t"))
        chosen = [
            made.chosen(),
            made.chosen(server="other"),
            made.chosen(secret="s"),
            made.chosen(server="app", secret="t"),
        ]
        assert [["b", "a", "c"], ["a", "c"], ["b", "a"], []] == [[each.accessor for each in some] for some in chosen]

    def test_leases_are_counted_by_user(self) -> None:
        """Each user's leases are counted, and a user whose last one went has none."""
        made = table(lease("a"), lease("b"), lease("c", uid=1001))
        made.remove("c")
        assert (2, 0) == (made.count(1000), made.count(1001))

    def test_removing_what_is_not_there_does_nothing(self) -> None:
        """A lease can be removed once; after that there is none."""
        made = table(lease())
        assert (lease(), None, 0) == (made.remove("a"), made.remove("a"), made.processes)

    def test_a_process_that_ends_takes_all_its_leases_along(self) -> None:
        """When a process ends its leases leave the table, oldest first, and no other's do."""
        made = table(lease("b"), lease("a", secret="t"), lease("c", process(8)))
        ended = [each.accessor for each in made.ended(process(7))]
        assert (["b", "a"], ["c"]) == (ended, [each.accessor for each in made])

    def test_a_process_without_leases_ends_without_a_trace(self) -> None:
        """The end of a process that holds nothing leaves nothing to do."""
        assert () == table(lease()).ended(process(8))


class TestBarred:
    """What an admin has revoked stays revoked for as long as the process lives."""

    def test_a_barred_lease_stays_in_the_table(self) -> None:
        """Barring returns the lease as it was, and it is found as barred."""
        made = table(lease())
        before = made.bar("a")
        assert (lease(), lease(barred=True)) == (before, made.find(process(7), "s"))

    def test_its_process_is_barred_from_the_secret(self) -> None:
        """A process with a barred lease is barred from that secret, not from another, and no other process is."""
        made = table(lease(), lease("t", secret="t"))
        made.bar("a")
        asked = [(process(7), "s"), (process(7), "t"), (process(8), "s")]
        found = [made.barred(holder, secret, "app") for holder, secret in asked]
        assert [True, False, False] == found

    def test_a_newer_lease_does_not_hide_the_bar(self) -> None:
        """A process stays barred from a secret where an older lease of it was barred and a newer one was not."""
        made = table(lease("a"), lease("b"))
        made.bar("a")
        assert made.barred(process(7), "s", "app")

    def test_the_bar_ends_with_the_process(self) -> None:
        """When the process has ended nobody is barred any more, however many of its leases were."""
        made = table(lease("a"), lease("b"))
        made.bar("a")
        made.bar("b")
        made.ended(process(7))
        assert not made.barred(process(7), "s", "app")

    def test_a_lease_that_comes_back_barred_bars(self) -> None:
        """A lease that was barred before a restart bars its process after it, and is not due."""
        made = table(lease(barred=True))
        assert (True, []) == (made.barred(process(7), "s", "app"), told(made, LONG))

    def test_barring_twice_counts_once(self) -> None:
        """Who bars a lease again is told that it was barred, and one removal lifts the bar."""
        made = table(lease())
        made.bar("a")
        again = made.bar("a")
        made.remove("a")
        assert (lease(barred=True), False) == (again, made.barred(process(7), "s", "app"))

    def test_a_kill_switch_bars_from_all_of_a_server(self) -> None:
        """A process with a lease that was barred along with its server is barred from all of that, and of no other."""
        made = table(lease())
        made.bar("a", killed=True)
        found = [made.barred(process(7), "t", "app"), made.barred(process(7), "t", "other")]
        made.ended(process(7))
        assert ([True, False], False) == (found, made.barred(process(7), "t", "app"))

    def test_a_lease_of_no_process_is_removed_instead(self) -> None:
        """Where there is no process to be kept from asking again, nothing has to stay."""
        made = table(lease(holder=None))
        made.bar("a")
        assert 0 == len(made)

    def test_barring_what_is_not_there_does_nothing(self) -> None:
        """A lease that has ended cannot be barred."""
        assert None is LeaseTable().bar("a")

    def test_what_is_barred_is_never_due(self) -> None:
        """A barred lease is neither renewed nor does it expire: its process's end is its end."""
        made = table(lease())
        made.bar("a")
        assert [] == told(made, LONG)

    def test_more_time_for_a_barred_lease_makes_it_due_no_more(self) -> None:
        """A renewal that was under way when the lease was barred does not put it back in line."""
        made = table(lease())
        made.bar("a")
        made.renewed("a", now=60.0, expires_at=150.0, version=None)
        assert [] == told(made, LONG)


class TestGrowth:
    """Whether a renewal shows that there will be another."""

    @pytest.mark.parametrize(
        ("now", "got", "asked", "expected"),
        [
            (60.0, 90.0, 90.0, True),
            (60.0, 85.0, 90.0, True),
            (60.0, 60.0, 90.0, True),
            (60.0, 45.0, 90.0, False),
            (60.0, 30.0, 90.0, False),
            (60.0, 9.0, 90.0, False),
            (60.0, 0.0, 90.0, False),
            (1.0, 90.0, 90.0, True),
            (1.0, 5.0, 5.0, True),
        ],
        ids=[
            "all that was asked for",
            "all but a little",
            "less, and yet it moves on",
            "hardly more than it had",
            "just what it had",
            "less than it had",
            "nothing",
            "just renewed",
            "a shorter time was asked for",
        ],
    )
    def test_it_grows_by_what_it_was_given(self, now: float, got: float, asked: float, expected: bool) -> None:  # noqa: FBT001
        """A lease of 90 s grows no more where a renewal gave much less than was asked for and hardly moved its end."""
        assert expected == grows(lease(), now=now, expires_at=now + got, asked=asked)

    def test_what_is_over_at_its_source_by_itself_grows_up_to_that(self) -> None:
        """A lease whose credential has an end of its own grows until it reaches that."""
        made = lease(gone_by=120.0)
        assert [True, False] == [grows(made, now=60.0, expires_at=end, asked=90.0) for end in (119.0, 120.0)]

    @pytest.mark.parametrize(
        ("changes", "now", "expected"),
        [
            ({"renewable": False}, 71.0, False),
            ({"renewable": False}, 82.0, True),
            ({}, 89.0, False),
            ({"renewable": False, "process": None}, 89.0, False),
        ],
        ids=["early", "near its end", "renewable", "of no process"],
    )
    def test_who_asks_again_near_the_end_is_better_served_with_another(
        self,
        changes: dict[str, Any],
        now: float,
        expected: bool,  # noqa: FBT001
    ) -> None:
        """A lease of a process that cannot be renewed gives way when little of its time is left."""
        assert expected == replaceable(lease(**changes), now)

    def test_one_that_grows_no_more_is_replaced_and_not_renewed(self) -> None:
        """After a renewal that brought too little a lease cannot be renewed, and comes up to be replaced, then ends."""
        made = table(lease())
        told(made, 60.0)
        after = made.renewed("a", now=60.0, expires_at=90.0, version=None, asked=90.0)
        words = [word for second in range(60, 91) for word, _ in told(made, float(second))]
        assert (False, {"Replace"}, "Expire") == (after and after.renewable, set(words[:-1]), words[-1])


class TestSharing:
    """Leases that are about one thing at a backend."""

    def test_they_are_found_together(self) -> None:
        """Leases that name one backend lease are found by it, oldest first, and no others."""
        made = table(
            lease("b", backend_lease="x"),
            lease("a", process(8), backend_lease="x"),
            lease("c", backend_lease="y"),
            lease("d", backend="other", backend_lease="x"),
        )
        found = [made.sharing("local", name) for name in ("x", "y", "z")]
        assert [["b", "a"], ["c"], []] == [[each.accessor for each in some] for some in found]

    def test_who_has_ended_or_is_barred_shares_no_more(self) -> None:
        """A lease that was removed or barred, or comes back barred, is about nothing at a backend any more."""
        made = table(*(lease(name, backend_lease="x") for name in "abc"), lease("d", backend_lease="x", barred=True))
        made.remove("a")
        made.bar("b")
        assert ["c"] == [each.accessor for each in made.sharing("local", "x")]


class TestDue:
    """What comes up when."""

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"process": None}, 90.0),
            ({"process": None, "renewable": False}, 90.0),
        ],
        ids=["renewable", "not renewable"],
    )
    def test_a_lease_of_no_process_wants_attention_at_its_end(self, changes: dict[str, Any], expected: float) -> None:
        """What hangs on its time alone comes up when that is over, whether it could be renewed or not."""
        assert expected == pytest.approx(renewal_at(lease(**changes)))

    def test_a_lease_wants_attention_at_two_thirds_and_a_bit(self) -> None:
        """A thousand leases of 90 s are renewed between 63 s and 66 s, each at a time of its own."""
        times = {renewal_at(lease(f"{number}")) for number in range(1000)}
        assert (True, True, 1000) == (min(times) >= 63.0, max(times) <= 66.0, len(times))

    def test_a_very_short_lease_is_renewed_no_later_than_at_two_thirds(self) -> None:
        """What lasts for three seconds is renewed after two: what is due is looked for once a second."""
        assert 2.0 == pytest.approx(renewal_at(lease(ttl=3.0, expires_at=3.0)))

    def test_before_its_time_nothing_is_due(self) -> None:
        """A young lease needs nothing."""
        assert [] == told(table(lease()), DUE - 0.1)

    def test_at_its_time_it_is_to_be_renewed(self) -> None:
        """A lease is to be renewed when most of its life is over, once, and stays in the table."""
        made = table(lease())
        assert ([("Renew", "a")], [], 1) == (told(made, DUE), told(made, DUE), len(made))

    def test_a_renewed_lease_comes_up_after_two_thirds_of_what_it_was_given(self) -> None:
        """A renewal puts the next one off to two thirds of the new time."""
        made = table(lease())
        told(made, DUE)
        made.renewed("a", now=DUE, expires_at=DUE + 90.0, version=None)
        assert ([], [("Renew", "a")]) == (told(made, 2 * DUE - 0.1), told(made, 2 * DUE))

    def test_a_backend_that_gives_little_is_not_asked_every_second(self) -> None:
        """Where a renewal brought 9 s instead of 90, the next one is due after 6 of them."""
        made = table(lease())
        told(made, 60.0)
        made.renewed("a", now=60.0, expires_at=69.0, version=None)
        assert ([], [("Renew", "a")]) == (told(made, 65.9), told(made, 66.0))

    def test_a_renewal_that_gave_nothing_leads_to_the_end(self) -> None:
        """A lease that the backend gave no more time expires, instead of being renewed for ever."""
        made = table(lease())
        told(made, 60.0)
        made.renewed("a", now=60.0, expires_at=60.0, version=None)
        assert [("Expire", "a")] == told(made, 60.0)

    def test_a_new_version_alone_changes_no_time(self) -> None:
        """A lease with a new version and the same end comes up when it would have."""
        made = table(lease())
        after = made.renewed("a", now=10.0, expires_at=90.0, version=2)
        assert (lease(version=2), [("Renew", "a")]) == (after, told(made, DUE))

    def test_a_lease_that_has_ended_cannot_be_renewed(self) -> None:
        """Whoever renews a lease that has ended meanwhile is told that there is none."""
        assert None is LeaseTable().renewed("a", now=0.0, expires_at=1.0, version=None)

    def test_a_renewal_that_brought_nothing_is_tried_again(self) -> None:
        """While nobody reports a renewal a lease comes up again, near its end to be replaced, until it expires."""
        made = table(lease())
        times: list[tuple[float, str]] = []
        for now in range(60, 91):
            times += [(now, word) for word, _ in told(made, float(now))]
        words = [word for now, word in times if now < 90 - 9]
        late = [word for now, word in times if now > 90 - 9]
        assert ({"Renew"}, ["Replace"] * (len(late) - 1) + ["Expire"], 90.0) == (
            set(words) - {"Replace"},
            late,
            times[-1][0],
        )

    def test_between_two_attempts_there_is_a_while(self) -> None:
        """Attempts are at least the floor and at most the cap apart."""
        made = table(lease(ttl=9000.0, expires_at=9000.0))
        times = [now for now in (6000 + tick / 4 for tick in range(12_001)) if told(made, now)]
        gaps = [later - sooner for sooner, later in pairwise(times)]
        assert (True, True) == (max(gaps) <= RETRY_CAP + 0.25, min(gaps[:-1]) >= RETRY_FLOOR - 0.25)

    def test_leases_of_one_backend_do_not_come_back_together(self) -> None:
        """Of a hundred leases that failed in one second, no more than a few are tried again in one second."""
        made = table(*(lease(f"{number}", process(number), ttl=3600.0, expires_at=3600.0) for number in range(100)))
        told(made, 2400.0)
        assert max(len(told(made, 2400.0 + second)) for second in range(1, 400)) < 10

    def test_what_hangs_on_its_time_expires(self) -> None:
        """A lease of no process leaves the table at its end, once."""
        made = table(lease(holder=None))
        assert ([("Expire", "a")], [], 0) == (told(made, 90.0), told(made, LONG), len(made))

    def test_a_lease_that_cannot_be_renewed_expires(self) -> None:
        """Where the backend cannot prolong it, a lease is not to be renewed but ends."""
        assert [("Expire", "a")] == told(table(lease(renewable=False)), 90.0)

    def test_a_lease_that_cannot_be_renewed_is_replaced_before(self) -> None:
        """What cannot be renewed comes up to be replaced when 10 to 20 % of its time are left, and later again."""
        made = table(lease(renewable=False))
        times = [now for now in range(90) if told(made, float(now)) == [("Replace", "a")]]
        assert (True, True) == (72 <= times[0] <= 81, len(times) > 2)

    def test_a_very_short_one_is_replaced_in_time(self) -> None:
        """What lasts for twelve seconds is replaced three before its end, what lasts for three when one is left."""
        short = [lease(ttl=ttl, expires_at=ttl, renewable=False) for ttl in (12.0, 3.0)]
        assert [9.0, 2.0] == pytest.approx([replacement_at(each) for each in short])

    def test_leases_made_together_are_not_replaced_together(self) -> None:
        """Of a hundred leases that end in one second, at an hour's end, no ten are replaced in one second."""
        changes: dict[str, Any] = {"ttl": 3600.0, "expires_at": 3600.0, "renewable": False}
        made = table(*(lease(f"{number}", process(number), **changes) for number in range(100)))
        assert max(len(told(made, 2880.0 + second)) for second in range(360)) < 10

    def test_what_hangs_on_its_time_is_not_replaced(self) -> None:
        """A lease of no process comes up once, at its end, whether it could be renewed or not."""
        assert [("Expire", "a")] == told(table(lease(holder=None, renewable=False)), 90.0)

    def test_a_machine_that_slept_ends_no_lease_unasked(self) -> None:
        """A lease whose time was over before anybody looked is to be renewed first, and ends a while later if not."""
        made = table(lease())
        late = 10_000.0
        assert ([("Renew", "a")], [], [("Expire", "a")]) == (
            told(made, late),
            told(made, late + LATE - 0.1),
            told(made, late + LATE),
        )

    def test_a_clock_that_was_set_back_prolongs_nothing(self) -> None:
        """When the clock was set, ends and renewals move with it, so that each length of time stays what it was."""
        made = table(lease("a"), lease("b", None, gone_by=95.0))
        moved = made.shift(-1000.0)
        due = [told(made, DUE - 1000.0 - before) for before in (0.1, 0.0)]
        ends = [(each.expires_at, each.gone_by) for each in moved]
        assert ([(-910.0, None), (-910.0, -905.0)], [[], [("Renew", "a")]]) == (ends, due)

    def test_what_has_left_is_due_no_more(self) -> None:
        """A lease that was removed before its time does not come up."""
        made = table(lease())
        made.remove("a")
        assert [] == told(made, LONG)

    def test_several_are_due_in_the_order_of_their_times(self) -> None:
        """What was due first comes first."""
        made = table(lease("late", None), lease("soon", process(8), expires_at=60.0, ttl=60.0))
        assert [("Renew", "soon"), ("Expire", "late")] == told(made, 90.0)
