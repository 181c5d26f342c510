"""Whether the tables of users can be relied on: who was left out, how far is read, what is there twice, what is gone.

What belongs here: figures about the tables as they are. What does not: judging them (`checks/`), and what one run
has landed (`landed_run.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_FIELDS, Kind

_TYPES = {Kind.BOOLEAN: "boolean", Kind.TIMESTAMP: "timestamp with time zone", Kind.ADDRESS: "jsonb"}
_OF_USERS = {field.column: _TYPES.get(field.kind, "text") for field in USER_FIELDS} | {CUSTOM_FIELDS_COLUMN: "jsonb"}
_OWN = {
    "user_sync.salesforce_users_raw": {"sync_run_id": "uuid", "landed_at": "timestamp with time zone"},
    "public.sf_users": {
        "first_seen_at": "timestamp with time zone",
        "synced_at": "timestamp with time zone",
        "deactivated_at": "timestamp with time zone",
        "sync_run_id": "uuid",
    },
}
_MOST_CALLS = text("""
    SELECT max(api_calls) FROM user_sync.sync_runs
    WHERE landed_at IS NOT NULL AND row_limit IS NULL AND started_at > now() - CAST(:period AS interval)
""")


@dataclass(frozen=True, slots=True)
class Rejection:
    """How many users could not be stored for one reason; `salesforce_ids` are at most ten of them."""

    field: str
    reason: str
    users: int
    salesforce_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WatermarkAge:
    """Where the watermark stands by the clock of the database.

    `held_reason` is of the run that moved it last. `stuck`: a later run ended well and did not move it, because of a
    `gap` between the watermark and its first day, or else because it read fewer users than Salesforce counts.
    `newest_outcome` is that of the run that was started last.
    """

    watermark: datetime
    age: timedelta
    held_reason: str | None
    stuck: bool
    gap: bool
    newest_outcome: str


@dataclass(frozen=True, slots=True)
class SharedExternalIds:
    """How many external ids belong to several users, and to how many; `salesforce_ids` are at most ten of them."""

    external_ids: int
    users: int
    salesforce_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangedColumn:
    """A column of `relation` that is not as the migrations made it; `found` is its type now, None when it is gone."""

    relation: str
    column: str
    made_as: str
    found: str | None


def rejected_users(connection: Connection) -> list[Rejection]:
    """Return who was left out and has not been stored since, the most frequent reason first."""
    rows = connection.execute(text(named_query("rejected_users")))
    return [Rejection(row.field, row.reason, row.users, tuple(row.salesforce_ids or ())) for row in rows]


def watermark_age(connection: Connection) -> WatermarkAge | None:
    """Return how old the watermark is; None before the first full run."""
    row = connection.execute(text(named_query("watermark_age"))).one_or_none()
    return WatermarkAge(*row) if row else None


def shared_external_ids(connection: Connection) -> SharedExternalIds:
    """Return the external ids that more than one user bears."""
    row = connection.execute(text(named_query("duplicate_external_ids"))).one()
    return SharedExternalIds(row.external_ids, row.users, tuple(row.salesforce_ids))


def changed_columns(connection: Connection) -> list[ChangedColumn]:
    """Return the columns of the two tables of users that are gone or of another type; further ones do no harm."""
    rows = connection.execute(text(named_query("table_columns")))
    found = {(row.relation, row.name): row.type for row in rows}
    return [
        ChangedColumn(relation, column, made_as, found.get((relation, column)))
        for relation, own in _OWN.items()
        for column, made_as in (_OF_USERS | own).items()
        if found.get((relation, column)) != made_as
    ]


def most_api_calls(connection: Connection, period: timedelta) -> int | None:
    """Return how many requests the dearest run took that has landed within `period`; None when none has."""
    calls: int | None = connection.scalar(_MOST_CALLS, {"period": period})
    return calls
