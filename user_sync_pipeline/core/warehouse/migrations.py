"""Applies `sql/migrations`: the right files to the right database, patiently, and one process at a time.

What belongs here: the two sides and where each goes, waiting for locks, mending and taking away, the reports.
What does not: DDL of any kind, which a DBA can read and run without this package; nor whether something needs mending.

The `salesforce` side goes to the pipeline's own database, the `profiles` side to the one that holds
`auth.users`; that may be the same. Alembic is imported only when something is applied or asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.warehouse.database import (
    DEFAULT_SETTING,
    create_database_engine,
    database_errors,
    driver_error,
)

if TYPE_CHECKING:
    from user_sync_pipeline.core.warehouse.migration_scripts import Migration

PROFILES_SETTING = "SUPABASE_DB_URL"
SIDES = ("salesforce", "profiles")

# Each try waits for a lock for a moment only, and lets sign-ins through in between; about 12 seconds in all.
_TRIES = 50
_PAUSE_SECONDS = 0.2
_LOCK_FAILURES = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

# A lock of a transaction, not of a session: behind a pooler the next transaction may run in another session.
_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtextextended('user_sync migrations', 0))")
_CREATE_SCHEMA = text("CREATE SCHEMA IF NOT EXISTS user_sync")
_FORGET = text("DELETE FROM user_sync.alembic_version WHERE version_num = ANY (:revisions)")
_HAS_RECORD = text("SELECT to_regclass('user_sync.alembic_version') IS NOT NULL")
_HAS_PROFILES = text("SELECT to_regclass('public.user_profiles') IS NOT NULL")
_HAS_TRIGGER_FUNCTION = text("SELECT to_regproc('app_private.handle_new_auth_user') IS NOT NULL")
_HAS_AUTH_USERS = text("SELECT to_regclass('auth.users') IS NOT NULL")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A migration that was not applied, and why, in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """Names of migrations, such as `0001_salesforce_side`, in order: applied now, there before, left out."""

    applied: tuple[str, ...]
    present: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def migration_script(kind: str, sides: Sequence[str] = SIDES) -> str:
    """Return the `up`, `down` or `off` files of these sides as one script for a SQL console; connects to nothing."""
    return "\n".join(migration.script(kind) for migration in _shipped() if migration.side in sides)


def apply_migrations(*, database_url: str, profiles_url: str | None, sides: Sequence[str] = SIDES) -> MigrationReport:
    """Bring both sides, or one, to their newest version; without `profiles_url` both live in one database.

    Repeating it changes nothing, and two at once are harmless. A file is applied as a whole or not at all.
    Raises `ConfigurationError` and `UnreachableError`.
    """
    profiles_setting = DEFAULT_SETTING if profiles_url in (None, database_url) else PROFILES_SETTING
    present: list[str] = []
    applied: list[str] = []
    left_out: list[LeftOut] = []
    for side, url, setting in (
        ("salesforce", database_url, DEFAULT_SETTING),
        ("profiles", profiles_url or database_url, profiles_setting),
    ):
        if side not in sides:
            continue
        names = [migration.name for migration in _shipped() if migration.side == side]
        with _turn_taken(url, setting) as connection:
            if side == "profiles" and not connection.scalar(_HAS_AUTH_USERS):
                reason = f"{setting} has no auth.users; set {PROFILES_SETTING} to the address of the Supabase database."
                left_out.extend(LeftOut(name, reason) for name in names)
                continue
            before = _apply_side(connection, side)
        present.extend(name for name in names if name in before)
        applied.extend(name for name in names if name not in before)
    return MigrationReport(tuple(applied), tuple(present), tuple(left_out))


def migrations_applied(url: str, *, setting: str = DEFAULT_SETTING) -> tuple[str, ...]:
    """Return the names of the migrations that the database at `url` holds, in order."""
    with _connected(url, setting) as connection:
        return _names_applied(connection)


def mend_profiles(url: str, *, setting: str = PROFILES_SETTING) -> None:
    """Apply the profiles side once more: what was lost, switched off or closed since is as the migration made it."""
    with _turn_taken(url, setting) as connection:
        for migration in _profiles_side():
            _patiently(connection, partial(migration.run, "up", connection))


def switch_off_profiles(url: str, *, setting: str = PROFILES_SETTING) -> None:
    """Let sign-ups make no profile until the migration is applied again; locks no table.

    Raises `ConfigurationError` when there is nothing to switch off.
    """
    with _turn_taken(url, setting) as connection:
        _switch_off(connection, setting)


def remove_profiles(url: str, *, setting: str = PROFILES_SETTING) -> bool:
    """Take the profiles side away, and return whether the table of profiles is gone as well.

    It stays when it holds rows that the pipeline did not make. Sign-ups go on without it.
    Raises `ConfigurationError` when there is nothing to remove, and when something else depends on it.
    """
    with _turn_taken(url, setting) as connection:
        # Sign-ups that no longer touch the table cannot wait for it while we wait for them.
        _switch_off(connection, setting)
        for migration in reversed(_profiles_side()):
            _patiently(connection, partial(_take_away, connection, migration))
        return not connection.scalar(_HAS_PROFILES)


def _switch_off(connection: Connection, setting: str) -> None:
    if not connection.scalar(_HAS_TRIGGER_FUNCTION):
        raise ConfigurationError(f"{setting} leads to a database without the profiles side; there is nothing to undo.")
    for migration in _profiles_side():
        _patiently(connection, partial(migration.run, "off", connection))


def _take_away(connection: Connection, migration: Migration) -> None:
    if connection.scalar(_HAS_RECORD):
        connection.execute(_FORGET, {"revisions": [migration.revision]})
    migration.run("down", connection)


def _profiles_side() -> tuple[Migration, ...]:
    return tuple(migration for migration in _shipped() if migration.side == "profiles")


def _shipped() -> tuple[Migration, ...]:
    from user_sync_pipeline.core.warehouse.migration_scripts import migrations_in

    return migrations_in(shipped_path("sql/migrations"))


@contextmanager
def _connected(url: str, setting: str) -> Iterator[Connection]:
    engine = create_database_engine(url, setting=setting)
    try:
        with database_errors(setting), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _turn_taken(url: str, setting: str) -> Iterator[Connection]:
    """Connect when nobody else is changing the same database."""
    with _connected(url, setting) as connection, connection.engine.begin() as turn:
        turn.execute(_TAKE_TURNS)
        yield connection


def _names_applied(connection: Connection) -> tuple[str, ...]:
    from user_sync_pipeline.core.warehouse.migration_scripts import applied_migrations

    return tuple(migration.name for migration in applied_migrations(connection, _shipped()))


def _apply_side(connection: Connection, side: str) -> tuple[str, ...]:
    """Apply what is missing of a side, and return the names that were there before."""
    from user_sync_pipeline.core.warehouse.migration_scripts import upgrade

    logging.getLogger("alembic").setLevel(logging.WARNING)
    connection.execute(_CREATE_SCHEMA)
    before = _names_applied(connection)
    connection.commit()
    _patiently(connection, partial(upgrade, connection, _shipped(), side))
    return before


def _patiently(connection: Connection, change: Callable[[], None]) -> None:
    """Make a change, again and again while others hold what it has to lock."""
    for tries_left in reversed(range(_TRIES)):
        try:
            change()
            connection.commit()
            return
        except (DBAPIError, psycopg.Error) as error:
            connection.rollback()
            if not tries_left or not isinstance(driver_error(error), _LOCK_FAILURES):
                raise
            time.sleep(_PAUSE_SECONDS)
