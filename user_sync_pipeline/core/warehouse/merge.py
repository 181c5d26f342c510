"""The merge of landed rows into `public.sf_users`: one statement inside Postgres, newest SystemModstamp wins.

What belongs here: which version of a user becomes the current one, and what each row's fate is counted as.
What does not: fetching and landing (`landing.py`).

A row is written only when it is newer than the stored one, or equally new with other content, as when a field
has become visible to us. A column that a run could not see is left as it is. A row that `sf_users` would refuse
goes to `rejected_records` and costs no other row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_COLUMNS, USER_FIELDS, Kind
from user_sync_pipeline.core.warehouse.locks import keep_merges_out
from user_sync_pipeline.core.windows import SyncWindow


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What became of the users of a window, each counted once; `unchanged` includes those stored newer already."""

    inserted: int
    updated: int
    unchanged: int
    rejected: int

    def __add__(self, other: MergeCounts) -> MergeCounts:
        return MergeCounts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.rejected + other.rejected,
        )


_WINDOW = "system_modstamp < :until AND (CAST(:since AS timestamptz) IS NULL OR system_modstamp >= :since)"

# The runs whose rows lie in the window, together where they saw the same columns.
_RUNS_BY_COLUMNS = text(f"""
    SELECT fetched_columns, array_agg(run_id) AS runs
    FROM user_sync.sync_runs
    WHERE run_id IN (SELECT sync_run_id FROM user_sync.salesforce_users_raw WHERE {_WINDOW})
    GROUP BY fetched_columns
    ORDER BY fetched_columns
""")

# Sorting the keys of a million users, and joining them, without going over the disk.
_MEMORY_FOR_KEYS = text("SET LOCAL work_mem = '64MB'")

# `place` is the ctid. The wide rows are neither sorted nor kept aside: they are read in the order in which they lie,
# and those that were superseded, mostly none, are left out by their places. Reading them in the order of their ids
# instead takes twice as long where the table does not fit into Postgres' buffers.
# `flaw` says why `sf_users` would refuse a row, and begins with the name of the field; null where it would not.
_MERGE = """
    WITH superseded AS MATERIALIZED (
        SELECT place
        FROM (
            SELECT ctid AS place, id, lead(id) OVER (ORDER BY id, system_modstamp, landed_at) AS next_id
            FROM user_sync.salesforce_users_raw
            WHERE {window}
        ) AS version
        WHERE next_id = id
    ),
    judged AS MATERIALIZED (
        SELECT raw.ctid AS place, stored.id IS NULL AS is_new, {is_changed} AS is_changed, {flaw} AS flaw
        FROM (SELECT ctid, * FROM user_sync.salesforce_users_raw WHERE {window}) AS raw
        LEFT JOIN public.sf_users AS stored ON stored.id = raw.id
        WHERE raw.sync_run_id = ANY(:runs) AND raw.ctid NOT IN (SELECT place FROM superseded)
    ),
    inserted AS (
        INSERT INTO public.sf_users ({columns}, sync_run_id, first_seen_at, synced_at, deactivated_at)
        SELECT {raw_columns}, :run_id, now(), now(), CASE WHEN NOT raw.is_active THEN now() END
        FROM judged JOIN user_sync.salesforce_users_raw AS raw ON raw.ctid = judged.place
        WHERE judged.flaw IS NULL AND judged.is_new
    ),
    updated AS (
        UPDATE public.sf_users AS stored
        SET {assignments}, sync_run_id = :run_id, synced_at = now()
        FROM judged JOIN user_sync.salesforce_users_raw AS raw ON raw.ctid = judged.place
        WHERE stored.id = raw.id AND judged.flaw IS NULL AND judged.is_changed
    ),
    noted AS (
        INSERT INTO user_sync.rejected_records (run_id, salesforce_id, field, reason, row_stored)
        SELECT :run_id, raw.id, split_part(judged.flaw, ' ', 1), judged.flaw, false
        FROM judged JOIN user_sync.salesforce_users_raw AS raw ON raw.ctid = judged.place
        WHERE judged.flaw IS NOT NULL AND NOT EXISTS (
            SELECT FROM user_sync.rejected_records AS known
            WHERE known.run_id = :run_id AND known.salesforce_id = raw.id AND known.reason = judged.flaw
        )
    )
    SELECT
        count(*) FILTER (WHERE flaw IS NULL AND is_new) AS inserted,
        count(*) FILTER (WHERE flaw IS NULL AND is_changed) AS updated,
        count(*) FILTER (WHERE flaw IS NULL AND NOT is_new AND NOT is_changed) AS unchanged,
        count(*) FILTER (WHERE flaw IS NOT NULL) AS rejected
    FROM judged
"""


def merge_window(connection: Connection, window: SyncWindow, run_id: UUID) -> MergeCounts:
    """Bring the landed rows of the window into `sf_users`, in the transaction of `connection`.

    `run_id` is the run that does it: written rows and rejects carry it. Rows whose own run the ledger has
    forgotten are left alone, since nobody knows any more which columns they saw.
    """
    keep_merges_out(connection)
    connection.execute(_MEMORY_FOR_KEYS)
    bounds = {"since": window.since, "until": window.until}
    counts = MergeCounts(0, 0, 0, 0)
    for fetched_columns, runs in connection.execute(_RUNS_BY_COLUMNS, bounds).all():
        statement = _merge_statement(tuple(fetched_columns))
        row = connection.execute(statement, {"run_id": run_id, "runs": runs, **bounds}).one()
        counts += MergeCounts(*row)
    return counts


@cache
def _merge_statement(fetched_columns: tuple[str, ...]) -> TextClause:
    """Return the merge for runs that saw these columns, all of them out of the catalogue."""
    columns = [column for column in USER_COLUMNS if column in fetched_columns]
    statement = _MERGE.format(
        window=_WINDOW,
        columns=", ".join(columns),
        raw_columns=_qualified("raw", columns),
        is_changed=_is_changed(columns),
        assignments=_assignments(columns),
        flaw=_flaw(columns),
    )
    return text(statement)


def _is_changed(columns: Sequence[str]) -> str:
    return f"""(raw.system_modstamp > stored.system_modstamp OR (
            raw.system_modstamp = stored.system_modstamp
            AND ({_qualified("raw", columns)}) IS DISTINCT FROM ({_qualified("stored", columns)})
        )) IS TRUE"""


def _assignments(columns: Sequence[str]) -> str:
    assignments = [f"{column} = raw.{column}" for column in columns if column != "id"]
    if "is_active" in columns:
        assignments.append(
            "deactivated_at = CASE WHEN NOT raw.is_active THEN coalesce(stored.deactivated_at, now()) END"
        )
    return ", ".join(assignments)


def _flaw(columns: Collection[str]) -> str:
    """Return the expression for `flaw`: the first constraint of `sf_users` that a row would break."""
    cases = ["WHEN raw.id !~ '^[A-Za-z0-9]{15}[A-Z0-5]{3}$' THEN 'Id is not an 18-character Salesforce id'"]
    for field in USER_FIELDS:
        if field.required and field.column in columns:
            cases.append(f"WHEN raw.{field.column} IS NULL THEN '{field.name} is missing'")
        elif field.required:
            cases.append(f"WHEN stored.id IS NULL THEN '{field.name} is hidden from us and the user is new'")
    objects = {field.column: field.name for field in USER_FIELDS if field.kind is Kind.ADDRESS}
    for column, name in {**objects, CUSTOM_FIELDS_COLUMN: CUSTOM_FIELDS_COLUMN}.items():
        cases.append(f"WHEN jsonb_typeof(raw.{column}) <> 'object' THEN '{name} is not a JSON object'")
    return f"CASE {' '.join(cases)} END"


def _qualified(table: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{table}.{column}" for column in columns)
