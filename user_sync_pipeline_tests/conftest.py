"""Servers that the tests share: one Postgres for the whole run, a fresh database for each test.

Everything here is real: PostgreSQL from the wheel, HTTP over TLS. Imports stay inside the fixtures, so that
a test that needs no server starts at once.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from user_sync_pipeline.sandbox.certificates import CertificateAuthority
    from user_sync_pipeline.sandbox.postgres import PostgresServer
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
    from user_sync_pipeline.sandbox.supabase import SupabaseSimulator

# The moment before which all sample people were last changed.
ORG_MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
FEW_PEOPLE = 60
ROLE_PASSWORD = "password-of-the-test-roles"
# A folder in memory, as Linux has it; a container may leave it a few megabytes only.
MEMORY, ROOM = Path("/dev/shm"), 2 << 30  # noqa: S108

# Where little is stored, DELETE takes a tenth of the time of TRUNCATE, which makes each file of each index anew.
FORGET_EVERYTHING = """
    DELETE FROM public.sf_users;
    DELETE FROM user_sync.salesforce_users_raw;
    DELETE FROM user_sync.watermarks;
    DELETE FROM user_sync.sync_runs;
    DELETE FROM user_sync.profile_reconciliation;
"""

_SETTINGS = ("SALESFORCE_", "SUPABASE_", "USER_SYNC_", "DAGSTER_")
_database_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", metavar="FOLDER", help="Where the test of the browser leaves what it has seen.")


def pytest_configure() -> None:
    """Let programs that the tests start be interrupted, also where these run in the background of a script."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what has been loaded by now: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings never reach a test."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)


# Nothing but reading ---------------------------------------------------------------------------------------------


class _Violations(logging.Handler):
    """Collects what the journals of all Salesforce simulators of this process warn of."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="session")
def _violations() -> Iterator[_Violations]:
    log = logging.getLogger("user_sync_pipeline.sandbox.salesforce.journal")
    violations = _Violations()
    log.addHandler(violations)
    yield violations
    log.removeHandler(violations)
    assert violations.messages == []
    assert not log.disabled


@pytest.fixture(autouse=True)
def violations(_violations: _Violations) -> Iterator[list[str]]:
    """Requests to Salesforce that went beyond reading, one line each.

    They fail the test, whichever simulator they went to. A test that sends some on purpose takes them out of the list.
    """
    yield _violations.messages
    sent = _violations.messages.copy()
    _violations.messages.clear()
    assert sent == []


def assert_only_read(standard_error: str) -> None:
    """Fail when a program that ran a Salesforce simulator has told of a request that went beyond reading."""
    from user_sync_pipeline.sandbox.salesforce.journal import BEYOND_READING

    assert [line for line in standard_error.splitlines() if BEYOND_READING in line] == []


# Servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the account of Postgres can reach, also when the tests run as root; in memory where there is room.

    A database per test is many small files: a disk takes ten times as long to make them, and at times stands still.
    """
    folder = Path(tempfile.mkdtemp(prefix="user-sync-tests-", dir=MEMORY if _has_room(MEMORY) else None))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    """Tell whether files can be made in the folder, gigabytes of them, and programs can be run from it."""
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return False
    found = os.statvfs(folder)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM


@pytest.fixture(scope="session")
def authority(server_folder: Path) -> CertificateAuthority:
    from user_sync_pipeline.sandbox.certificates import CertificateAuthority

    return CertificateAuthority(server_folder / "certificates")


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[PostgresServer]:
    from user_sync_pipeline.sandbox.postgres import PostgresServer

    server = PostgresServer(server_folder / "postgres", password=secrets.token_hex())
    server.start()
    yield server
    server.stop()


def run_as_superuser(server: PostgresServer, statement: str) -> None:
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement.encode())


def create_database(server: PostgresServer, name: str, *, template: str = "template1", owner: str = "") -> None:
    """Make a database; copying its files takes a fifth of the time that writing each page takes."""
    owned = f"OWNER {owner}" if owner else ""
    run_as_superuser(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY {owned}")


def drop_database(server: PostgresServer, name: str) -> None:
    """Remove a database, ending the sessions in it."""
    run_as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a plain, empty database, as its superuser."""
    name = f"empty_{next(_database_numbers)}"
    create_database(postgres_server, name)
    yield patient(postgres_server.url(name))
    drop_database(postgres_server, name)


@pytest.fixture(scope="session")
def make_supabase_database(postgres_server: PostgresServer) -> Callable[..., str]:
    """Make a database with the roles, schema and grants of Supabase; returns its name."""
    from user_sync_pipeline.sandbox.supabase import prepare_supabase

    def make(*, legacy_default_grants: bool = False) -> str:
        name = f"supabase_{next(_database_numbers)}"
        create_database(postgres_server, name)
        prepare_supabase(
            postgres_server,
            name,
            legacy_default_grants=legacy_default_grants,
            postgres_password=ROLE_PASSWORD,
            authenticator_password=ROLE_PASSWORD,
            auth_admin_password=ROLE_PASSWORD,
        )
        return name

    return make


@pytest.fixture(scope="session")
def supabase_template(make_supabase_database: Callable[..., str]) -> str:
    return make_supabase_database()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer, make_supabase_database: Callable[..., str]) -> str:
    from user_sync_pipeline.core.warehouse.migrations import apply_migrations

    name = make_supabase_database()
    url = role_url(postgres_server, name)
    apply_migrations(database_url=url, profiles_url=url)
    return name


def role_url(server: PostgresServer, database: str, role: str = "postgres") -> str:
    return patient(server.url(database, role=role, password=ROLE_PASSWORD))


def patient(url: str) -> str:
    """Return an address whose connections wait for a minute: the machine of the tests may stand still for a while."""
    return f"{url}?connect_timeout=60"


def supabase_on(server: PostgresServer, database: str, authority: CertificateAuthority) -> SupabaseSimulator:
    """Return the HTTP side of a database that `make_supabase_database` made; use it in a `with` statement."""
    from user_sync_pipeline.sandbox.supabase import SupabaseSimulator

    return SupabaseSimulator(
        server,
        database,
        authority,
        authenticator_password=ROLE_PASSWORD,
        auth_admin_password=ROLE_PASSWORD,
    )


def _copy(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"{template}_{next(_database_numbers)}"
    create_database(server, name, template=template, owner="postgres")
    yield role_url(server, name)
    drop_database(server, name)


@pytest.fixture
def supabase_database(postgres_server: PostgresServer, supabase_template: str) -> Iterator[str]:
    """Address of a fresh Supabase database, as role postgres, before any migration."""
    yield from _copy(postgres_server, supabase_template)


@pytest.fixture
def migrated_database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """Address of a fresh Supabase database, as role postgres, with both migrations applied."""
    yield from _copy(postgres_server, migrated_template)


@pytest.fixture
def engine(migrated_database: str) -> Iterator[Engine]:
    """An engine of the pipeline on a fresh, migrated database."""
    from user_sync_pipeline.core.warehouse.database import create_database_engine

    engine = create_database_engine(migrated_database)
    yield engine
    engine.dispose()


@pytest.fixture
def salesforce(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A running Salesforce with a few users, all last changed before `ORG_MADE_AT`."""
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
    from user_sync_pipeline.sandbox.sample_people import people

    with SalesforceSimulator(people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT), authority) as simulator:
        yield simulator
