"""The plain SQL files of `sql/migrations` as Alembic scripts.

What belongs here: reading file names, and running one file in one transaction, or printing it as one.
What does not: which side goes to which database (`migrations.py`).

A file goes to the server together with its COMMIT, in one message: what it locks is free again before an answer has
come back, however far away the server is.

Alembic keeps the record in `user_sync.alembic_version` of each database. The revision of a file is its number, and
each side is a branch of its own, labelled with the name of the side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psycopg
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.warehouse.copying import driver_connection

SCHEMA = "user_sync"
# A migration that waits for a lock makes everybody behind it wait too, sign-ins included: it gives up at once, to be
# tried again.
_LOCK_TIMEOUT = "25ms"
# Who pastes a script tries again by hand.
_LOCK_TIMEOUT_OF_A_SCRIPT = "500ms"
_CREATE_RECORD = f"""\
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.alembic_version (
    version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
);
"""


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

    def statements(self, kind: str) -> str:
        """Return the text of the `up` file, or of its `down` or `off` file."""
        return self._path(kind).read_text(encoding="utf-8")

    def run(self, kind: str, connection: Connection) -> None:
        """Run the `up`, `down` or `off` file and commit it, with what the transaction of `connection` did before.

        Raises `ConfigurationError`; of the driver's errors only those go through that `database_errors` explains.
        """
        driver = driver_connection(connection)
        try:
            # Without parameters psycopg sends the text as it stands: several statements, and % is itself.
            driver.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';\n{self.statements(kind)}\nCOMMIT;".encode())
        except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):
            raise
        except psycopg.Error as error:
            hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
            raise ConfigurationError(
                f"sql/migrations/{self._path(kind).name} cannot be applied: {error.diag.message_primary}{hint}; "
                "nothing of it was kept, and the database is as before."
            ) from error

    def script(self, kind: str) -> str:
        """Return the file as a transaction of its own for a SQL console, which keeps the same record."""
        record = {
            "up": f"INSERT INTO {SCHEMA}.alembic_version VALUES ('{self.revision}') ON CONFLICT DO NOTHING;\n",
            "down": f"DELETE FROM {SCHEMA}.alembic_version WHERE version_num = '{self.revision}';\n",
        }.get(kind, "")
        return (
            f"BEGIN;\nSET LOCAL lock_timeout = '{_LOCK_TIMEOUT_OF_A_SCRIPT}';  -- gives up soon; run it again then\n\n"
            f"{_CREATE_RECORD if record else ''}{record}\n{self.statements(kind)}\nCOMMIT;\n"
        )

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}.sql"


def migrations_in(folder: Path) -> tuple[Migration, ...]:
    """Return the migrations of a folder, in order."""
    return tuple(Migration(path.name.removesuffix(".up.sql"), folder) for path in sorted(folder.glob("*.up.sql")))


def upgrade(connection: Connection, migrations: Sequence[Migration], side: str) -> None:
    """Bring one side to its newest version, one committed transaction a file; none may be open before."""
    scripts = _PlainSqlScripts(migrations)

    def steps(heads: str, _context: MigrationContext) -> list[RevisionStep]:
        return scripts._upgrade_revs(f"{side}@head", heads)

    def run(*, step: MigrationInfo, **_of_alembic: object) -> None:
        # After the record is written, so that this commits both.
        next(migration for migration in migrations if migration.revision == step.up_revision_id).run("up", connection)

    context = _context(connection, fn=steps, script=scripts, transaction_per_migration=True, on_version_apply=(run,))
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
                upgrade=_write_the_record_only,
            )
            newest[migration.side] = migration.revision
            yield Script(module, migration.revision, migration.folder / f"{migration.name}.up.sql")


def _write_the_record_only(**_: object) -> None:
    """Alembic calls this before it writes the record of a migration, which is too early to commit."""


def _context(connection: Connection, **options: object) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA, **options})
