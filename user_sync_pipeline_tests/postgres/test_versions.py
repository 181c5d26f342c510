"""The same on every PostgreSQL that is found: the wheel's, and those that this machine has besides it.

Whatever speaks SQL is run here once on each version, and who may read what in both kinds of Supabase projects; the
other modules go into depth on the wheel's version alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine, text

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.profiles.reconcile import find_findings, sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.migration_scripts import applied_migrations, migrations_in
from user_sync_pipeline.core.warehouse.migrations import apply_migrations, migrations_applied
from user_sync_pipeline.core.warehouse.tables import Relation, read_arrow, replace_rows
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import prepare_supabase
from user_sync_pipeline_tests.conftest import ROLE_PASSWORD, role_url
from user_sync_pipeline_tests.postgres.accounts import add_user, profile_ids
from user_sync_pipeline_tests.postgres.users import (
    DAY_ZERO,
    EVERYTHING,
    ORG,
    batch_of,
    begin,
    day,
    days,
    merge,
    query,
    stored_users,
    sync,
    user,
    user_id,
)

pytestmark = pytest.mark.slow

# Where Debian, the PostgreSQL project's packages for Fedora and its kin, and Homebrew put a server.
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
OTHERS = sorted(folder for place in _PLACES for folder in Path("/").glob(place) if (folder / "initdb").exists())
API_ROLES = ("anon", "authenticated", "service_role")
PRIVATE_TABLES = (
    "public.sf_users",
    "user_sync.salesforce_users_raw",
    "user_sync.sync_runs",
    "user_sync.watermarks",
    "user_sync.checkpoints",
    "user_sync.rejected_records",
    "user_sync.profile_reconciliation",
)


def major_version(folder: Path) -> str:
    return "".join(filter(str.isdigit, folder.parent.name))


@pytest.fixture(scope="module", params=[None, *OTHERS], ids=["wheel", *map(major_version, OTHERS)])
def server(
    request: pytest.FixtureRequest, server_folder: Path, postgres_server: PostgresServer
) -> Iterator[PostgresServer]:
    if request.param is None:
        yield postgres_server
        return
    folder = server_folder / f"postgres-{major_version(request.param)}"
    server = PostgresServer(folder, password=secrets.token_hex(), programs=request.param)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=[False, True], ids=["new grants", "legacy grants"])
def database(request: pytest.FixtureRequest, server: PostgresServer) -> str:
    """Name of a migrated Supabase database."""
    name = f"version_{'legacy' if request.param else 'new'}"
    prepare_supabase(
        server,
        name,
        legacy_default_grants=request.param,
        postgres_password=ROLE_PASSWORD,
        authenticator_password=ROLE_PASSWORD,
        auth_admin_password=ROLE_PASSWORD,
    )
    url = role_url(server, name)
    apply_migrations(database_url=url, profiles_url=url)
    return name


@pytest.fixture
def url(server: PostgresServer, database: str) -> str:
    return role_url(server, database)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine on that database, with the tables of the pipeline empty."""
    engine = create_database_engine(url)
    with engine.begin() as connection:
        tables = ", ".join((*PRIVATE_TABLES, "public.user_profiles"))
        connection.execute(text(f"TRUNCATE {tables}"))
        connection.execute(text("DELETE FROM auth.users"))
    yield engine
    engine.dispose()


def test_another_version_than_the_wheels_is_tried_as_well() -> None:
    if not OTHERS:
        places = ", ".join(f"/{place}" for place in _PLACES)
        pytest.skip(f"no other PostgreSQL was found in {places}; install one, 15 or later, to try it")


def test_users_are_landed_merged_and_entered_in_the_ledger(engine: Engine) -> None:
    counts = sync(engine, user(1, address='{"city": "Bern"}'), user(2), window=days(None, 10))
    assert (counts.inserted, counts.updated, counts.unchanged) == (2, 0, 0)

    run_id = begin(engine, days(1, 10))
    landing = Landing(engine, run_id, days(1, 10))
    landing.plan([(days(1, 10), 2)])
    rejected = [RejectedValue(user_id(2), "Title", "too long", row_stored=True)]
    landing.append(batch_of(user(1, 1, address='{"city": "Bern"}'), user(2, 5, is_active=False)), rejected)
    landing.go_back_to_checkpoints()
    landing.finish_slice(0)
    landing.finish(limited=False)
    counts = merge(engine, run_id, days(1, 10))
    assert (counts.inserted, counts.updated, counts.unchanged) == (0, 1, 1)

    with engine.begin() as connection:
        for vouched in (
            {"run_id": run_id, "read_until": day(10), "covered_until": day(9), "held_reason": "open"},
            {
                "run_id": begin(engine, days(None, 10)),
                "read_until": day(10),
                "covered_until": day(8),
                "held_reason": None,
            },
        ):
            ledger.record_landing(connection, fetched=2, rejected=0, api_calls=1, **vouched)
            ledger.advance_watermark(connection, vouched["run_id"])
        ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
        assert ledger.read_watermark(connection, ORG) == day(8)
        assert ledger.newest_landed_run(connection, EVERYTHING) is not None
    first, second = stored_users(engine, "is_active, deactivated_at, address, created_date")
    assert (first["is_active"], first["address"], first["created_date"]) == (True, {"city": "Bern"}, DAY_ZERO)
    assert second["deactivated_at"] is not None
    [run] = query(engine, "SELECT outcome, updated FROM user_sync.sync_runs WHERE run_id = :run_id", run_id=run_id)
    assert run == {"outcome": "complete", "updated": 1}


def test_profiles_are_counted_created_and_compared(engine: Engine) -> None:
    with_profile, without = add_user(engine, "a@example.com", profile=True), add_user(engine, "b@example.com")
    sync(engine, user(1, email="a@example.com", is_active=False))
    directory = SqlDirectory(engine)
    assert (directory.status().total_auth_users, directory.status().missing_profiles) == (2, 1)
    assert sync_profiles(directory).profiles_created == 1
    assert profile_ids(engine) == {with_profile, without}
    with engine.begin() as connection:
        found = find_findings(directory, connection)
        replace_rows(connection, Relation("user_sync", "profile_reconciliation"), found)
    assert ("inactive_in_salesforce_can_sign_in", str(with_profile)) in {
        (row["finding"], row["auth_user_id"]) for row in found.to_pylist()
    }


def test_what_was_landed_can_be_read_as_arrow(engine: Engine, url: str) -> None:
    sync(engine, user(1), user(2))
    raw = Relation("user_sync", "salesforce_users_raw")
    assert read_arrow(url, raw).read_all().sort_by("id")["id"].to_pylist() == [user_id(1), user_id(2)]


@pytest.mark.parametrize("role", API_ROLES)
def test_no_role_of_the_api_gets_at_what_is_private(server: PostgresServer, database: str, role: str) -> None:
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        for action, table in product(("SELECT FROM", "DELETE FROM", "TRUNCATE"), PRIVATE_TABLES):
            statement = f"{action} {table}"
            with pytest.raises(InsufficientPrivilege), connection.transaction():
                connection.execute(statement.encode())


@pytest.mark.parametrize("table", ["public.sf_users", "public.user_profiles"])
def test_row_level_security_holds_even_where_somebody_grants_too_much(
    server: PostgresServer, database: str, engine: Engine, table: str
) -> None:
    sync(engine, user(1))
    add_user(engine, "a@example.com", profile=True)
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(f"GRANT ALL ON {table} TO anon, authenticated".encode())
        assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (1,)
        for role in ("anon", "authenticated"):
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
            connection.execute("RESET ROLE")
        connection.rollback()


def test_a_user_sees_the_own_profile_and_the_service_key_all_of_them(
    server: PostgresServer, database: str, engine: Engine
) -> None:
    mine, _ = add_user(engine, "a@example.com", profile=True), add_user(engine, "b@example.com", profile=True)
    with psycopg.connect(server.url(database)) as connection:
        for role, expected in (("authenticated", 1), ("service_role", 2)):
            claims = f'{{"role": "{role}", "sub": "{mine}"}}'
            connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            assert connection.execute("SELECT count(*) FROM public.user_profiles").fetchone() == (expected,)
            connection.execute("RESET ROLE")
        connection.rollback()


# The last one, for it takes the tables away and brings them back.
def test_both_sides_go_down_and_come_up_again(engine: Engine, url: str) -> None:
    migrations = migrations_in(shipped_path("sql/migrations"))
    with engine.begin() as connection:
        assert applied_migrations(connection, migrations) == migrations
        for migration in reversed(migrations):
            migration.run("down", connection)
        connection.execute(text("DELETE FROM user_sync.alembic_version"))
        left = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'app_private')"))
    assert left == 0
    assert migrations_applied(url) == ()
    names = tuple(migration.name for migration in migrations)
    assert apply_migrations(database_url=url, profiles_url=url).applied == names
