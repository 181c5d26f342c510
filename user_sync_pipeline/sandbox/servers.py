"""All servers of the sandbox, started and stopped as one: Postgres, Salesforce and Supabase.

What belongs here: the order of starting, what a kept folder remembers, and the settings that point here.
What does not: the servers themselves, each in its own module.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import psycopg

from user_sync_pipeline.core.errors import ConfigurationError, UsageError
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.faults import FaultScript
from user_sync_pipeline.sandbox.sample_people import Person, people
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator, load_auth_users, prepare_supabase

DEFAULT_USERS = 5000
DATABASE, MIGRATION_ROLE = "postgres", "postgres"
DAGSTER_DATABASE = "dagster"
HORIZON = timedelta(days=90)

_MEMORY = "sandbox.json"
# Empty counts as not set: a value from the person's own environment must not mix with the sandbox's.
_LEFT_EMPTY = (
    "SALESFORCE_AUDIENCE",
    "SALESFORCE_USERNAME",
    "SALESFORCE_PASSWORD",
    "SALESFORCE_SECURITY_TOKEN",
    "SALESFORCE_PRIVATE_KEY",
    "SALESFORCE_PRIVATE_KEY_FILE",
    "SALESFORCE_ACCESS_TOKEN",
    "SALESFORCE_INSTANCE_URL",
    "SALESFORCE_API_VERSION",
    "SALESFORCE_PROXY",
    "SALESFORCE_PAGE_SIZE",
    "SALESFORCE_TRANSPORT",
    "SALESFORCE_EXTRA_FIELDS",
    "SALESFORCE_API_BUDGET_PER_RUN",
    "SALESFORCE_API_RESERVE_PERCENT",
)


class _Memory(msgspec.Struct):
    """What makes a kept sandbox come back as the same one; `created_at` is in UTC."""

    users: int
    created_at: datetime
    seed: int = msgspec.field(default_factory=lambda: secrets.randbelow(2**32))
    superuser_password: str = msgspec.field(default_factory=secrets.token_urlsafe)
    migration_role_password: str = msgspec.field(default_factory=secrets.token_urlsafe)
    authenticator_password: str = msgspec.field(default_factory=secrets.token_urlsafe)
    auth_admin_password: str = msgspec.field(default_factory=secrets.token_urlsafe)
    client_id: str = msgspec.field(default_factory=lambda: f"3MVG9{secrets.token_hex(40)}")
    client_secret: str = msgspec.field(default_factory=lambda: secrets.token_hex(32).upper())

    @property
    def people_until(self) -> datetime:
        """Everybody was last changed before the day on which the sandbox was made."""
        return self.created_at.replace(hour=0, minute=0, second=0, microsecond=0)


class Sandbox:
    """An invented company on this machine: its Salesforce, its Supabase and the Postgres behind it.

    `folder` keeps everything for the next time, else a temporary one is removed at the end. `users` is None for
    as many as the folder has, or 5,000; `faults` befall what Salesforce answers. Use it in a `with` statement, or call
    `start` and `stop`.
    """

    def __init__(
        self,
        users: int | None = None,
        *,
        folder: Path | None = None,
        legacy_default_grants: bool = False,
        faults: FaultScript | None = None,
    ) -> None:
        self._asked_users = users
        self._asked_folder = folder
        self._legacy_default_grants = legacy_default_grants
        self._faults = faults
        self._running = ExitStack()

    def start(self) -> Self:
        """Return when all servers answer, in a few seconds.

        Raises `UsageError` for a folder that is no sandbox, is in use or has another number of users.
        """
        with ExitStack() as undoing, ExitStack() as starting:
            self.folder = self._open_folder(starting, undoing)
            self._memory = self._remember(starting)
            authority = CertificateAuthority(self.folder / "certificates")
            self.postgres = PostgresServer(
                self.folder / "postgres",
                password=self._memory.superuser_password,
                durable=self._asked_folder is not None,
            )
            with ThreadPoolExecutor(max_workers=1) as beside:
                server = beside.submit(self._start_postgres, starting)
                self.people = people(self.users, seed=self._memory.seed, until=self._memory.people_until)
                self.salesforce = self._salesforce(self.people, authority)
                starting.enter_context(self.salesforce)
                server.result()
            self._prepare_databases()
            self.supabase = SupabaseSimulator(
                self.postgres,
                DATABASE,
                authority,
                authenticator_password=self._memory.authenticator_password,
                auth_admin_password=self._memory.auth_admin_password,
            )
            starting.enter_context(self.supabase)
            self._running = starting.pop_all()
            undoing.pop_all()
        return self

    def stop(self) -> None:
        """Stop every server; a temporary folder is removed."""
        with undisturbed():
            self._running.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def users(self) -> int:
        """How many Salesforce users there are."""
        return self._memory.users

    @property
    def database_url(self) -> str:
        """Address of the database, as the role that owns migrations."""
        return self._url(DATABASE)

    @property
    def environment(self) -> dict[str, str]:
        """Every setting of the pipeline, pointing here; those that it does without are empty."""
        return {
            "USER_SYNC_DATABASE_URL": self.database_url,
            "USER_SYNC_HORIZON": (self._memory.created_at - HORIZON).date().isoformat(),
            "USER_SYNC_ENVIRONMENT": "development",
            **dict.fromkeys(_LEFT_EMPTY, ""),
            **self.salesforce.environment(),
            "SUPABASE_DB_URL": self.database_url,
            **self.supabase.environment(),
            "DAGSTER_POSTGRES_URL": self._url(DAGSTER_DATABASE).replace("postgresql:", "postgresql+psycopg2:", 1),
        }

    def _url(self, database: str) -> str:
        return self.postgres.url(database, role=MIGRATION_ROLE, password=self._memory.migration_role_password)

    def _open_folder(self, starting: ExitStack, undoing: ExitStack) -> Path:
        if self._asked_folder is None:
            folder = Path(tempfile.mkdtemp(prefix="user-sync-sandbox-"))
            starting.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = self._asked_folder.resolve()
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder} is not a folder; choose a new or empty one.")
            if folder.is_dir() and any(folder.iterdir()) and not (folder / _MEMORY).exists():
                raise UsageError(f"{folder} holds files that no sandbox made; choose a new or empty folder.")
            try:
                if not folder.exists():
                    folder.mkdir(parents=True)
                    undoing.callback(shutil.rmtree, folder, ignore_errors=True)
            except OSError as error:
                raise UsageError(f"{folder} cannot be made ({error.strerror}); choose another folder.") from error
        if os.geteuid() == 0:
            folder.chmod(folder.stat().st_mode | 0o011)  # Postgres runs under another account and has to get through
        return folder

    def _remember(self, starting: ExitStack) -> _Memory:
        """Read what the folder remembers, or write it for a new one; the file is locked while servers run."""
        path = self.folder / _MEMORY
        try:
            file = starting.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.folder} is used by a sandbox that is running; stop that one or choose another folder."
            ) from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
        text = file.read()
        if not text:
            memory = _Memory(users=self._asked_users or DEFAULT_USERS, created_at=datetime.now(UTC))
            file.write(msgspec.json.format(msgspec.json.encode(memory), indent=2))
            file.flush()
            return memory
        try:
            memory = msgspec.json.decode(text, type=_Memory)
        except msgspec.DecodeError:
            raise ConfigurationError(f"{path} cannot be read; remove {self.folder} and start anew.") from None
        if self._asked_users not in (None, memory.users):
            raise UsageError(
                f"{self.folder} was made with {memory.users:,} users, not {self._asked_users:,}; "
                "leave the number of users out or choose another folder."
            )
        return memory

    def _start_postgres(self, starting: ExitStack) -> None:
        self.postgres.start()
        starting.callback(self.postgres.stop)

    def _salesforce(self, employees: list[Person], authority: CertificateAuthority) -> SalesforceSimulator:
        return SalesforceSimulator(
            employees,
            authority,
            seed=self._memory.seed,
            client_id=self._memory.client_id,
            client_secret=self._memory.client_secret,
            faults=self._faults,
        )

    def _prepare_databases(self) -> None:
        prepare_supabase(
            self.postgres,
            DATABASE,
            legacy_default_grants=self._legacy_default_grants,
            postgres_password=self._memory.migration_role_password,
            authenticator_password=self._memory.authenticator_password,
            auth_admin_password=self._memory.auth_admin_password,
        )
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DAGSTER_DATABASE,)).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DAGSTER_DATABASE} OWNER {MIGRATION_ROLE}".encode())
        # A start that was cut short may have left everything but the users.
        with psycopg.connect(self.postgres.url(DATABASE)) as connection:
            has_users = connection.execute("SELECT FROM auth.users LIMIT 1").fetchone() is not None
        if not has_users:
            load_auth_users(self.postgres.url(DATABASE), self.people)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not cut short what the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
