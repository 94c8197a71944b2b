"""Lengths of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.duration import MAXIMUM, seconds, text

NO_LENGTH = "not a length of time: write 90s, 10m, 1h30m, 30d, or a number of seconds"
OUT_OF_RANGE = "a length of time must be between 0 and ten years"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("30d", 2592000),
        ("1w", 604800),
        ("1w2d3h4m5.5s", 788645.5),
        ("0.25s", 0.25),
        ("0s", 0),
        (90, 90),
        (1.5, 1.5),
        (0, 0),
        ("3650d", MAXIMUM),
    ],
)
def test_reads_what_people_write(written: object, expected: float) -> None:
    """Units, their combinations and bare numbers are seconds."""
    assert expected == seconds(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "90",
        "1.5h",
        "1m1h",
        "1h1h",
        "1 h",
        " 1h",
        "1h\n",
        "-1s",
        "+1s",
        "1H",
        "s",
        "1e3s",
        "٣s",
        "9999999999s",
        "1h30",
        True,
        False,
        None,
        [],
        {},
        b"1s",
    ],
)
def test_refuses_what_is_no_length(written: object) -> None:
    """What is no length of time, or could be two, is refused without being quoted."""
    with pytest.raises(ValueError, match="not a length") as caught:
        seconds(written)
    assert NO_LENGTH == str(caught.value)


@pytest.mark.parametrize(
    "written", [-1, -0.5, float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), "3651d", MAXIMUM + 1]
)
def test_refuses_what_is_out_of_range(written: object) -> None:
    """Negative lengths and those beyond ten years are refused, however large the number."""
    with pytest.raises(ValueError, match="must be between") as caught:
        seconds(written)
    assert OUT_OF_RANGE == str(caught.value)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, "0s"), (90, "1m30s"), (5400, "1h30m"), (2592000, "30d"), (0.5, "0.5s"), (60.25, "1m0.25s"), (1e-9, "0s")],
)
def test_writes_the_shortest_form(length: float, expected: str) -> None:
    """A length is written in the largest units that fit, and without those that are zero."""
    assert expected == text(length)


@given(st.integers(min_value=0, max_value=int(MAXIMUM) * 1000))
def test_reads_back_what_it_wrote(milliseconds: int) -> None:
    """Every length comes back from its text, to the millisecond."""
    length = milliseconds / 1000
    assert length == seconds(text(length))


@given(st.one_of(st.text(), st.floats(), st.integers(), st.from_regex(r"([0-9]{1,12}[wdhms]){1,5}", fullmatch=True)))
def test_never_raises_anything_else(written: object) -> None:
    """Whatever is written, the answer is a length within bounds or a ``ValueError``."""
    try:
        length = seconds(written)
    except ValueError:
        return
    assert 0 <= length <= MAXIMUM
