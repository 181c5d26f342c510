"""Locks among processes: one run of an organisation at a time, and no merge while rows give way to newer ones.

What belongs here: taking them, and waiting for them a bounded time.
What does not: what is done under them (`core/user_sync.py`, `landing.py`, `merge.py`).

All are advisory locks of a transaction: they end with it whatever becomes of the process, and a pooler that hands
each transaction to another session does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.windows import format_moment

SECONDS_BETWEEN_TRIES = 1.0
# A merge of millions of users takes minutes, and no page is worth reading again for that.
LONGEST_WAIT_FOR_MERGE = "15min"

_TRY = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
# Null where this role may not see the sessions of another one.
_HELD_SINCE = text("""
    SELECT min(session.xact_start)
    FROM pg_locks AS held JOIN pg_stat_activity AS session USING (pid)
    WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
      AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (CAST(held.classid AS bigint) << 32 | CAST(held.objid AS bigint)) = hashtextextended(:name, 0)
""")
# A machine that vanishes ends no connection: without this the server would ask for it after two hours only.
_NOTICE_A_DEAD_PATH = text("""
    SELECT set_config('tcp_keepalives_idle', '60', true), set_config('tcp_keepalives_interval', '10', true),
           set_config('tcp_keepalives_count', '6', true)
""")
_MERGE_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('public.sf_users', 0))")
_LOCK_TIMEOUT = text("SELECT current_setting('lock_timeout')")
_SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :timeout, true)")


@contextmanager
def one_run_at_a_time(
    engine: Engine, org_id: str, *, wait: timedelta, tell: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keep other runs of the organisation out, after waiting for the one that is on its way.

    `tell` is told in a sentence when there is one. Raises `UnreachableError` when it has not ended within `wait`.
    The connection that keeps them out may be lost on the way: others may come in then, the rows of a run stay its own,
    and the landing notices when somebody has gone on with it (`landing.py`).
    """
    name = f"user_sync organisation {org_id}"
    last_try = time.monotonic() + wait.total_seconds()
    with engine.connect() as connection:
        while not connection.scalar(_TRY, {"name": name}):
            since: datetime | None = connection.scalar(_HELD_SINCE, {"name": name})
            # Whoever waits holds nothing, not even a transaction.
            connection.rollback()
            when = f" since {format_moment(since)}" if since else ""
            other = f"Another run of this organisation is on its way{when}"
            left = last_try - time.monotonic()
            if left <= 0:
                raise UnreachableError(f"{other}; run again when it has ended.")
            if tell is not None:
                tell(f"{other}; waiting for its end, at most {wait}.")
                tell = None
            time.sleep(min(SECONDS_BETWEEN_TRIES, left))
        connection.execute(_NOTICE_A_DEAD_PATH)
        yield
        with suppress(DBAPIError):
            connection.rollback()


def keep_merges_out(connection: Connection) -> None:
    """Wait until no other transaction merges or replaces landed rows, and keep them from it until this one ends.

    Two merges at once would both insert the same new user, and rows that are replaced between two statements of a
    merge would be missing in it.
    """
    before: str = connection.execute(_LOCK_TIMEOUT).scalar_one()
    connection.execute(_SET_LOCK_TIMEOUT, {"timeout": LONGEST_WAIT_FOR_MERGE})
    connection.execute(_MERGE_LOCK)
    connection.execute(_SET_LOCK_TIMEOUT, {"timeout": before})
