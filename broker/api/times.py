"""
Times as they stand on the wire: UTC, to the second's thousandth.
"""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=1024)
def utc(at: float) -> datetime:
    """Return Unix seconds as a time with its zone; encoders write it in RFC 3339."""
    return datetime.fromtimestamp(round(at, 3), UTC)
