"""What a run of the pipeline gives back: progress, forecast and results, as plain figures.

What belongs here: the shapes, and what follows from their figures. What does not: how they come about
(`user_sync.py`, `extraction.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from user_sync_pipeline.core.certificate import Certificate
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import Mode, SyncWindow, format_moment

if TYPE_CHECKING:
    from user_sync_pipeline.core.rejects import RejectedValue
    from user_sync_pipeline.core.salesforce.usage import ApiUsage


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running extraction stands; `total` is Salesforce's own count for the window."""

    rows: int
    total: int
    pages: int
    seconds: float
    usage: ApiUsage


ProgressListener = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would fetch and cost, asked before anything is fetched.

    `transport` is "rest" or "bulk"; of the calls by Bulk, those that look how far its job is are an estimate.
    """

    rows: int
    api_calls: int
    usage: ApiUsage
    transport: str = "rest"

    @property
    def share(self) -> float | None:
        """The part of the organisation's requests for 24 hours that the run would take, 0 to 1 and beyond."""
        return self.api_calls / self.usage.limit if self.usage.limit else None


@dataclass(slots=True)
class LandingResult:
    """What one extraction landed in `salesforce_users_raw`. Durations in seconds, days in UTC.

    `lost_fields` were hidden or removed while it ran; `held_reason` says why the watermark cannot follow to
    `read_until`; `resumed` tells that it went on where an earlier one had broken off. `warnings` are sentences.
    `transport` is "rest" or "bulk": that of the last page.
    """

    run_id: UUID
    mode: Mode
    window: SyncWindow
    read_until: datetime
    usage: ApiUsage
    limited: bool = False
    transport: str = "rest"
    fetched: int = 0
    last_change: datetime | None = None
    rejected: list[RejectedValue] = field(default_factory=list)
    rows_per_day: Counter[date] = field(default_factory=Counter)
    hidden_fields: tuple[str, ...] = ()
    lost_fields: tuple[str, ...] = ()
    held_reason: str | None = None
    resumed: bool = False
    certificate: Certificate | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def landed(self) -> SyncWindow:
        """The part of the window that was landed: a limited run ends with the SystemModstamp of its last row."""
        if not self.limited or self.last_change is None:
            return self.window
        return SyncWindow(self.window.since, self.last_change + timedelta(microseconds=1))

    @property
    def rows_not_stored(self) -> int:
        """How many rows were left out; a cleaned value does not count."""
        return sum(not note.row_stored for note in self.rejected)

    @property
    def rows_per_second(self) -> float:
        """Rows fetched and landed in a second of wall time."""
        return self.fetched / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class SyncUsersResult:
    """What one run of `sync_users` did, from the first request to the merged table."""

    landing: LandingResult
    counts: MergeCounts
    watermark: datetime | None
    seconds: float

    @property
    def rejected(self) -> int:
        """Rows that could not be stored, at landing or at the merge."""
        return self.landing.rows_not_stored + self.counts.rejected

    @property
    def missing(self) -> int:
        """Users of the window that Salesforce counted at the end and that were not read."""
        return self.landing.certificate.missing if self.landing.certificate else 0

    @property
    def complete(self) -> bool:
        """Whether the whole window was read, Salesforce's closing count agrees, and every row was stored."""
        return not self.landing.limited and self.rejected == 0 and self.missing == 0

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync sync-users --json` prints."""
        window, usage, certificate = self.landing.window, self.landing.usage, self.landing.certificate
        return {
            "mode": self.landing.mode,
            "since": format_moment(window.since) if window.since else None,
            "until": format_moment(window.until),
            "fetched": self.landing.fetched,
            "inserted": self.counts.inserted,
            "updated": self.counts.updated,
            "unchanged": self.counts.unchanged,
            "rejected": self.rejected,
            "api_calls": usage.calls,
            "api_usage": usage.as_json(),
            "complete": self.complete,
            "watermark": format_moment(self.watermark) if self.watermark else None,
            "duration_seconds": round(self.seconds, 3),
            "held_reason": self.landing.held_reason,
            "resumed": self.landing.resumed,
            "transport": self.landing.transport,
            "warnings": list(self.landing.warnings),
            "certificate": certificate.as_json() if certificate else None,
        }
