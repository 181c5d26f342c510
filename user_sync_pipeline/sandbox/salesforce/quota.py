"""The daily quota of requests: a rolling count over 24 hours, and the header that tells of it."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from enum import Enum

from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock

DEFAULT_DAILY_LIMIT = 100_000
_SPAN = timedelta(hours=24)


class LimitHeader(Enum):
    """The forms in which `Sforce-Limit-Info` has been seen."""

    PLAIN = "api-usage={used}/{limit}"
    PER_APPLICATION = "api-usage={used}/{limit}; per-app-api-usage={used}/{limit}(appName=user-sync-pipeline)"
    BURSTS = "api-usage={used}/{limit}; api-bursts=1/750"


class DailyQuota:
    """Counts requests against `limit`.

    `header` is the form of `Sforce-Limit-Info`, None for no such header; `header_on_errors` whether failures carry it.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.limit = DEFAULT_DAILY_LIMIT
        self.header: LimitHeader | None = LimitHeader.PLAIN
        self.header_on_errors = True
        self._clock = clock
        self._calls: deque[datetime] = deque()

    @property
    def used(self) -> int:
        """Requests of the last 24 hours."""
        horizon = self._clock.now() - _SPAN
        while self._calls and self._calls[0] <= horizon:
            self._calls.popleft()
        return len(self._calls)

    @property
    def remaining(self) -> int:
        """Requests that are left."""
        return max(0, self.limit - self.used)

    def count(self) -> bool:
        """Count one request; returns False, and counts nothing, when none is left."""
        if self.used >= self.limit:
            return False
        self._calls.append(self._clock.now())
        return True

    def header_value(self) -> str | None:
        """Return `Sforce-Limit-Info` as it stands now."""
        return self.header.value.format(used=self.used, limit=self.limit) if self.header else None
