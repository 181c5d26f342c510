"""The SQL door: auth users and profiles through a database connection that sees both.

What belongs here: running the named queries and reading what Postgres refuses. What does not: the queries
themselves (`sql/queries`), and connection failures, which the caller puts into words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, Engine, Result, TextClause, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles.directory import (
    Account,
    Creation,
    RowsRefusedError,
    create_in_halves,
    is_about_rows,
)
from user_sync_pipeline.core.profiles.report import ProfileStatus

# Users a transaction, and rows a fetch: few enough that a sync never holds anything for long.
SLICE = 10_000

# Two syncs at once take turns, slice by slice; the function profile_backfill waits for the same lock.
_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtextextended('user_sync_pipeline.profiles', 0))")


class SqlDirectory(AbstractContextManager["SqlDirectory"]):
    """Reads and writes with the rights of the engine's role; exact at any size. Leaves the engine open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def status(self) -> ProfileStatus:
        """Count users and profiles in one statement."""
        with self._engine.connect() as connection:
            figures = connection.execute(_query("profile_status")).mappings().one()
        return ProfileStatus(**figures, method="sql", exactness="exact")

    def create_missing(self) -> Iterator[Creation]:
        """Create the profiles that are missing now, one transaction a slice."""
        with self._stream("missing_profiles") as result:
            for missing in result.scalars().partitions(SLICE):
                with self._engine.begin() as connection:
                    connection.execute(_TAKE_TURNS)
                    creation = create_in_halves(missing, partial(_create, connection), lambda user_id: user_id)
                yield creation

    def refresh_mirrored(self, *, dry_run: bool) -> int:
        """Bring e-mail and phone of existing profiles up to date in one statement."""
        with self._engine.begin() as connection:
            return int(connection.scalar(_query("refresh_profiles"), {"dry_run": dry_run}) or 0)

    def accounts(self) -> Iterator[Account]:
        """Stream users and profiles from a server-side cursor."""
        with self._stream("directory_accounts") as result:
            for row in result:
                yield Account._make(row)

    def close(self) -> None:
        """Nothing to close: the engine is the caller's."""

    @contextmanager
    def _stream(self, query: str) -> Iterator[Result[Any]]:
        """Run a named query through a server-side cursor that fetches `SLICE` rows at a time."""
        with self._engine.connect() as connection:
            # All rows will be read, so the plan is to be made for all of them.
            connection.execute(text("SET LOCAL cursor_tuple_fraction = 1"))
            yield connection.execute(_query(query), execution_options={"yield_per": SLICE})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def readable_tables(engine: Engine) -> frozenset[str]:
    """Return which of `auth.users` and `public.user_profiles` the engine's role can really read."""
    with engine.connect() as connection:
        return frozenset(connection.scalars(_query("profile_doors")))


def _create(connection: Connection, user_ids: Sequence[UUID]) -> int:
    try:
        with connection.begin_nested():
            return int(connection.scalar(_query("create_missing_profiles"), {"user_ids": list(user_ids)}) or 0)
    except DBAPIError as error:
        cause: Any = error.orig
        if not is_about_rows(cause.sqlstate):
            raise
        raise RowsRefusedError(
            cause.sqlstate, constraint=cause.diag.constraint_name, column=cause.diag.column_name
        ) from error


def _query(name: str) -> TextClause:
    return text(named_query(name))
