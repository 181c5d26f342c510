"""The service that brings Salesforce users into Postgres: extract, land, merge.

What belongs here: the order of the steps, and what they would cost. What does not: one extraction in depth
(`extraction.py`), how Salesforce is asked (`salesforce/`) and how rows are stored (`warehouse/`).
The Dagster assets, the command line and scripts all call this one service.
"""

from __future__ import annotations

import math
import time as timer
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, Engine

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.extraction import Extraction, failure_in_ledger
from user_sync_pipeline.core.read_bounds import VISIBILITY_LAG, read_until
from user_sync_pipeline.core.results import Forecast, LandingResult, Progress, ProgressListener, SyncUsersResult
from user_sync_pipeline.core.settings import Retention
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.locks import one_run_at_a_time
from user_sync_pipeline.core.warehouse.merge import MergeCounts, merge_window
from user_sync_pipeline.core.warehouse.retention import forget_what_is_old
from user_sync_pipeline.core.windows import Mode, SyncWindow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from user_sync_pipeline.core.salesforce.rest import RestUserService

__all__ = [
    "VISIBILITY_LAG",
    "WAIT_FOR_ANOTHER_RUN",
    "WATERMARK_OVERLAP",
    "Forecast",
    "LandingResult",
    "Progress",
    "ProgressListener",
    "SyncUsersResult",
    "UserSyncService",
]

# A run that follows the watermark starts this much before it; newest-wins absorbs what is read twice.
WATERMARK_OVERLAP = timedelta(minutes=10)
# Runs that follow the watermark take seconds. Who waits longer than this is better told, and comes back by a schedule.
WAIT_FOR_ANOTHER_RUN = timedelta(minutes=5)
# Beside counts and pages: describe, and up to when Salesforce vouches for its answers. The clock is free.
CALLS_TO_BEGIN = 2
# How many users there are at the end, to compare with those that were read: all of them, unless a limit stops it.
CALLS_TO_END = 1


class UserSyncService:
    """Joins a Salesforce service and a database; opens connections of its own beside the caller's session.

    One run of an organisation lands at a time: a second one waits for it up to `wait`, which `tell` is told in a
    sentence, and raises `UnreachableError` when that was not enough. What is older than `retention` (None: as the
    settings say) goes after the first merge of a day.
    """

    def __init__(
        self,
        db_session: Session | Engine,
        rest_service: RestUserService,
        *,
        wait: timedelta = WAIT_FOR_ANOTHER_RUN,
        tell: Callable[[str], None] | None = None,
        retention: Retention | None = None,
    ) -> None:
        bind = db_session if isinstance(db_session, Engine) else db_session.get_bind()
        self._engine = bind.engine if isinstance(bind, Connection) else bind
        self._rest = rest_service
        self._wait = wait
        self._tell = tell
        self._retention = retention or settings.retention()

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
        _refuse_empty_limit(limit)
        if window is None:
            now = self._rest.server_time()
            window = SyncWindow.custom(modified_since, None, now=now) if modified_since else SyncWindow.full(now=now)
        mode = mode or ("full" if window.since is None else "custom")
        started = timer.monotonic()
        with database_errors(), self._alone():
            landing = self._land(window, mode, limit, started_by, progress)
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

        `limit` is in rows; a limited run replaces only up to its last stored row. A run without a limit that broke
        off or was paused is continued by the next one for the same window. The ledger tells whether the run landed,
        failed or was paused, whatever happens.
        """
        _refuse_empty_limit(limit)
        with self._alone():
            return self._land(window, mode, limit, started_by, progress)

    def _alone(self) -> AbstractContextManager[None]:
        return one_run_at_a_time(self._engine, self._rest.org_id, wait=self._wait, tell=self._tell)

    def _land(
        self, window: SyncWindow, mode: Mode, limit: int | None, started_by: str, progress: ProgressListener | None
    ) -> LandingResult:
        extraction = Extraction(
            self._engine,
            self._rest,
            window,
            mode=mode,
            limit=limit,
            started_by=started_by,
            progress=progress,
        )
        return extraction.run()

    @database_errors()
    def merge(
        self, window: SyncWindow, run_id: UUID | None = None, *, started_by: str | None = None
    ) -> tuple[MergeCounts, datetime | None]:
        """Merge the landed rows of the window into `sf_users`; returns the counts and the stored watermark.

        Without `run_id` it finishes the newest run that landed in the window, one that was `started_by` this one
        before all others; with nothing landed it does nothing.
        """
        with self._engine.begin() as connection:
            run_id = run_id or ledger.newest_landed_run(connection, window, started_by)
            if run_id is None:
                return MergeCounts(0, 0, 0, 0), None
        with failure_in_ledger(self._engine, run_id), self._engine.begin() as connection:
            counts = merge_window(connection, window, run_id)
            ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
            watermark = ledger.advance_watermark(connection, run_id)
        forget_what_is_old(self._engine, self._retention, run_id)
        return counts, watermark

    def forecast(self, window: SyncWindow, limit: int | None = None) -> Forecast:
        """Count the users of the window, and the calls that fetching them takes; costs those for the counts itself."""
        until = read_until(window, self._rest.server_time())
        if window.since is not None and window.since >= until:
            return Forecast(0, CALLS_TO_BEGIN, self._rest.usage)
        readable = SyncWindow(window.since, until)
        if limit is not None:
            rows = min(limit, self._rest.count_users(readable))
            calls = CALLS_TO_BEGIN + _pages(rows, self._rest.page_size_for(limit))
            return Forecast(rows, calls + (CALLS_TO_END if rows < limit else 0), self._rest.usage)
        before = self._rest.usage.calls
        rows = self._rest.count_users(readable)
        if self._rest.transport_for(rows) == "bulk":
            counts = self._rest.usage.calls - before
            calls = CALLS_TO_BEGIN + counts + self._rest.bulk_calls_for(rows) + CALLS_TO_END
            return Forecast(rows, calls, self._rest.usage, "bulk")
        slices = self._rest.plan_slices(readable, rows)
        counts = self._rest.usage.calls - before
        rows = sum(slice_.rows for slice_ in slices)
        page_size = self._rest.page_size_for(rows)
        pages = sum(_pages(slice_.rows, page_size) for slice_ in slices)
        return Forecast(rows, CALLS_TO_BEGIN + counts + pages + CALLS_TO_END, self._rest.usage)

    @database_errors()
    def window_since_watermark(self) -> SyncWindow:
        """Return the window from the stored watermark, less an overlap, to the end of the present day.

        It is the full one while nothing was read yet.
        """
        now = self._rest.server_time()
        with self._engine.connect() as connection:
            ledger.refuse_other_organisation(connection, self._rest.org_id)
            watermark = ledger.read_watermark(connection, self._rest.org_id)
        if watermark is None:
            return SyncWindow.full(now=now)
        return SyncWindow.custom(watermark - WATERMARK_OVERLAP, None, now=now)


def _refuse_empty_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; give a number of rows that is 1 or more.")


def _pages(rows: int, page_size: int) -> int:
    return max(1, math.ceil(rows / page_size))
