"""Figures about the rows of one run, computed where they lie.

What belongs here: counts and the digest over what a run landed. What does not: judging them (`core/certificate.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Connection, text

from user_sync_pipeline.core.windows import SyncWindow

# A change moves a user forward only, so no row of the run lies before its window; some may lie behind.
# What a run has landed before it broke off may have been replaced within the window by runs that began later.
_OF_THE_RUN = """
    FROM user_sync.salesforce_users_raw
    WHERE (CAST(:since AS timestamptz) IS NULL OR system_modstamp >= :since)
      AND (sync_run_id = :run_id OR (system_modstamp < :until AND sync_run_id IN (
          SELECT later.run_id
          FROM user_sync.sync_runs AS own JOIN user_sync.sync_runs AS later ON later.started_at > own.started_at
          WHERE own.run_id = :run_id AND own.row_limit IS NULL AND later.landed_at IS NOT NULL
      )))
"""
# Written so that anybody can compute it from a list of ids and moments: one line a user, ordered byte by byte.
_USERS = text(f"""
    WITH users AS MATERIALIZED (
        SELECT DISTINCT ON (id COLLATE "C") id, system_modstamp, user_type, is_active {_OF_THE_RUN}
        ORDER BY id COLLATE "C", system_modstamp DESC
    ),
    listed AS (
        SELECT count(*) AS users, max(system_modstamp) FILTER (WHERE system_modstamp < :until) AS last_change,
               string_agg(
                   id || ' ' || to_char(system_modstamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   chr(10) ORDER BY id COLLATE "C"
               ) AS lines
        FROM users
    ),
    types AS (
        SELECT coalesce(user_type, '') AS user_type,
               jsonb_build_object(
                   'active', count(*) FILTER (WHERE is_active),
                   'inactive', count(*) FILTER (WHERE is_active IS NOT TRUE)
               ) AS counts
        FROM users GROUP BY 1
    )
    SELECT users, last_change, encode(sha256(convert_to(coalesce(lines, ''), 'UTF8')), 'hex') AS digest,
           (SELECT coalesce(jsonb_object_agg(user_type, counts), '{{}}') FROM types) AS types
    FROM listed
""")
_DAYS = text(f"""
    SELECT CAST(system_modstamp AT TIME ZONE 'UTC' AS date) AS day, count(*) AS rows {_OF_THE_RUN} GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class Census:
    """What a run landed, with the rows that later runs have put in the place of its own.

    `users` counts each once, by the newest of its versions. `digest` is the SHA-256, in hexadecimal, of one line a
    user, `<Id> <SystemModstamp>` as in `0055g000001AbCdAAK 2026-01-31T09:00:00.000Z`, ordered by Id and parted by
    line feeds. `users_by_type` is {UserType: {"active": …, "inactive": …}}. `last_change` is the newest SystemModstamp
    within the window. `rows_per_day` counts rows by their UTC day.
    """

    users: int
    digest: str
    users_by_type: dict[str, dict[str, int]]
    last_change: datetime | None
    rows_per_day: Counter[date]


def take_census(connection: Connection, run_id: UUID, window: SyncWindow) -> Census:
    """Count what the run has landed by now; `window` is what it was to read."""
    parameters = {"run_id": run_id, "since": window.since, "until": window.until}
    found = connection.execute(_USERS, parameters).one()
    days = connection.execute(_DAYS, parameters).all()
    return Census(
        found.users, found.digest, found.types, found.last_change, Counter({row.day: row.rows for row in days})
    )
