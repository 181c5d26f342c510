"""The ledger: what each run was asked for and what came of it, and up to where everything has been read.

What belongs here: `user_sync.sync_runs` and `user_sync.watermarks`.
What does not: the rows themselves, their checkpoint and their rejects (`landing.py`, `merge.py`).
Every function works in the transaction of the connection it is given.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import Mode, SyncWindow

FinalOutcome = Literal["complete", "failed", "paused"]

_BEGIN_RUN = text("""
    INSERT INTO user_sync.sync_runs (run_id, org_id, mode, since, until, row_limit, fetched_columns, started_by)
    VALUES (:run_id, :org_id, :mode, :since, :until, :row_limit, :fetched_columns, :started_by)
""")
_RECORD_LANDING = text("""
    UPDATE user_sync.sync_runs
    SET outcome = 'landed', read_until = :read_until, covered_until = :covered_until, held_reason = :held_reason,
        fetched = :fetched, rejected = :rejected, api_calls = :api_calls
    WHERE run_id = :run_id
""")
_NEWEST_LANDED_RUN = text("""
    SELECT run_id FROM user_sync.sync_runs
    WHERE read_until IS NOT NULL
      AND until <= :until
      AND (CAST(:since AS timestamptz) IS NULL OR since >= :since)
    ORDER BY started_at DESC
    LIMIT 1
""")
_RECORD_COUNTS = text("""
    UPDATE user_sync.sync_runs SET inserted = :inserted, updated = :updated, unchanged = :unchanged
    WHERE run_id = :run_id
""")
# Rejects are counted where they are noted, so that a merge that is repeated counts none of them twice.
_FINISH_RUN = text("""
    UPDATE user_sync.sync_runs AS run
    SET outcome = :outcome,
        finished_at = clock_timestamp(),
        rejected = (
            SELECT count(*) FROM user_sync.rejected_records AS note
            WHERE note.run_id = run.run_id AND NOT note.row_stored
        )
    WHERE run.run_id = :run_id
""")
_READ_WATERMARK = text("SELECT watermark FROM user_sync.watermarks WHERE org_id = :org_id")
_ADVANCE_WATERMARK = text("""
    INSERT INTO user_sync.watermarks AS stored (org_id, watermark, held_reason, run_id)
    SELECT run.org_id, least(run.covered_until, run.until), run.held_reason, run.run_id
    FROM user_sync.sync_runs AS run
    LEFT JOIN user_sync.watermarks AS before ON before.org_id = run.org_id
    WHERE run.run_id = :run_id
      AND run.row_limit IS NULL
      AND run.covered_until IS NOT NULL
      AND (run.since IS NULL OR run.since <= before.watermark)
    ON CONFLICT (org_id) DO UPDATE SET
        watermark = excluded.watermark,
        held_reason = excluded.held_reason,
        run_id = excluded.run_id,
        updated_at = clock_timestamp()
    WHERE excluded.watermark >= stored.watermark
""")
_WATERMARK_OF_RUN = text("""
    SELECT stored.watermark
    FROM user_sync.watermarks AS stored JOIN user_sync.sync_runs AS run USING (org_id)
    WHERE run.run_id = :run_id
""")


def begin_run(
    connection: Connection,
    *,
    org_id: str,
    mode: Mode,
    window: SyncWindow,
    limit: int | None,
    columns: Collection[str],
    started_by: str,
) -> UUID:
    """Open a run in the ledger and return its id; `columns` are those that Salesforce shows us."""
    unknown = set(columns).difference(USER_COLUMNS)
    if unknown:
        raise ValueError(f"These columns are not in the catalogue of fields: {', '.join(sorted(unknown))}.")
    run_id = uuid4()
    connection.execute(
        _BEGIN_RUN,
        {
            "run_id": run_id,
            "org_id": org_id,
            "mode": mode,
            "since": window.since,
            "until": window.until,
            "row_limit": limit,
            "fetched_columns": [column for column in USER_COLUMNS if column in columns],
            "started_by": started_by,
        },
    )
    return run_id


def record_landing(
    connection: Connection,
    run_id: UUID,
    *,
    read_until: datetime,
    covered_until: datetime,
    held_reason: str | None,
    fetched: int,
    rejected: int,
    api_calls: int,
) -> None:
    """Note that all rows of the run have landed, read up to `read_until`.

    `covered_until` is the moment up to which Salesforce vouches for its answers; `held_reason` says why it
    lies before `read_until`.
    """
    connection.execute(
        _RECORD_LANDING,
        {
            "run_id": run_id,
            "read_until": read_until,
            "covered_until": covered_until,
            "held_reason": held_reason,
            "fetched": fetched,
            "rejected": rejected,
            "api_calls": api_calls,
        },
    )


def newest_landed_run(connection: Connection, window: SyncWindow) -> UUID | None:
    """Return the newest run that landed within the window, whatever became of its merge; None without one."""
    found: UUID | None = connection.scalar(_NEWEST_LANDED_RUN, {"since": window.since, "until": window.until})
    return found


def finish_run(connection: Connection, run_id: UUID, *, outcome: FinalOutcome, counts: MergeCounts | None) -> None:
    """Close the run; `counts` is None when it was not merged."""
    if counts is not None:
        merged = {"inserted": counts.inserted, "updated": counts.updated, "unchanged": counts.unchanged}
        connection.execute(_RECORD_COUNTS, {"run_id": run_id, **merged})
    connection.execute(_FINISH_RUN, {"run_id": run_id, "outcome": outcome})


def read_watermark(connection: Connection, org_id: str) -> datetime | None:
    """Return the moment up to which all users of the organisation have been read; None before the first full run."""
    watermark: datetime | None = connection.scalar(_READ_WATERMARK, {"org_id": org_id})
    return watermark


def advance_watermark(connection: Connection, run_id: UUID) -> datetime | None:
    """Move the watermark of the run's organisation as far as the run vouches for, and return where it stands.

    It moves only for an unlimited run that joins what was read before without a gap: one that is open to the
    past, or starts at or before the stored watermark. It never moves backwards.
    """
    connection.execute(_ADVANCE_WATERMARK, {"run_id": run_id})
    watermark: datetime | None = connection.scalar(_WATERMARK_OF_RUN, {"run_id": run_id})
    return watermark
