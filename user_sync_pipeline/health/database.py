"""Whether the database of the pipeline answers and holds its tables.

What belongs here: the one question, and which failure is which cause. What does not: figures about users (`users.py`).
"""

from __future__ import annotations

from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UnreachableError, UserSyncError
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.health.report import Cause, Report

_HAS_TABLES = text(
    "SELECT to_regclass('public.sf_users') IS NOT NULL AND to_regclass('user_sync.sync_runs') IS NOT NULL"
)
# A statement, and the wait for a lock, that took longer than they may.
_TOOK_TOO_LONG = ("57014", "55P03")


def examine_database(engine: Engine) -> Report:
    """Ask for the tables of the pipeline."""
    try:
        with database_errors(), engine.connect() as connection:
            return Report() if connection.scalar(_HAS_TABLES) else Report("tables_missing")
    except UserSyncError as error:
        return Report(cause_of(error))


def cause_of(error: UserSyncError) -> Cause:
    """Return the word for a failure of the database."""
    if not isinstance(error, UnreachableError):
        return "database_refused"
    state = getattr(getattr(error.__cause__, "orig", error.__cause__), "sqlstate", None)
    return "database_slow" if state in _TOOK_TOO_LONG else "database_unreachable"
