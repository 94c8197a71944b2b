"""
The tour from its beginning to its end.

It refuses to call anything good that it has not seen, and to leave anything
behind, whoever ends it and how.
"""

import importlib.metadata
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

from broker.demo import bare
from broker.demo.play import Play, StepFailedError
from broker.demo.screen import Screen
from broker.demo.service import Notes
from broker.demo.session import Opener, SessionError
from broker.demo.stage import stage
from broker.demo.steps import steps
from broker.errors import BrokerError

WELCOME: Final = "mcp-broker: a tour in a throwaway directory. What follows a $ can be typed."
NEXT: Final = "Your own broker: mcp-broker init"

SDK: Final = "mcp"
OLDEST_SDK: Final = 2


def run() -> int:
    """Go through the tour; return the exit status: 0 only where every step did what it says."""
    began = time.monotonic()
    screen = Screen()
    opener, speaker = client()
    screen.title(WELCOME)
    width = screen.width if screen.terminal else None
    with ended_by_a_signal(), stage(width=width) as played, Notes(played.directory / "notes.sock") as notes:
        play = Play(stage=played, screen=screen, notes=notes, opener=opener, speaker=speaker)
        with play.held:
            failed = go_through(play)
    if failed:
        screen.bad(failed)
        return 1
    screen.end(f"The broker has ended and its directory is removed, after {time.monotonic() - began:.0f} s. {NEXT}")
    return 0


def go_through(play: Play) -> str:
    """Take every step; return what went wrong, or nothing."""
    for number, (title, step) in enumerate(steps(), 1):
        play.screen.step(number, title)
        try:
            play.screen.good(step(play))
        except (StepFailedError, SessionError, BrokerError, OSError) as error:
            return f"step {number} failed ({title}): {error}"
    return ""


def client() -> tuple[Opener, str]:
    """Return who speaks the protocol: the official SDK where it is installed, else we do."""
    try:
        version = importlib.metadata.version(SDK)
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.partition(".")[0]) < OLDEST_SDK:
        return bare.session, "over the bare protocol: the official SDK is not installed"
    from broker.demo import official  # noqa: PLC0415 - only where the SDK is there

    return official.session, f"with the official SDK, mcp {version}"


@contextmanager
def ended_by_a_signal() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the tour as Ctrl-C does: with everything cleared away."""
    before = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """End what is going on."""
    del number, frame
    raise KeyboardInterrupt
