"""What can be said of a run that has landed before its rows are merged: how much was read, which fields, which values.

What belongs here: figures out of the ledger, the landing table and `sf_users`.
What does not: judging them (`checks/`), and the rows and digest of the certificate (`census.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from user_sync_pipeline.core.certificate import Certificate
from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_FIELDS

_REQUIRED = {field.column for field in USER_FIELDS if field.required}
_NAMES = {field.column: field.name for field in USER_FIELDS} | {CUSTOM_FIELDS_COLUMN: CUSTOM_FIELDS_COLUMN}


@dataclass(frozen=True, slots=True)
class LandedRun:
    """A run without a limit whose rows have landed, merged or not.

    `since` is None when it was open to the past. `fields` are the API names that it read to the end, `fields_before`
    those of the last complete run over all days before it (of the last complete one where there is none over all
    days; None for the first run). `lost_fields` vanished while it was reading. `values_cleaned` counts values that
    were stored other than they came.
    """

    run_id: UUID
    since: datetime | None
    read_until: datetime
    covered_until: datetime
    held_reason: str | None
    certificate: Certificate
    fields: tuple[str, ...]
    fields_before: tuple[str, ...] | None
    lost_fields: tuple[str, ...]
    columns: tuple[str, ...]
    values_cleaned: int

    @property
    def held_back(self) -> timedelta:
        """How far the moment up to which Salesforce vouches lies before the one up to which was read."""
        return max(self.read_until - self.covered_until, timedelta())

    @property
    def fields_no_longer_read(self) -> tuple[str, ...]:
        """The fields that were read before and are not any more."""
        missing = set(self.fields_before or ()) - set(self.fields)
        return tuple(sorted(missing | set(self.lost_fields)))

    @property
    def fields_newly_read(self) -> tuple[str, ...]:
        """The fields that were not read before."""
        return () if self.fields_before is None else tuple(sorted(set(self.fields) - set(self.fields_before)))


@dataclass(frozen=True, slots=True)
class ColumnFill:
    """How many users of `sf_users` have a value in one column, before and after the merge of a run.

    `erased` had one and would have none; `name` is that of the field in Salesforce.
    """

    column: str
    name: str
    users: int
    values: int
    users_after: int
    values_after: int
    erased: int

    @property
    def null_percent(self) -> float:
        """The part of all users without a value, as a percentage; 0 without users."""
        return _percentage(self.users - self.values, self.users)

    @property
    def null_percent_after(self) -> float:
        """The same after the merge."""
        return _percentage(self.users_after - self.values_after, self.users_after)

    @property
    def erased_percent(self) -> float:
        """The part of the stored values that the merge would erase, as a percentage."""
        return _percentage(self.erased, self.values)

    @property
    def nulls_added(self) -> int:
        """How many more users without a value there would be."""
        return (self.users_after - self.values_after) - (self.users - self.values)


def newest_landing(connection: Connection, started_by: str | None = None) -> LandedRun | None:
    """Return the newest run without a limit that has landed, one that was `started_by` this one before all others."""
    row = connection.execute(text(named_query("newest_landing")), {"started_by": started_by}).one_or_none()
    if row is None:
        return None
    return LandedRun(
        row.run_id,
        row.since,
        row.read_until,
        row.covered_until,
        row.held_reason,
        Certificate.from_json(row.certificate),
        tuple(row.selected_fields),
        None if row.fields_before is None else tuple(row.fields_before),
        tuple(row.lost_fields),
        tuple(row.fetched_columns),
        row.values_cleaned,
    )


def count_values(connection: Connection, run: LandedRun) -> list[ColumnFill]:
    """Count the values of each column that the run has read and that may be empty; nothing when it changes no user.

    Once the run is merged, before and after are the same. A user whom the run has read twice counts twice in it.
    """
    columns = tuple(column for column in _NAMES if column in run.columns and column not in _REQUIRED)
    landed = connection.execute(_landed_values(columns), {"run_id": run.run_id, "since": run.since}).mappings().one()
    if not columns or not landed["users"]:
        return []
    stored = connection.execute(_stored_values(columns)).mappings().one()
    return [
        ColumnFill(
            column,
            _NAMES[column],
            users=stored["users"],
            values=stored[column],
            users_after=stored["users"] + landed["new_users"],
            values_after=stored[column] + landed[f"{column}_landed"] - landed[f"{column}_replaced"],
            erased=landed[f"{column}_erased"],
        )
        for column in columns
    ]


# A window of days is found by the index on SystemModstamp; a change moves a user forward only, so that no row of a run
# lies before its window.
@cache
def _landed_values(columns: tuple[str, ...]) -> TextClause:
    counts = [
        f"count(raw.{column}) AS {column}_landed, count(stored.{column}) AS {column}_replaced, "
        f"count(stored.{column}) FILTER (WHERE raw.{column} IS NULL) AS {column}_erased"
        for column in columns
    ]
    return text(f"""
        SELECT {", ".join(["count(*) AS users", "count(*) - count(stored.id) AS new_users", *counts])}
        FROM user_sync.salesforce_users_raw AS raw
        LEFT JOIN public.sf_users AS stored ON stored.id = raw.id
        WHERE raw.sync_run_id = :run_id
          AND raw.system_modstamp >= coalesce(CAST(:since AS timestamptz), '-infinity')
          AND (stored.id IS NULL OR raw.system_modstamp >= stored.system_modstamp)
    """)


@cache
def _stored_values(columns: tuple[str, ...]) -> TextClause:
    counts = ", ".join(["count(*) AS users", *(f"count({column}) AS {column}" for column in columns)])
    return text(f"SELECT {counts} FROM public.sf_users")


def _percentage(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
