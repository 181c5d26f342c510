"""A plain Postgres database with the Salesforce side applied, empty at the start of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import create_database, patient, role_url, supabase_on
from user_sync_pipeline_tests.postgres.users import clear_tables

DATABASE = "warehouse"


@pytest.fixture(scope="session")
def warehouse_url(postgres_server: PostgresServer) -> str:
    create_database(postgres_server, DATABASE)
    url = patient(postgres_server.url(DATABASE))
    apply_migrations(database_url=url, profiles_url=None)
    return url


@pytest.fixture(scope="session")
def warehouse_engine(warehouse_url: str) -> Iterator[Engine]:
    engine = create_database_engine(warehouse_url)
    yield engine
    engine.dispose()


@pytest.fixture
def warehouse(warehouse_engine: Engine) -> Engine:
    clear_tables(warehouse_engine)
    return warehouse_engine


# Both sides in one database, as on a Supabase project of one's own -------------------------------------------------

_PROFILES_TABLES = (
    "auth.users",
    "public.user_profiles",
    "public.sf_users",
    "app_private.profile_failures",
    "user_sync.profile_links",
    "user_sync.profile_images",
    "user_sync.profile_runs",
)


@pytest.fixture(scope="session")
def profiles_engine(postgres_server: PostgresServer, make_supabase_database: Callable[..., str]) -> Iterator[Engine]:
    url = role_url(postgres_server, make_supabase_database())
    apply_migrations(database_url=url, profiles_url=url)
    engine = create_database_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def profiles(profiles_engine: Engine) -> Engine:
    """A migrated project without anybody, for tests that leave its tables as they are."""
    with profiles_engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(_PROFILES_TABLES)} CASCADE"))
    return profiles_engine


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# The same over HTTP ------------------------------------------------------------------------------------------------

_WITHOUT_FUNCTIONS = """
    ALTER FUNCTION public.profile_sync_report() RENAME TO profile_sync_report_away;
    ALTER FUNCTION public.profile_backfill(integer, uuid, uuid) RENAME TO profile_backfill_away;
    ALTER FUNCTION public.profile_undo(uuid, integer, uuid) RENAME TO profile_undo_away;
"""
_WITH_FUNCTIONS = """
    ALTER FUNCTION public.profile_sync_report_away() RENAME TO profile_sync_report;
    ALTER FUNCTION public.profile_backfill_away(integer, uuid, uuid) RENAME TO profile_backfill;
    ALTER FUNCTION public.profile_undo_away(uuid, integer, uuid) RENAME TO profile_undo;
"""


@pytest.fixture(scope="session")
def _profiles_door(
    postgres_server: PostgresServer, profiles_engine: Engine, authority: CertificateAuthority
) -> Iterator[SupabaseDirectory]:
    database = profiles_engine.url.database or ""
    with (
        supabase_on(postgres_server, database, authority) as project,
        SupabaseDirectory(project.url, project.keys.secret_key, ca_bundle=str(authority.ca_file)) as directory,
    ):
        yield directory


@pytest.fixture
def rpc_door(profiles: Engine, _profiles_door: SupabaseDirectory) -> SupabaseDirectory:
    """The Supabase door to `profiles`."""
    return _profiles_door


@pytest.fixture
def api_door(profiles: Engine, _profiles_door: SupabaseDirectory) -> Iterator[SupabaseDirectory]:
    """The Supabase door to `profiles` where our functions are not installed, so that only the pages are left."""
    with profiles.begin() as connection:
        connection.execute(text(_WITHOUT_FUNCTIONS))
    yield _profiles_door
    with profiles.begin() as connection:
        connection.execute(text(_WITH_FUNCTIONS))
