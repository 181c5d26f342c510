"""The ledger: what each run was asked for and what came of it, and up to where everything has been read.

What belongs here: `user_sync.sync_runs` and `user_sync.watermarks`.
What does not: the rows themselves, their checkpoint and their rejects (`landing.py`, `merge.py`).
Every function works in the transaction of the connection it is given.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import Mode, SyncWindow

FinalOutcome = Literal["complete", "failed", "paused"]

_OTHER_ORGANISATION = text("""
    SELECT org_id FROM user_sync.sync_runs WHERE org_id <> :org_id AND landed_at IS NOT NULL LIMIT 1
""")
_BEGIN_RUN = text("""
    INSERT INTO user_sync.sync_runs (
        run_id, org_id, mode, since, until, row_limit, selected_fields, fetched_columns, started_by
    ) VALUES (
        :run_id, :org_id, :mode, :since, :until, :row_limit, :selected_fields, :fetched_columns, :started_by
    )
""")
# Only a run that has not landed has checkpoints. One that was to end up to a week earlier is gone on with as well: a
# quota that pauses a run is often free again only on the next day, when "up to today" means another window.
_BROKEN_OFF = text("""
    SELECT run_id, read_until, covered_until, held_reason, fetched_columns, lost_fields
    FROM user_sync.sync_runs AS run
    WHERE org_id = :org_id
      AND since IS NOT DISTINCT FROM CAST(:since AS timestamptz)
      AND until BETWEEN CAST(:until AS timestamptz) - interval '7 days' AND :until
      AND row_limit IS NULL
      AND selected_fields = CAST(:selected_fields AS text[])
      AND EXISTS (SELECT FROM user_sync.checkpoints AS reached WHERE reached.run_id = run.run_id)
    ORDER BY started_at DESC
    LIMIT 1
""")
_RESUME_RUN = text("""
    UPDATE user_sync.sync_runs SET outcome = 'running', finished_at = NULL, resumed = resumed + 1, until = :until
    WHERE run_id = :run_id
""")
_RECORD_BOUNDS = text("""
    UPDATE user_sync.sync_runs
    SET read_until = :read_until, covered_until = :covered_until, held_reason = :held_reason
    WHERE run_id = :run_id
""")
_RECORD_LOSS = text("""
    UPDATE user_sync.sync_runs
    SET selected_fields = :selected_fields, fetched_columns = :fetched_columns, lost_fields = :lost_fields
    WHERE run_id = :run_id
""")
_RECORD_LANDING = text("""
    UPDATE user_sync.sync_runs
    SET outcome = 'landed', landed_at = clock_timestamp(), read_until = :read_until, covered_until = :covered_until,
        held_reason = :held_reason, fetched = :fetched, rejected = :rejected, api_calls = api_calls + :api_calls,
        certificate = CAST(:certificate AS jsonb)
    WHERE run_id = :run_id
""")
_NEWEST_LANDED_RUN = text("""
    SELECT run_id FROM user_sync.sync_runs
    WHERE landed_at IS NOT NULL
      AND until <= :until
      AND (CAST(:since AS timestamptz) IS NULL OR since >= :since)
    ORDER BY started_by = CAST(:started_by AS text) DESC NULLS LAST, started_at DESC
    LIMIT 1
""")
# A merge that is repeated finds unchanged what it has written before; that is no news of the run.
_RECORD_COUNTS = text("""
    UPDATE user_sync.sync_runs
    SET inserted = inserted + :inserted, updated = updated + :updated,
        unchanged = CASE outcome WHEN 'complete' THEN unchanged ELSE :unchanged END
    WHERE run_id = :run_id
""")
# Rejects are counted where they are noted, so that a merge that is repeated counts none of them twice; old notes may
# have gone (`retention.py`).
_FINISH_RUN = text("""
    UPDATE user_sync.sync_runs AS run
    SET outcome = :outcome,
        finished_at = clock_timestamp(),
        api_calls = run.api_calls + :api_calls,
        rejected = greatest(run.rejected, (
            SELECT count(*) FROM user_sync.rejected_records AS note
            WHERE note.run_id = run.run_id AND NOT note.row_stored
        ))
    WHERE run.run_id = :run_id
""")
_READ_WATERMARK = text("SELECT watermark FROM user_sync.watermarks WHERE org_id = :org_id")
# A run that starts behind a gap, or reads but a part, says nothing about what lies before its end.
_READ_SO_FAR = text("""
    SELECT stored.watermark, (
        SELECT max(run.read_until) FROM user_sync.sync_runs AS run
        WHERE run.org_id = stored.org_id AND run.outcome = 'complete' AND run.row_limit IS NULL
          AND (run.since IS NULL OR run.since <= stored.watermark)
    ) AS read_until
    FROM user_sync.watermarks AS stored
    ORDER BY stored.updated_at DESC LIMIT 1
""")
_ADVANCE_WATERMARK = text("""
    INSERT INTO user_sync.watermarks AS stored (org_id, watermark, held_reason, run_id)
    SELECT run.org_id, least(run.covered_until, run.until), run.held_reason, run.run_id
    FROM user_sync.sync_runs AS run
    LEFT JOIN user_sync.watermarks AS before ON before.org_id = run.org_id
    WHERE run.run_id = :run_id
      AND run.row_limit IS NULL
      AND run.landed_at IS NOT NULL
      AND (run.since IS NULL OR run.since <= before.watermark)
      AND (run.held_reason IS NOT NULL OR coalesce((run.certificate ->> 'complete')::boolean, true))
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


@dataclass(frozen=True, slots=True)
class BrokenOffRun:
    """A run that has not landed: how far it was to read, and what it could see."""

    run_id: UUID
    read_until: datetime
    covered_until: datetime
    held_reason: str | None
    columns: tuple[str, ...]
    lost_fields: tuple[str, ...]


class ReadSoFar(NamedTuple):
    """The watermark, and up to where the newest complete run that starts behind no gap has read, maybe beyond it."""

    watermark: datetime
    read_until: datetime | None


def refuse_other_organisation(connection: Connection, org_id: str) -> None:
    """Raise `ConfigurationError` when the tables hold the users of another organisation."""
    other = connection.scalar(_OTHER_ORGANISATION, {"org_id": org_id})
    if other is not None:
        raise ConfigurationError(
            f"This database holds the users of the Salesforce organisation {other}, but SALESFORCE_LOGIN_URL leads to "
            f"{org_id}; correct it, or set USER_SYNC_DATABASE_URL to a database of its own for that organisation."
        )


def begin_run(
    connection: Connection,
    *,
    org_id: str,
    mode: Mode,
    window: SyncWindow,
    limit: int | None,
    columns: Collection[str],
    started_by: str,
    fields: Sequence[str] = (),
) -> UUID:
    """Open a run in the ledger and return its id.

    `columns` are those that Salesforce shows us, `fields` the names under which it was asked for them.
    """
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
            "selected_fields": list(fields),
            "fetched_columns": _in_order(columns),
            "started_by": started_by,
        },
    )
    return run_id


def broken_off_run(
    connection: Connection, *, org_id: str, window: SyncWindow, fields: Sequence[str]
) -> BrokenOffRun | None:
    """Return the newest run without a limit that was to read this window with these fields and did not land.

    Its window may end up to a week before this one. Nobody else works on it as long as this process keeps other runs
    of the organisation out (`locks.py`).
    """
    asked = {"org_id": org_id, "since": window.since, "until": window.until, "selected_fields": list(fields)}
    run = connection.execute(_BROKEN_OFF, asked).one_or_none()
    if run is None:
        return None
    return BrokenOffRun(
        run.run_id,
        run.read_until,
        run.covered_until,
        run.held_reason,
        tuple(run.fetched_columns),
        tuple(run.lost_fields),
    )


def resume_run(connection: Connection, run_id: UUID, *, until: datetime) -> None:
    """Note that a run that had broken off goes on, in a window that ends with `until`."""
    connection.execute(_RESUME_RUN, {"run_id": run_id, "until": until})


def record_bounds(
    connection: Connection, run_id: UUID, *, read_until: datetime, covered_until: datetime, held_reason: str | None
) -> None:
    """Note how far the run is going to read, and how far Salesforce vouches for that; as in `record_landing`."""
    bounds = {"read_until": read_until, "covered_until": covered_until, "held_reason": held_reason}
    connection.execute(_RECORD_BOUNDS, {"run_id": run_id, **bounds})


def record_lost_fields(
    connection: Connection, run_id: UUID, *, fields: Sequence[str], columns: Collection[str], lost: Sequence[str]
) -> None:
    """Note that fields vanished while the run was reading: `fields` and `columns` are left, `lost` are not.

    What was stored in a lost column stays as it is, also where rows of this run still brought a value.
    """
    left = {"selected_fields": list(fields), "fetched_columns": _in_order(columns), "lost_fields": list(lost)}
    connection.execute(_RECORD_LOSS, {"run_id": run_id, **left})


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
    certificate: Mapping[str, Any] | None = None,
) -> None:
    """Note that all rows of the run have landed, read up to `read_until`.

    `covered_until` is the moment up to which Salesforce vouches for its answers; `held_reason` says why it
    lies before `read_until`. `api_calls` are added to those that the run had made before it broke off.
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
            "certificate": None if certificate is None else json.dumps(certificate),
        },
    )


def newest_landed_run(connection: Connection, window: SyncWindow, started_by: str | None = None) -> UUID | None:
    """Return the newest run that landed within the window, whatever became of its merge; None without one.

    Runs that were `started_by` this one are preferred to others.
    """
    asked = {"since": window.since, "until": window.until, "started_by": started_by}
    found: UUID | None = connection.scalar(_NEWEST_LANDED_RUN, asked)
    return found


def finish_run(
    connection: Connection, run_id: UUID, *, outcome: FinalOutcome, counts: MergeCounts | None, api_calls: int = 0
) -> None:
    """Close the run; `counts` is None when it was not merged. `api_calls` are added as in `record_landing`."""
    if counts is not None:
        merged = {"inserted": counts.inserted, "updated": counts.updated, "unchanged": counts.unchanged}
        connection.execute(_RECORD_COUNTS, {"run_id": run_id, **merged})
    connection.execute(_FINISH_RUN, {"run_id": run_id, "outcome": outcome, "api_calls": api_calls})


def read_watermark(connection: Connection, org_id: str) -> datetime | None:
    """Return the moment up to which all users of the organisation have been read; None before the first full run."""
    watermark: datetime | None = connection.scalar(_READ_WATERMARK, {"org_id": org_id})
    return watermark


def read_so_far(connection: Connection) -> ReadSoFar | None:
    """Return how far the organisation of this database has been read; None before the first full run."""
    found = connection.execute(_READ_SO_FAR).one_or_none()
    return ReadSoFar(found.watermark, found.read_until) if found else None


def advance_watermark(connection: Connection, run_id: UUID) -> datetime | None:
    """Move the watermark of the run's organisation as far as the run vouches for, and return where it stands.

    It moves only for an unlimited run that joins what was read before without a gap: one that is open to the
    past, or starts at or before the stored watermark. It never moves backwards. A run that read fewer users than
    Salesforce counts moves it only when it is held: what was committed late lies behind where it is held.
    """
    connection.execute(_ADVANCE_WATERMARK, {"run_id": run_id})
    watermark: datetime | None = connection.scalar(_WATERMARK_OF_RUN, {"run_id": run_id})
    return watermark


def _in_order(columns: Collection[str]) -> list[str]:
    return [column for column in USER_COLUMNS if column in columns]
