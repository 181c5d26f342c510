"""The simulator's time, and how Salesforce writes a moment.

What belongs here: reading, stopping and moving the clock. What does not: what happens as time goes by.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from msgspec import to_builtins


class VirtualClock:
    """Real time until a test moves it; every stamp, expiry and `Date` header of a simulator is read off it."""

    def __init__(self) -> None:
        self._standing_at: datetime | None = None
        self._shift = timedelta()

    def now(self) -> datetime:
        """Return the present moment, in UTC."""
        return (self._standing_at or datetime.fromtimestamp(time.time(), UTC)) + self._shift

    def set(self, moment: datetime) -> None:
        """Stand still at `moment` (aware); `shift` and `advance` go on working."""
        if moment.tzinfo is None:
            raise ValueError("the moment has no time zone")
        self._standing_at, self._shift = moment.astimezone(UTC), timedelta()

    def shift(self, by: timedelta) -> None:
        """Move the clock forwards or, with a negative `by`, backwards."""
        self._shift += by

    def advance(self, by: timedelta) -> None:
        """Let time go by."""
        if by < timedelta():
            raise ValueError("time does not go backwards; use shift()")
        self.shift(by)


def wire_time(moment: datetime) -> str:
    """Write an aware moment as REST answers hold it: `2026-01-01T00:00:00.000+0000`.

    Such texts have one length and one zone, so that their order is that of the moments.
    """
    text: str = to_builtins(moment.astimezone(UTC))  # several times as fast as isoformat()
    return f"{text[:19]}.{text[20:23] or '000'}+0000"
