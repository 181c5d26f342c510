"""The SQL door: auth users and profiles through a database connection that sees both.

What belongs here: running the named queries and reading what Postgres refuses. What does not: the queries
themselves (`sql/queries`), and connection failures, which the caller puts into words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, Engine, Result, TextClause, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles.directory import (
    CHANGED_SINCE,
    DEFAULT_ROLE,
    Account,
    Creation,
    Kept,
    ProfileImage,
    RowsRefusedError,
    Undone,
    create_in_halves,
    is_about_rows,
    refusal_reason,
)
from user_sync_pipeline.core.profiles.report import ProfileFailure, ProfileStatus

# Users a transaction, and rows a fetch: few enough that a sync never holds anything for long.
SLICE = 10_000

_BEFORE_ALL = UUID(int=0)

# Two syncs at once take turns, slice by slice; the functions of migration 0002 wait for the same lock.
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

    def create_missing(self, run_id: UUID | None = None) -> Generator[Creation]:
        """Create the profiles that are missing now, one transaction a slice."""
        with self._stream("missing_profiles") as result:
            for missing in result.scalars().partitions(SLICE):
                with self._turn() as connection:
                    creation = _create(connection, run_id, DEFAULT_ROLE, missing)
                yield creation
        self._clear_healed_failures()

    def create_profile(self, user_id: UUID, *, role: str, run_id: UUID | None = None) -> Creation:
        """Create one profile, in a transaction of its own."""
        with self._turn() as connection:
            creation = _create(connection, run_id, role, [user_id])
        self._clear_healed_failures()
        return creation

    def account(self, user_id: UUID) -> Account | None:
        """Look one user up."""
        with self._engine.connect() as connection:
            row = connection.execute(_query("account"), {"user_id": user_id}).one_or_none()
        return None if row is None else Account._make(row)

    def refresh_mirrored(
        self,
        *,
        dry_run: bool,
        journal: Callable[[Sequence[ProfileImage]], None] | None = None,
        refused: Callable[[ProfileFailure], None] | None = None,
    ) -> int:
        """Bring e-mail and phone of existing profiles up to date, one transaction a slice."""
        refreshed = 0
        with self._stream("stale_profiles") as result:
            for stale in result.scalars().partitions(SLICE):
                done = Creation(created=len(stale)) if dry_run else self._refresh(stale, journal)
                refreshed += done.created
                if refused is not None:
                    for failure in done.failures:
                        refused(failure)
        return refreshed

    def undo(self, run_id: UUID, images: Iterator[ProfileImage]) -> Undone:
        """Remove what the run made, then restore what it refreshed, one transaction a slice."""
        undone, last = Undone(), _BEFORE_ALL
        while True:
            arguments = {"run_id": run_id, "max_rows": SLICE, "after_user_id": last}
            with self._engine.begin() as connection:
                answer = connection.execute(_query("undo_created_profiles"), arguments).scalar_one()
            kept = tuple(Kept(UUID(profile["user_id"]), profile["reason"]) for profile in answer["kept"])
            undone += Undone(removed=answer["removed"], kept=kept)
            if answer["examined"] < SLICE:
                break
            last = UUID(answer["last_user_id"])
        while batch := list(islice(images, SLICE)):
            with self._turn() as connection:
                undone += _restore_in_halves(connection, batch)
        return undone

    def accounts(self) -> Generator[Account]:
        """Stream users and profiles from a server-side cursor."""
        with self._stream("directory_accounts") as result:
            for row in result:
                yield Account._make(row)

    def close(self) -> None:
        """Nothing to close: the engine is the caller's."""

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        """Open a transaction that nobody else works on profiles beside."""
        with self._engine.begin() as connection:
            connection.execute(_TAKE_TURNS)
            yield connection

    def _refresh(self, user_ids: Sequence[UUID], journal: Callable[[Sequence[ProfileImage]], None] | None) -> Creation:
        with self._turn() as connection:
            rows = connection.execute(_query("profile_images"), {"user_ids": list(user_ids)})
            images = [ProfileImage(*row) for row in rows]
            if not images:
                return Creation()
            if journal is not None:
                journal(images)
            return create_in_halves(images, partial(_refresh, connection), attrgetter("user_id"))

    def _clear_healed_failures(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(_query("clear_healed_failures"))

    @contextmanager
    def _stream(self, query: str) -> Iterator[Result[Any]]:
        """Run a named query through a server-side cursor that fetches `SLICE` rows at a time."""
        with self._engine.connect() as connection:
            # All rows will be read, so the plan is to be made for all of them.
            connection.execute(text("SET LOCAL cursor_tuple_fraction = 1"))
            with connection.execute(_query(query), execution_options={"yield_per": SLICE}) as result:
                yield result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def readable_tables(engine: Engine) -> frozenset[str]:
    """Return which of `auth.users` and `public.user_profiles` the engine's role can really read."""
    with engine.connect() as connection:
        return frozenset(connection.scalars(_query("profile_doors")))


def _create(connection: Connection, run_id: UUID | None, role: str, user_ids: Sequence[UUID]) -> Creation:
    arguments = {"user_ids": list(user_ids), "run_id": run_id, "role": role}
    answer = connection.execute(_query("create_missing_profiles"), arguments).scalar_one()
    failures = (
        ProfileFailure(
            UUID(failure["user_id"]),
            refusal_reason(failure["sqlstate"], constraint=failure["constraint"], column=failure["column"]),
        )
        for failure in answer["failures"]
    )
    return Creation(answer["created"], answer["vanished"], tuple(failures))


def _refresh(connection: Connection, images: Sequence[ProfileImage]) -> int:
    with _refusals(connection):
        return connection.execute(_query("refresh_profiles"), {"images": _as_json(images)}).rowcount


def _restore_in_halves(connection: Connection, images: Sequence[ProfileImage]) -> Undone:
    """Restore these profiles, and where one of them cannot be stored the others nevertheless."""
    try:
        with _refusals(connection):
            restored = set(connection.scalars(_query("restore_profiles"), {"images": _as_json(images)}))
    except RowsRefusedError as refused:
        if len(images) == 1:
            return Undone(kept=(Kept(images[0].user_id, refused.reason),))
        middle = len(images) // 2
        return _restore_in_halves(connection, images[:middle]) + _restore_in_halves(connection, images[middle:])
    others = [image for image in images if image.user_id not in restored]
    changed = connection.scalars(_query("changed_profiles"), {"images": _as_json(others)}) if others else ()
    return Undone(restored=len(restored), kept=tuple(Kept(user_id, CHANGED_SINCE) for user_id in changed))


def _as_json(images: Sequence[ProfileImage]) -> str:
    return json.dumps([{**asdict(image), "user_id": str(image.user_id)} for image in images])


@contextmanager
def _refusals(connection: Connection) -> Iterator[None]:
    """Take back what is done in here when rows are refused, and raise `RowsRefusedError` then."""
    try:
        with connection.begin_nested():
            yield
    except DBAPIError as error:
        cause: Any = error.orig
        if not is_about_rows(cause.sqlstate):
            raise
        raise RowsRefusedError(
            cause.sqlstate, constraint=cause.diag.constraint_name, column=cause.diag.column_name
        ) from error


def _query(name: str) -> TextClause:
    return text(named_query(name))
