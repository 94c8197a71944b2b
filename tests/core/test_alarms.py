"""How often a person is told."""

from broker.core.alarms import HOUR, Pacing


def told(pacing: Pacing, *moments: float, kind: str = "sink-behind", name: str = "siem") -> list[tuple[float, int]]:
    """Return at which moments an alarm was told, and how often it had not been before."""
    offered = [pacing.offer(moment, kind, "it does not answer", {"sink": name}) for moment in moments]
    return [(alarm.at, alarm.before) for alarm in offered if alarm is not None]


def test_the_same_is_told_once_in_a_while_and_counted() -> None:
    """What is raised again too soon is not told; the next that is says how often."""
    pacing = Pacing(again=600.0, most=20)
    assert [(0.0, 0), (600.0, 3)] == told(pacing, 0.0, 1.0, 2.0, 599.9, 600.0, 601.0)


def test_what_is_different_is_told() -> None:
    """Another kind or another fact is another alarm."""
    pacing = Pacing(again=600.0, most=20)
    assert 3 == len([*told(pacing, 0.0), *told(pacing, 0.0, name="other"), *told(pacing, 0.0, kind="chain-broken")])


def test_an_hour_has_room_for_so_many() -> None:
    """However different they are, no more are told in an hour; what was held back is told when there is room."""
    pacing = Pacing(again=1.0, most=3)
    storm = [each for number in range(100) for each in told(pacing, float(number), name=str(number))]
    assert (3, [(HOUR + 5, 1)]) == (len(storm), told(pacing, HOUR + 5, name="50"))


def test_a_clock_that_was_set_back_silences_nobody() -> None:
    """An alarm whose last telling lies in the future is told."""
    pacing = Pacing(again=600.0, most=20)
    assert 2 == len(told(pacing, 1000.0, 10.0))
