"""Reading the log page by page: nothing twice, nothing left out, whatever is written meanwhile."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from broker.audit_pages import Page
from broker.cli.audit_log import DirectoryLog, PatientLog, Segment, follow, lines, newest
from broker.errors import RequestError, UnavailableError


class GrowingLog:
    """
    A log that is written to between two looks at it.

    Attributes:
        files: name and text of each segment, oldest first.
        pages: how many bytes a page has.
        meanwhile: what happens before each page, in order.

    """

    def __init__(
        self, files: dict[str, bytes], *, pages: int = 7, meanwhile: list[Callable[[], None]] | None = None
    ) -> None:
        """Begin with ``files``."""
        self.files = files
        self.pages = pages
        self.meanwhile: Iterator[Callable[[], None]] = iter(meanwhile or [])

    def segments(self) -> list[Segment]:
        """Return the segments."""
        return [Segment(name=name, length=len(text)) for name, text in self.files.items()]

    def page(self, segment: str, offset: int) -> Page:
        """Return a page, and let something happen first."""
        next(self.meanwhile, lambda: None)()
        if segment not in self.files:
            message = f"there is no segment {segment}"
            raise RequestError(message)
        text = self.files[segment][offset : offset + self.pages]
        return Page(text=text, next=offset + len(text), end=len(text) < self.pages)

    def checkpoints(self) -> int | None:
        """Have none."""
        return None

    def write(self, text: bytes) -> None:
        """Append to the current segment."""
        self.files["audit.jsonl"] = self.files.get("audit.jsonl", b"") + text

    def roll(self, text: bytes = b"") -> None:
        """Give the current segment a number and begin another."""
        current = self.files.pop("audit.jsonl")
        self.files[f"audit-{len(self.files) + 1:06d}.jsonl"] = current
        self.files["audit.jsonl"] = text


def text(first: int, last: int) -> bytes:
    """Return numbered lines."""
    return b"".join(b"line %d\n" % number for number in range(first, last + 1))


def test_lines_are_whole_whatever_the_pages_cut() -> None:
    """Lines that are longer than a page, and a last one without its end, come as they are."""
    log = GrowingLog({"audit-000001.jsonl": b"a" * 50 + b"\nb\n", "audit.jsonl": b"c\n" + b"d" * 20})
    found = [(name, list(each)) for name, each in lines(log)]
    assert [("audit-000001.jsonl", [b"a" * 50 + b"\n", b"b\n"]), ("audit.jsonl", [b"c\n", b"d" * 20])] == found


@pytest.mark.parametrize("count", [1, 3, 20, 1000])
def test_the_newest_lines_reach_back_over_segments(count: int) -> None:
    """As many lines as there are, at most as many as were asked for, the newest last."""
    log = GrowingLog({"audit-000001.jsonl": text(1, 10), "audit-000002.jsonl": b"", "audit.jsonl": text(11, 15)})
    assert text(1, 15).splitlines(keepends=True)[-count:] == newest(log, log.segments(), count)


def test_the_newest_lines_of_a_long_segment_are_read_from_its_end() -> None:
    """Of a segment that is longer than a window no line is cut in two."""
    log = GrowingLog({"audit.jsonl": text(1, 100_000)}, pages=100_000)
    assert text(99_991, 100_000).splitlines(keepends=True) == newest(log, log.segments(), 10)


def test_the_newest_lines_that_are_wanted_are_looked_for_as_far_back_as_it_takes() -> None:
    """What is not wanted does not count, and what was written after the look at the segments is left out."""
    log = GrowingLog({"audit-000001.jsonl": text(1, 100_000), "audit.jsonl": text(100_001, 100_003)}, pages=100_000)
    segments = log.segments()
    log.write(text(100_004, 100_009))
    found = newest(log, segments, 3, wanted=lambda each: each.endswith(b"0001\n"))
    assert [b"line 80001\n", b"line 90001\n", b"line 100001\n"] == found


class AwayLog(GrowingLog):
    """
    A log whose broker goes away before some questions.

    Attributes:
        away: how many more questions find nobody.

    """

    away = 0

    def page(self, segment: str, offset: int) -> Page:
        """Return a page, or fail."""
        if self.away:
            self.away -= 1
            message = "gone"
            raise UnavailableError(message)
        return super().page(segment, offset)


def test_following_outlasts_a_restart_of_the_broker() -> None:
    """A broker that is away is waited for, which is said once, and no line is missing or there twice."""
    log, told = AwayLog({"audit.jsonl": text(1, 3)}), list[str]()
    following = follow(PatientLog(log, lambda: log, tell=told.append), log.segments(), pause=lambda: None)
    log.write(text(4, 5))
    first = next(following)
    log.away = 2
    log.write(text(6, 6))
    assert text(4, 6) == first + b"".join(islice(following, 2))
    assert [True, True] == [word in said for word, said in zip(("waiting", "back"), told, strict=True)]


def test_a_broker_that_stays_away_is_not_waited_for_for_ever() -> None:
    """After the time that it has, its absence is the error."""
    log = AwayLog({"audit.jsonl": text(1, 3)})
    log.away = 1000
    with pytest.raises(UnavailableError):
        PatientLog(log, lambda: log, tell=lambda _: None, patience=0.3).page("audit.jsonl", 0)


@pytest.mark.parametrize("grown", [b"", text(90, 95)])
def test_following_goes_on_over_a_new_segment(grown: bytes) -> None:
    """What is written before, while and after a segment gets its number is seen once and in order."""
    log = GrowingLog({"audit.jsonl": text(1, 3)})
    following = follow(log, log.segments(), pause=lambda: None)
    log.meanwhile = iter([lambda: log.write(text(4, 5)), lambda: log.write(b"line "), lambda: log.write(b"6\n")])
    assert text(4, 6).splitlines(keepends=True) == list(islice(following, 3))

    def roll() -> None:
        log.write(b"ne 8\n")
        log.roll(grown)

    log.meanwhile = iter([lambda: log.write(b"line 7\nli"), lambda: None, roll])
    expected = text(7, 8) + grown
    assert expected.splitlines(keepends=True) == list(islice(following, len(expected.splitlines())))


def test_following_waits_where_there_is_no_current_segment() -> None:
    """A log whose current segment is missing is waited for, not given up."""
    log = GrowingLog({"audit-000001.jsonl": text(1, 3)}, meanwhile=[lambda: None, lambda: log.write(text(4, 4))])
    assert [b"line 4\n"] == list(islice(follow(log, log.segments(), pause=lambda: None), 1))


def test_a_directory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A file in place of the directory, or of a segment that is a directory, is an error with its path."""
    (tmp_path / "file").touch()
    with pytest.raises(RequestError) as caught:
        DirectoryLog(tmp_path / "file")
    assert str(tmp_path / "file") in caught.value.message
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(RequestError) as caught:
        list(next(lines(DirectoryLog(tmp_path)))[1])
    assert str(tmp_path / "audit.jsonl") in caught.value.message
