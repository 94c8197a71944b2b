"""The staged state machine of one rotation, case by case."""

from dataclasses import replace

import pytest

from broker.core.rotation import (
    AT_SOURCE,
    RETRY_CAP,
    RETRY_FLOOR,
    SETTLING,
    STAGED,
    Do,
    Over,
    Rotation,
    Stage,
    Step,
    Wait,
    abandoned,
    begun,
    done,
    failed,
    move,
    promoted,
    resumed,
    state,
)

NOW = 1000.0
GRACE = 600.0


def rotation(stage: Stage = "create", *, steps: tuple[Step, ...] = STAGED, shared: bool = False) -> Rotation:
    """Return a rotation at a stage; in its grace it was promoted at NOW."""
    made = replace(begun("token", now=NOW, steps=steps, grace=GRACE, shared=shared), stage=stage)
    return promoted(made, now=NOW, after=2) if stage == "grace" else made


def advanced(found: Rotation | Over) -> Rotation:
    """Return a rotation that goes on."""
    assert isinstance(found, Rotation)
    return found


def test_the_steps_follow_each_other() -> None:
    """Done after done leads from the creation into the grace."""
    found = rotation()
    stages = [found.stage]
    for step in ("create", "set", "test", "promote"):
        found = advanced(done(found, step, now=NOW, before=1, after=2))
        stages.append(found.stage)
    assert (["create", "set", "test", "promote", "grace"], 1, 2, NOW) == (
        stages,
        found.before,
        found.after,
        found.promoted_at,
    )


@pytest.mark.parametrize(("step", "promoted"), [("retire", True), ("abandon", False)])
def test_the_last_step_ends_it(step: Step, *, promoted: bool) -> None:
    """Retired or abandoned, it is over."""
    assert Over(promoted) == done(rotation(step), step, now=NOW)


def test_where_the_source_makes_the_value_one_step_is_all() -> None:
    """What the source replaces by itself has nothing to promote."""
    found = rotation("set", steps=AT_SOURCE)
    assert (("set",), Over(promoted=True)) == (found.steps, done(found, "set", now=NOW))


def test_a_word_that_comes_too_late_changes_nothing() -> None:
    """A report of a step that is not the one it is at is ignored."""
    found = rotation("test")
    assert found == done(found, "set", now=NOW)


@pytest.mark.parametrize("stage", ["create", "set", "test", "promote", "retire", "abandon"])
def test_what_is_at_a_step_does_it(stage: Step) -> None:
    """A rotation that waits for nothing does the step that it is at."""
    found = rotation(stage)
    assert (found, Do(stage)) == move(found, NOW, holders=3)


@pytest.mark.parametrize(
    ("stage", "after"),
    [("create", "create"), ("set", "set"), ("test", "set"), ("promote", "promote"), ("retire", "retire")],
)
def test_a_step_that_failed_is_tried_again_after_a_pause(stage: Stage, after: Step) -> None:
    """It keeps its error, waits and does the same again; what failed its test is made good at the source first."""
    found = failed(rotation(stage), now=NOW, error="no", hint="do")
    same, wanted = move(found, NOW, holders=0)
    assert (after, 1, "no", "do", found, Wait(found.retry_at)) == (
        found.stage,
        found.attempts,
        found.error,
        found.hint,
        same,
        wanted,
    )
    assert Do(after) == move(found, found.retry_at, holders=0)[1]


def test_pauses_grow_between_a_floor_and_a_cap() -> None:
    """However often it fails, the next attempt is neither at once nor never."""
    found, pauses = rotation("set"), []
    for _ in range(40):
        found = failed(found, now=NOW, error="no")
        pauses.append(found.retry_at - NOW)
    assert min(pauses) >= RETRY_FLOOR
    assert max(pauses) <= RETRY_CAP
    assert all(later >= RETRY_CAP / 2 for later in pauses[12:])


def test_two_rotations_do_not_try_again_in_step() -> None:
    """The pause is the rotation's own."""
    one = failed(rotation(), now=NOW, error="no")
    other = failed(replace(rotation(), token="other"), now=NOW, error="no")
    assert one.retry_at != other.retry_at


def test_a_clock_that_was_set_back_makes_no_pause_longer_than_the_cap() -> None:
    """A pause that began in what is the future now is cut down."""
    found = failed(rotation("set"), now=NOW + 10**8, error="no")
    cut, wanted = move(found, NOW, holders=0)
    assert (NOW + RETRY_CAP, Wait(NOW + RETRY_CAP)) == (cut.retry_at, wanted)


def test_what_worked_in_the_end_has_no_error_any_more() -> None:
    """After a success the attempts and the error are gone."""
    found = advanced(done(failed(rotation("set"), now=NOW, error="no", hint="do"), "set", now=NOW))
    assert (0, 0.0, None, None) == (found.attempts, found.retry_at, found.error, found.hint)


def test_held_versions_stay_until_the_grace_is_over() -> None:
    """Somebody holds the previous version: it is retired when the grace is over, and not before."""
    found = rotation("grace")
    assert (found, Wait(NOW + GRACE)) == move(found, NOW + GRACE - 1, holders=1)
    assert (replace(found, stage="retire"), Do("retire")) == move(found, NOW + GRACE, holders=1)


def test_what_nobody_holds_is_retired_early_but_not_at_once() -> None:
    """Nobody holds it: it goes when no request that had read it can still be under way."""
    found = rotation("grace")
    assert (found, Wait(NOW + SETTLING)) == move(found, NOW + SETTLING - 1, holders=0)
    assert Do("retire") == move(found, NOW + SETTLING, holders=0)[1]


def test_what_others_may_hold_stays_for_the_whole_grace() -> None:
    """Where other brokers hold the same credential, that nobody here does says nothing."""
    found = rotation("grace", shared=True)
    assert (found, Wait(NOW + GRACE)) == move(found, NOW + SETTLING, holders=0)


def test_a_grace_shorter_than_the_settling_counts() -> None:
    """A grace of nothing ends at once."""
    found = replace(rotation("grace"), grace=0.0)
    assert Do("retire") == move(found, NOW, holders=5)[1]


def test_a_clock_that_was_set_back_prolongs_no_grace_beyond_its_length() -> None:
    """What was promoted in the future was promoted now."""
    found = replace(rotation("grace"), promoted_at=NOW + 10**8)
    moved, wanted = move(found, NOW, holders=1)
    assert (NOW, Wait(NOW + GRACE)) == (moved.promoted_at, wanted)


def test_resuming_ends_a_pause_and_a_grace() -> None:
    """An admin's word ends whatever it waits for."""
    assert Do("set") == move(resumed(failed(rotation("set"), now=NOW, error="no")), NOW, holders=1)[1]
    assert Do("retire") == move(resumed(rotation("grace")), NOW, holders=1)[1]


@pytest.mark.parametrize("stage", ["create", "set", "test", "promote", "abandon"])
def test_what_is_not_promoted_can_be_abandoned(stage: Stage) -> None:
    """Before the promotion there is a way back."""
    found = abandoned(failed(rotation(stage), now=NOW, error="no"))
    assert (rotation("abandon"), "running") == (found, state(advanced(found or Over(promoted=False))))


def test_what_is_promoted_cannot() -> None:
    """After it, and where the source does it all, there is none."""
    retiring = replace(rotation("grace"), stage="retire")
    assert [None] * 3 == [abandoned(each) for each in (rotation("grace"), retiring, rotation("set", steps=AT_SOURCE))]


def test_its_state_is_one_word() -> None:
    """It runs, has failed, or is in its grace."""
    found = [rotation("set"), failed(rotation("set"), now=NOW, error="no"), rotation("grace")]
    assert ["running", "failed", "grace"] == [state(each) for each in found]
