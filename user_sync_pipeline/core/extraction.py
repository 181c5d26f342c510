"""One extraction: from its first question to Salesforce to the last landed page and the certificate.

What belongs here: how far is read, going on where an earlier extraction broke off, and what the ledger is told of it.
What does not: the pages between (`intake.py`), how Salesforce is asked (`salesforce/`), how rows are stored
(`warehouse/`).
"""

from __future__ import annotations

import time as timer
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from user_sync_pipeline.core.certificate import Certificate, SliceRead
from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.intake import Intake, plan
from user_sync_pipeline.core.read_bounds import OPEN_TRANSACTIONS, ask_for_bounds, ask_for_the_time
from user_sync_pipeline.core.results import LandingResult, Progress, ProgressListener
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.census import take_census
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.windows import Mode, SyncWindow

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import RestUserService


class Extraction:
    """Reads one window and lands it, with what is needed to go on after a break committed at every step.

    No other run of the organisation may be on its way meanwhile (`warehouse/locks.py`).
    """

    def __init__(
        self,
        engine: Engine,
        rest: RestUserService,
        window: SyncWindow,
        *,
        mode: Mode,
        limit: int | None,
        started_by: str,
        progress: ProgressListener | None,
    ) -> None:
        self._engine = engine
        self._rest = rest
        self._window = window
        self._mode: Mode = mode
        self._limit = limit
        self._started_by = started_by
        self._progress = progress
        self._started = timer.monotonic()
        self._calls_before = rest.usage.calls
        self._pages_landed = 0

    def run(self) -> LandingResult:
        """Land the window and return what became of it; the ledger tells it too, also when it fails or is paused."""
        self._selection = self._rest.selected_fields()
        now, warnings = ask_for_the_time(self._rest)
        self._bounds = ask_for_bounds(self._rest, self._window, now)
        found, run_id = self._begin_or_go_on()
        self._result = LandingResult(
            run_id,
            self._mode,
            self._window,
            self._bounds.read_until,
            self._rest.usage,
            hidden_fields=self._selection.hidden,
            warnings=warnings,
        )
        with failure_in_ledger(self._engine, run_id, self._calls_made):
            self._read(found)
        return self._result

    def _calls_made(self) -> int:
        return self._rest.usage.calls - self._calls_before

    def _begin_or_go_on(self) -> tuple[ledger.BrokenOffRun | None, UUID]:
        """Open a run in the ledger, or find the one to go on with; a run with a limit is always a new one."""
        org_id = self._rest.org_id
        fields = self._selection.soql_names
        with self._engine.begin() as connection:
            ledger.refuse_other_organisation(connection, org_id)
            if self._limit is None:
                found = ledger.broken_off_run(connection, org_id=org_id, window=self._window, fields=fields)
                if found is not None:
                    ledger.resume_run(connection, found.run_id, until=self._window.until)
                    return found, found.run_id
            run_id = ledger.begin_run(
                connection,
                org_id=org_id,
                mode=self._mode,
                window=self._window,
                limit=self._limit,
                columns=self._selection.columns,
                fields=fields,
                started_by=self._started_by,
            )
            self._record_bounds(connection, run_id)
        return None, run_id

    def _record_bounds(self, connection: Connection, run_id: UUID) -> None:
        ledger.record_bounds(
            connection,
            run_id,
            read_until=self._bounds.read_until,
            covered_until=self._bounds.vouched_until,
            held_reason=self._bounds.held_reason,
        )

    def _read(self, found: ledger.BrokenOffRun | None) -> None:
        settled_until = self._bounds.vouched_until
        if self._window.since is not None and self._window.since >= self._bounds.read_until:
            self._record_nothing_to_read()
            return
        readable = SyncWindow(self._window.since, self._bounds.read_until)
        landing = Landing(self._engine, self._result.run_id, readable, settled_until=settled_until)
        if found:
            self._go_back_to_checkpoints(landing, found)
        else:
            landing.plan(plan(self._rest, readable, self._limit))
        intake = Intake(
            self._engine,
            self._rest,
            landing,
            self._result,
            columns=found.columns if found else self._selection.columns,
            settled_until=settled_until,
            limit=self._limit,
            on_page=self._report,
        )
        intake.land()
        self._finish(landing)

    def _go_back_to_checkpoints(self, landing: Landing, found: ledger.BrokenOffRun) -> None:
        """Take up the slices of a run that broke off, and add what has become readable since then."""
        landing.go_back_to_checkpoints()
        reached = max(slice_.window.until for slice_ in landing.checkpoints())
        if reached < landing.window.until:
            landing.plan(plan(self._rest, SyncWindow(reached, landing.window.until)))
        if found.covered_until < reached:
            # What was open then may have been committed behind the pages that were read before the break.
            reason = found.held_reason or self._bounds.held_reason or OPEN_TRANSACTIONS
            self._bounds = replace(self._bounds, vouched_until=found.covered_until, held_reason=reason)
        with self._engine.begin() as connection:
            self._record_bounds(connection, found.run_id)
        self._result.resumed = True
        self._result.lost_fields = found.lost_fields

    def _report(self, total: int) -> None:
        self._pages_landed += 1
        if self._progress is not None:
            seconds = timer.monotonic() - self._started
            self._progress(Progress(self._result.fetched, total, self._pages_landed, seconds, self._rest.usage))

    def _finish(self, landing: Landing) -> None:
        """Let the window hold this run's rows alone, and write down what was read: one transaction."""
        result = self._result
        closing_count = None if result.limited else self._rest.count_users(landing.window)
        slices = [SliceRead(slice_.window, slice_.landed_rows) for slice_ in landing.checkpoints()]
        with self._engine.begin() as connection:
            landing.finish(limited=result.limited, connection=connection)
            census = take_census(connection, result.run_id, landing.window)
            result.rows_per_day, result.last_change = census.rows_per_day, census.last_change
            certificate = Certificate(
                landing.window,
                self._bounds.vouched_until,
                limited=result.limited,
                slices=slices,
                users=census.users,
                rejected=result.rows_not_stored,
                closing_count=closing_count,
                digest=census.digest,
                users_by_type=census.users_by_type,
                hidden_fields=result.hidden_fields,
                lost_fields=result.lost_fields,
                formula_fields=self._rest.selected_fields().formulas,
                transport=result.transport,
            )
            self._record(connection, certificate)

    def _record_nothing_to_read(self) -> None:
        with self._engine.begin() as connection:
            self._record(connection, Certificate(None, self._bounds.vouched_until, limited=False))

    def _record(self, connection: Connection, certificate: Certificate) -> None:
        result = self._result
        result.certificate = certificate
        result.held_reason = self._bounds.held_reason
        result.seconds = timer.monotonic() - self._started
        ledger.record_landing(
            connection,
            result.run_id,
            read_until=self._bounds.read_until,
            covered_until=self._bounds.vouched_until,
            held_reason=self._bounds.held_reason,
            fetched=result.fetched,
            rejected=result.rows_not_stored,
            api_calls=self._calls_made(),
            certificate=certificate.as_json(),
        )


@contextmanager
def failure_in_ledger(engine: Engine, run_id: UUID, api_calls: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Write how a run ended when it does not end well; a database that is gone cannot be told."""
    try:
        yield
    except BaseException as error:
        outcome: ledger.FinalOutcome = "paused" if isinstance(error, PausedError) else "failed"
        with suppress(SQLAlchemyError), engine.begin() as connection:
            ledger.finish_run(connection, run_id, outcome=outcome, counts=None, api_calls=api_calls())
        raise
