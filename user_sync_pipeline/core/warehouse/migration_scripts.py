"""The plain SQL files of `sql/migrations` as Alembic scripts.

What belongs here: reading file names, and running one file in one transaction.
What does not: which side goes to which database (`migrations.py`).

Alembic keeps the record in `user_sync.alembic_version` of each database. The revision of a file is its number, and
each side is a branch of its own, labelled with the name of the side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import psycopg
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.warehouse.copying import driver_connection

SCHEMA = "user_sync"
# A migration that waits for a lock makes everybody behind it wait too: it gives up soon, to be tried again.
_SET_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"


@dataclass(frozen=True, slots=True)
class Migration:
    """One pair of files; `name` is, for example, `0001_salesforce_side`."""

    name: str
    folder: Path

    @property
    def revision(self) -> str:
        """The number in front."""
        return self.name.split("_")[0]

    @property
    def side(self) -> str:
        """`salesforce` or `profiles`, the second word."""
        return self.name.split("_")[1]

    def run(self, direction: str, connection: Connection) -> None:
        """Run the `up` or `down` file in the transaction of `connection`; raises `ConfigurationError`."""
        path = self.folder / f"{self.name}.{direction}.sql"
        driver = driver_connection(connection)
        driver.execute(_SET_LOCK_TIMEOUT)
        try:
            # Without parameters psycopg sends the text as it stands: several statements, and % is itself.
            driver.execute(path.read_bytes())
        except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):
            raise
        except psycopg.Error as error:
            raise ConfigurationError(
                f"sql/migrations/{path.name} cannot be applied: {error.diag.message_primary}; "
                "nothing of it was kept, and the database is as before."
            ) from error


def migrations_in(folder: Path) -> tuple[Migration, ...]:
    """Return the migrations of a folder, in order."""
    return tuple(Migration(path.name.removesuffix(".up.sql"), folder) for path in sorted(folder.glob("*.up.sql")))


def upgrade(connection: Connection, migrations: Sequence[Migration], side: str) -> None:
    """Bring one side to its newest version, one committed transaction a file; none may be open before."""
    scripts = _PlainSqlScripts(migrations)

    def steps(heads: str, _context: MigrationContext) -> list[RevisionStep]:
        return scripts._upgrade_revs(f"{side}@head", heads)

    context = _context(connection, fn=steps, script=scripts, transaction_per_migration=True)
    context.run_migrations(connection=connection)


def applied_migrations(connection: Connection, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """Return those of the migrations that the database holds.

    Raises `ConfigurationError` when it holds one that is none of them.
    """
    by_revision = {migration.revision: migration for migration in migrations}
    heads = _context(connection).get_current_heads()
    unknown = ", ".join(sorted(set(heads).difference(by_revision)))
    if unknown:
        raise ConfigurationError(
            f"The database holds migration {unknown}, which this version does not know; update user-sync-pipeline."
        )
    newest = {by_revision[head].side: head for head in heads}
    return tuple(migration for migration in migrations if migration.revision <= newest.get(migration.side, ""))


class _PlainSqlScripts(ScriptDirectory):
    """Finds its scripts in pairs of SQL files instead of Python modules."""

    def __init__(self, migrations: Sequence[Migration]) -> None:
        super().__init__(migrations[0].folder)
        self._migrations = migrations

    def _load_revisions(self) -> Iterator[Script]:
        newest: dict[str, str] = {}
        for migration in self._migrations:
            previous = newest.get(migration.side)
            module = ModuleType(migration.name)
            module.__dict__.update(
                revision=migration.revision,
                down_revision=previous,
                branch_labels=None if previous else migration.side,
                upgrade=partial(migration.run, "up"),
                downgrade=partial(migration.run, "down"),
            )
            newest[migration.side] = migration.revision
            yield Script(module, migration.revision, migration.folder / f"{migration.name}.up.sql")


def _context(connection: Connection, **options: object) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA, **options})
