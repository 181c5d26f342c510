"""Forgetting: landed rows, runs, rejects and images of profiles that are older than the settings keep them.

What belongs here: what may go, and doing it in small bites. What does not: how long things are kept
(`core/settings.py`).

A landed row may go once `sf_users` holds that version or a newer one; the only copy of an answer never does. A run
stays as long as rows of it lie in the landing table or the watermark refers to it, and so does the newest that landed.
"""

from __future__ import annotations

import logging
import time
from uuid import UUID

from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.settings import Retention

# Each bite is a transaction of its own; what is left when the time is over goes on another day.
ROWS_IN_A_BITE = 10_000
SECONDS_A_DAY = 10.0

_IS_FIRST_OF_THE_DAY = text("""
    SELECT NOT EXISTS (
        SELECT FROM user_sync.sync_runs
        WHERE outcome = 'complete' AND finished_at >= date_trunc('day', now(), 'UTC') AND run_id <> :run_id
    )
""")
_WAIT_FOR_NOBODY = text("SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '30s', true)")
# A run that has broken off is judged by what has landed since it began (`census.py`), so that stays.
_FORGET_LANDED_ROWS = text("""
    DELETE FROM user_sync.salesforce_users_raw WHERE ctid = ANY (ARRAY (
        SELECT raw.ctid
        FROM user_sync.salesforce_users_raw AS raw
        JOIN public.sf_users AS stored ON stored.id = raw.id
        LEFT JOIN user_sync.sync_runs AS run ON run.run_id = raw.sync_run_id
        WHERE raw.landed_at < least(now() - make_interval(days => :days), (
                SELECT min(broken_off.started_at) FROM user_sync.sync_runs AS broken_off
                WHERE broken_off.started_at > now() - interval '30 days'
                  AND EXISTS (SELECT FROM user_sync.checkpoints AS reached WHERE reached.run_id = broken_off.run_id)
            ))
          AND (stored.system_modstamp > raw.system_modstamp
               OR (stored.system_modstamp = raw.system_modstamp AND run.outcome = 'complete'))
        LIMIT :rows
    ))
""")
_FORGET_RUNS = text("""
    DELETE FROM user_sync.sync_runs WHERE run_id IN (
        SELECT run.run_id
        FROM user_sync.sync_runs AS run
        WHERE coalesce(run.finished_at, run.started_at) < now() - make_interval(days => :days)
          AND NOT EXISTS (SELECT FROM user_sync.salesforce_users_raw AS raw WHERE raw.sync_run_id = run.run_id)
          AND NOT EXISTS (SELECT FROM user_sync.watermarks AS stored WHERE stored.run_id = run.run_id)
          AND run.run_id IS DISTINCT FROM (
              SELECT newest.run_id FROM user_sync.sync_runs AS newest
              WHERE newest.landed_at IS NOT NULL ORDER BY newest.started_at DESC LIMIT 1
          )
        LIMIT :rows
        FOR UPDATE SKIP LOCKED
    )
""")
_FORGET_REJECTS = text("""
    DELETE FROM user_sync.rejected_records WHERE rejected_record_id IN (
        SELECT note.rejected_record_id FROM user_sync.rejected_records AS note
        WHERE note.noted_at < now() - make_interval(days => :days)
        LIMIT :rows
        FOR UPDATE SKIP LOCKED
    )
""")
_FORGET_IMAGES = text("""
    DELETE FROM user_sync.profile_images WHERE ctid = ANY (ARRAY (
        SELECT image.ctid FROM user_sync.profile_images AS image
        WHERE image.noted_at < now() - make_interval(days => :days)
        LIMIT :rows
    ))
""")
_FORGET_PROFILE_RUNS = text("""
    DELETE FROM user_sync.profile_runs WHERE run_id IN (
        SELECT run.run_id FROM user_sync.profile_runs AS run
        WHERE coalesce(run.finished_at, run.started_at) < now() - make_interval(days => :days)
          AND NOT EXISTS (SELECT FROM user_sync.profile_images AS image WHERE image.run_id = run.run_id)
        LIMIT :rows
        FOR UPDATE SKIP LOCKED
    )
""")


def forget_what_is_old(engine: Engine, retention: Retention, run_id: UUID) -> None:
    """Remove what is older than `retention`, after the first run that ends well on a UTC day: `run_id`, maybe.

    Takes seconds at most, waits for nobody, and never fails: a database that refuses is tried again the next day.
    """
    try:
        with engine.begin() as connection:
            if not connection.execute(_IS_FIRST_OF_THE_DAY, {"run_id": run_id}).scalar_one():
                return
        _forget(
            engine,
            (_FORGET_LANDED_ROWS, retention.raw_days),
            (_FORGET_REJECTS, retention.run_days),
            (_FORGET_RUNS, retention.run_days),
            (_FORGET_IMAGES, retention.run_days),
            (_FORGET_PROFILE_RUNS, retention.run_days),
        )
    except DBAPIError as error:
        reason = getattr(error.orig, "sqlstate", None) or "no connection"
        logging.getLogger(__name__).warning("What is old could not be removed today (%s); the run is complete.", reason)


def forget_old_profile_runs(engine: Engine, retention: Retention) -> None:
    """Remove profile syncs older than `retention`, where nobody runs anything but these; raises as a statement does."""
    _forget(engine, (_FORGET_IMAGES, retention.run_days), (_FORGET_PROFILE_RUNS, retention.run_days))


def _forget(engine: Engine, *statements: tuple[TextClause, int | None]) -> None:
    end = time.monotonic() + SECONDS_A_DAY
    for statement, days in statements:
        rows = ROWS_IN_A_BITE
        while days is not None and rows == ROWS_IN_A_BITE and time.monotonic() < end:
            with engine.begin() as connection:
                connection.execute(_WAIT_FOR_NOBODY)
                rows = connection.execute(statement, {"days": days, "rows": ROWS_IN_A_BITE}).rowcount
