"""
How often a server is asked again that does not answer, and a login tried again that was refused. Pure.

Whoever waits tells when it is and gets when it may. Two rules that many clients
lack: every wait has a floor, and a login that was refused is not tried again
with the same proof before the server has forgotten the failures, because after
five of them it locks the account, for everybody.
"""

from dataclasses import dataclass
from typing import Final

SERVER_FLOOR: Final = 0.5
"""Seconds before a server that failed is asked again."""

SERVER_CAP: Final = 30.0
"""Seconds between two questions to a server that does not answer at most."""

LOGIN_FLOOR: Final = 1.0
"""Seconds between two logins at least."""

LOGIN_CAP: Final = 300.0
"""Seconds between two logins to a server that does not answer at most."""

FORGOTTEN: Final = 1200.0
"""Seconds after which a refused login is tried again with the same proof: servers count failures for 900."""

MOST_REFUSED: Final = 3
"""Refused logins within ``FORGOTTEN`` seconds at most, whatever their proof: the fifth locks an account."""


@dataclass(slots=True)
class Pacing:
    """When a server may be asked again. ``jitter`` is between 0 and 1, drawn by the caller."""

    floor: float = SERVER_FLOOR
    cap: float = SERVER_CAP
    failures: int = 0
    until: float = 0.0
    """No earlier than this, on the monotonic clock."""

    def failed(self, now: float, *, jitter: float, wait: float | None = None) -> None:
        """Know that it failed: wait longer each time, and at least as long as the server has asked for."""
        self.failures += 1
        span = min(self.cap, self.floor * 2.0 ** min(self.failures, 32))
        self.until = now + max(self.floor, span * (0.5 + jitter / 2), (wait or 0.0) * (1 + jitter / 4))

    def succeeded(self) -> None:
        """Know that it answers."""
        self.failures, self.until = 0, 0.0

    def may(self, now: float) -> bool:
        """Return whether it may be asked now."""
        return now >= self.until

    def trying(self, now: float, seconds: float) -> None:
        """Know that somebody asks now: the others wait for what comes of it, for so long at most."""
        if self.failures:
            self.until = max(self.until, now + seconds)


@dataclass(slots=True)
class Refusals:
    """When a login may be tried again that the server has refused."""

    proof: bytes | None = None
    """A digest of what was shown last and refused."""
    times: tuple[float, ...] = ()
    """When logins were refused, of late, in Unix seconds: it has to hold over a restart, too."""

    def refused(self, now: float, proof: bytes) -> None:
        """Know that ``proof``, a digest, was refused."""
        self.proof = proof
        self.times = (*(at for at in self.times if at > now - FORGOTTEN), now)

    def accepted(self) -> None:
        """Know that a login succeeded: the server counts from the beginning."""
        self.proof, self.times = None, ()

    def may(self, now: float, proof: bytes) -> float:
        """Return the seconds until ``proof`` may be shown; 0 for now."""
        # One in the future is of a clock that was set back: it counts as just now.
        recent = [min(at, now) for at in self.times if at > now - FORGOTTEN]
        if recent and proof == self.proof:
            return recent[-1] + FORGOTTEN - now
        if len(recent) >= MOST_REFUSED:
            return recent[-MOST_REFUSED] + FORGOTTEN - now
        return 0.0


def renew_after(ttl: float, *, jitter: float) -> float:
    """
    Return the seconds after which a token with ``ttl`` seconds to live is renewed.

    Two thirds of it plus a third of the grace, which is 10 to 20 % of it by
    chance, as Vault's own agents do; never less than a second.
    """
    grace = ttl * (0.1 + 0.1 * jitter)
    return max(1.0, ttl * 2 / 3 - grace / 3)


def look_after(left: float, ttl: float, *, renewable: bool, jitter: float) -> float:
    """Return the seconds after which a token with ``left`` seconds is renewed, or else replaced before its end."""
    return renew_after(left, jitter=jitter) if renewable else max(1.0, left - ttl * (0.1 + 0.1 * jitter))


def worn_out(ttl: float, granted: float, *, jitter: float) -> bool:
    """Return whether a token of once ``ttl`` seconds was given so few that it has to be replaced."""
    return granted <= ttl * (0.1 + 0.1 * jitter)
