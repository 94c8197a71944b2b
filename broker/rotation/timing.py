"""
What the config says of when, ready to be asked.

APScheduler's triggers know cron lines; they are asked for times by the wall
alone, without a zone, because in a zone they leave out or repeat what happens in
the hours in which the clocks change. This module refuses to run anything: the
broker's own scheduler does, by the broker's own clock.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from broker.config.replacing import RotateConfig
from broker.core.schedule import Fires, Timing, Window


def timing(rotate: RotateConfig) -> Timing:
    """Return the rules of one credential."""
    return Timing(
        every=rotate.every,
        fires=None if rotate.cron is None else _fires(rotate.cron),
        zone=UTC if rotate.timezone == "UTC" else ZoneInfo(rotate.timezone),
        jitter=rotate.jitter,
        window=None if rotate.window is None else Window(start=rotate.window[0], end=rotate.window[1]),
        max_age=rotate.max_age,
    )


def rule(rotate: RotateConfig) -> str:
    """Return the words by which a time is planned: where they are others, it is planned anew."""
    return f"{rotate.every} {rotate.cron} {rotate.timezone} {rotate.jitter}"


def _fires(line: str) -> Fires:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - few configs have such a line

    trigger = CronTrigger.from_crontab(line, timezone=UTC)

    def fires(wall: datetime) -> datetime | None:
        # The smallest step, so that the answer is a later one.
        after = wall.replace(tzinfo=UTC) + timedelta(microseconds=1)
        found: datetime | None = trigger.get_next_fire_time(None, after)
        return None if found is None else found.replace(tzinfo=None)

    return fires
