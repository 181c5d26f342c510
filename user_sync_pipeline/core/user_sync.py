"""The service that brings Salesforce users into Postgres: extract, land, merge.

What belongs here: the order of the steps, the bounds of what is read, and the figures of a run.
What does not: how Salesforce is asked (`salesforce/`) and how rows are stored (`warehouse/`).
The Dagster assets, the command line and scripts all call this one service.
"""

from __future__ import annotations

import math
import time as timer
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from user_sync_pipeline.core.errors import PausedError, UsageError
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.merge import MergeCounts, merge_window
from user_sync_pipeline.core.windows import Mode, SyncWindow, format_moment

if TYPE_CHECKING:
    import pyarrow as pa

    from user_sync_pipeline.core.rejects import RejectedValue
    from user_sync_pipeline.core.salesforce.rest import ApiUsage, RestUserService

# Salesforce shows a committed change after one to three seconds; nothing younger than this is read.
VISIBILITY_LAG = timedelta(seconds=60)
# A run that follows the watermark starts this much before it; newest-wins absorbs what is read twice.
WATERMARK_OVERLAP = timedelta(minutes=10)
# Describe, how many records there are, and up to when Salesforce vouches for its answers; the clock is free.
CALLS_BESIDE_PAGES = 3


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
    """What a run would fetch and cost, asked before anything is fetched."""

    rows: int
    api_calls: int
    usage: ApiUsage


@dataclass(slots=True)
class LandingResult:
    """What one extraction landed in `salesforce_users_raw`. Durations in seconds, days in UTC."""

    run_id: UUID
    mode: Mode
    window: SyncWindow
    read_until: datetime
    usage: ApiUsage
    limited: bool = False
    fetched: int = 0
    last_change: datetime | None = None
    rejected: list[RejectedValue] = field(default_factory=list)
    rows_per_day: Counter[date] = field(default_factory=Counter)
    hidden_fields: tuple[str, ...] = ()
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
    def complete(self) -> bool:
        """Whether the whole window was read and every row of it stored."""
        return not self.landing.limited and self.rejected == 0

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync sync-users --json` prints."""
        window, usage = self.landing.window, self.landing.usage
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
        }


class UserSyncService:
    """Joins a Salesforce service and a database; opens connections of its own beside the caller's session."""

    def __init__(self, db_session: Session | Engine, rest_service: RestUserService) -> None:
        bind = db_session.get_bind() if isinstance(db_session, Session) else db_session
        self._engine = bind.engine if isinstance(bind, Connection) else bind
        self._rest = rest_service

    def sync_users(
        self,
        modified_since: datetime | None = None,
        limit: int | None = None,
        *,
        window: SyncWindow | None = None,
        mode: Mode | None = None,
        started_by: str = "script",
        progress: ProgressListener | None = None,
    ) -> SyncUsersResult:
        """Fetch, land and merge the users whose SystemModstamp lies in the window.

        Without `window` that is everything since `modified_since` (aware), or simply everything.
        Raises the classes of `core/errors.py`; what was stored before an error stays and is consistent.
        """
        if window is None:
            now = datetime.now(UTC)
            window = SyncWindow.custom(modified_since, None, now=now) if modified_since else SyncWindow.full(now=now)
        mode = mode or ("full" if window.since is None else "custom")
        started = timer.monotonic()
        landing = self.land(window, mode=mode, limit=limit, started_by=started_by, progress=progress)
        counts, watermark = self.merge(landing.landed, landing.run_id)
        return SyncUsersResult(landing, counts, watermark, timer.monotonic() - started)

    @database_errors()
    def land(
        self,
        window: SyncWindow,
        *,
        mode: Mode,
        limit: int | None = None,
        started_by: str = "script",
        progress: ProgressListener | None = None,
    ) -> LandingResult:
        """Replace the window in `salesforce_users_raw` by what Salesforce holds now.

        `limit` is in rows; a limited run replaces only up to its last stored row. The ledger tells
        whether the run landed, failed or was paused, whatever happens.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"--limit is {limit}; give a number of rows that is 1 or more.")
        started = timer.monotonic()
        selection = self._rest.selected_fields()
        now = self._rest.server_time()
        read_until = min(window.until, now - VISIBILITY_LAG)
        covered_until, held_reason = self._covered_until(read_until, now)
        with self._engine.begin() as connection:
            run_id = ledger.begin_run(
                connection,
                org_id=self._rest.org_id,
                mode=mode,
                window=window,
                limit=limit,
                columns=selection.columns,
                started_by=started_by,
            )
        result = LandingResult(run_id, mode, window, read_until, self._rest.usage, hidden_fields=selection.hidden)
        with self._failure_in_ledger(run_id):
            if window.since is None or window.since < read_until:
                landing = Landing(self._engine, run_id, SyncWindow(window.since, read_until))
                self._land_pages(landing, result, limit, started, progress)
            result.usage = self._rest.usage
            result.seconds = timer.monotonic() - started
            with self._engine.begin() as connection:
                ledger.record_landing(
                    connection,
                    run_id,
                    read_until=read_until,
                    covered_until=covered_until,
                    held_reason=held_reason,
                    fetched=result.fetched,
                    rejected=result.rows_not_stored,
                    api_calls=result.usage.calls,
                )
        return result

    @database_errors()
    def merge(self, window: SyncWindow, run_id: UUID | None = None) -> tuple[MergeCounts, datetime | None]:
        """Merge the landed rows of the window into `sf_users`; returns the counts and the stored watermark.

        Without `run_id` it finishes the newest run that landed in the window; with nothing landed it
        does nothing.
        """
        with self._engine.begin() as connection:
            run_id = run_id or ledger.newest_landed_run(connection, window)
            if run_id is None:
                return MergeCounts(0, 0, 0, 0), None
        with self._failure_in_ledger(run_id), self._engine.begin() as connection:
            counts = merge_window(connection, window, run_id)
            ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
            return counts, ledger.advance_watermark(connection, run_id)

    def forecast(self, window: SyncWindow, limit: int | None = None) -> Forecast:
        """Count the rows of the window and estimate the calls that fetching them takes."""
        rows = self._rest.count_users(window)
        rows = min(rows, limit) if limit else rows
        pages = max(1, math.ceil(rows / self._rest.page_size_for(rows)))
        return Forecast(rows, pages + CALLS_BESIDE_PAGES, self._rest.usage)

    def _land_pages(
        self,
        landing: Landing,
        result: LandingResult,
        limit: int | None,
        started: float,
        progress: ProgressListener | None,
    ) -> None:
        for page_number, page in enumerate(self._rest.fetch_users(landing.window, limit=limit), start=1):
            landing.append(page.batch, page.rejected)
            result.fetched += page.fetched
            result.rejected.extend(page.rejected)
            if page.batch.num_rows:
                result.rows_per_day.update(_rows_per_day(page.batch))
                result.last_change = page.batch.column("system_modstamp")[-1].as_py()
            if progress is not None:
                seconds = timer.monotonic() - started
                progress(Progress(result.fetched, page.total, page_number, seconds, self._rest.usage))
        result.limited = limit is not None and result.fetched >= limit
        landing.finish(limited=result.limited)

    def _covered_until(self, read_until: datetime, now: datetime) -> tuple[datetime, str | None]:
        vouched_for = self._rest.latest_date_covered(now)
        if vouched_for is None or vouched_for >= read_until:
            return read_until, None
        return vouched_for, "Open transactions in Salesforce may still add changes from before read_until."

    @contextmanager
    def _failure_in_ledger(self, run_id: UUID) -> Iterator[None]:
        """Write how a run ended when it does not end well; a database that is gone cannot be told."""
        try:
            yield
        except BaseException as error:
            outcome: ledger.FinalOutcome = "paused" if isinstance(error, PausedError) else "failed"
            with suppress(SQLAlchemyError), self._engine.begin() as connection:
                ledger.finish_run(connection, run_id, outcome=outcome, counts=None)
            raise


def _rows_per_day(batch: pa.RecordBatch) -> dict[date, int]:
    """Count the rows of a batch by the UTC day of their SystemModstamp."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = pc.cast(batch.column("system_modstamp"), pa.date32())
    return {count["values"]: count["counts"] for count in pc.value_counts(days).to_pylist()}
