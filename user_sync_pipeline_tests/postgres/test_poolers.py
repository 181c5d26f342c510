"""The pipeline behind a real PgBouncer, in both modes in which people run one; and the sockets and TLS that it has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.profiles.reconcile import find_findings, sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine, database_errors
from user_sync_pipeline.core.warehouse.locks import one_run_at_a_time
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.core.warehouse.tables import Relation, read_arrow, replace_rows
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import SUPERUSER, PostgresServer
from user_sync_pipeline_tests.conftest import ROLE_PASSWORD
from user_sync_pipeline_tests.postgres.accounts import add_user
from user_sync_pipeline_tests.postgres.pgbouncer import MOST_CONNECTIONS, PROGRAM, PgBouncer
from user_sync_pipeline_tests.postgres.users import ORG, query, sync, user

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer was not found; install it to try a real pooler"),
]

RAW = Relation("user_sync", "salesforce_users_raw")
SETTINGS = "SELECT name, setting FROM pg_settings WHERE name ~ '^(TimeZone|.*_timeout)$' ORDER BY name"


def make_pooler(server: PostgresServer, folder: Path, authority: CertificateAuthority, **options: object) -> PgBouncer:
    password = make_url(server.url()).password
    passwords = {SUPERUSER: str(password), "postgres": ROLE_PASSWORD, "postgres.project": ROLE_PASSWORD}
    return PgBouncer(server, folder, authority, passwords=passwords, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["transaction", "session"])
def pooler(
    request: pytest.FixtureRequest,
    postgres_server: PostgresServer,
    server_folder: Path,
    authority: CertificateAuthority,
) -> Iterator[PgBouncer]:
    pooler = make_pooler(postgres_server, server_folder / f"pooler-{request.param}", authority, mode=request.param)
    pooler.start()
    yield pooler
    pooler.stop()


@pytest.fixture
def url(pooler: PgBouncer, supabase_database: str) -> str:
    """Address of a fresh Supabase database behind the pooler, as role postgres, before any migration."""
    return pooler.url(make_url(supabase_database).database or "", "postgres")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_database_engine(url)
    yield engine
    engine.dispose()


def test_everything_that_the_pipeline_does_works_behind_a_pooler(engine: Engine, url: str) -> None:
    assert len(apply_migrations(database_url=url, profiles_url=url).applied) == 2
    assert sync(engine, user(1, 1), user(2, 1)).inserted == 2
    assert sync(engine, user(1, 2), user(2, 1)).updated == 1
    assert read_arrow(url, RAW).read_all().num_rows == 2

    add_user(engine, "a@example.com")
    directory = SqlDirectory(engine)
    assert sync_profiles(directory).profiles_created == 1
    with engine.begin() as connection:
        replace_rows(connection, Relation("user_sync", "profile_reconciliation"), find_findings(directory, connection))
    assert query(engine, "SELECT finding FROM user_sync.profile_reconciliation") != []


def test_two_who_migrate_at_once_take_turns(url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: apply_migrations(database_url=url, profiles_url=url), range(2)))
    # They take turns side by side of the database, so each may have applied one of the two.
    assert sorted(name for report in reports for name in report.applied) == [
        "0001_salesforce_side",
        "0002_profiles_side",
    ]


def test_a_session_that_goes_to_somebody_else_keeps_nothing_of_ours(engine: Engine, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        before = other.execute(SETTINGS).fetchall()
        with engine.begin() as connection:
            ours = dict(connection.execute(text(SETTINGS)).all())
            session = connection.scalar(text("SELECT pg_backend_pid()"))
        after = other.execute(SETTINGS).fetchall()
        theirs = other.execute("SELECT pg_backend_pid()").fetchone()
    assert (ours["TimeZone"], ours["lock_timeout"], ours["statement_timeout"]) == ("UTC", "30000", "3600000")
    assert after == before
    with psycopg.connect(url, autocommit=True) as next_one:
        assert next_one.execute(SETTINGS).fetchall() == before
    assert theirs is not None
    assert session is not None


def test_our_settings_hold_in_every_transaction_whichever_session_serves_it(engine: Engine, url: str) -> None:
    seen = set()
    for others in range(4):
        # Open transactions of others keep sessions busy, so that ours moves on to another one.
        with psycopg.connect(url) as one, psycopg.connect(url) as two, engine.begin() as connection:
            for other in (one, two)[: others % 3]:
                other.execute("SELECT 1")
            settings = connection.execute(text("SELECT current_setting('lock_timeout'), current_setting('TimeZone')"))
            assert tuple(settings.one()) == ("30s", "UTC")
            seen.add(connection.scalar(text("SELECT pg_backend_pid()")))
    assert seen


def test_one_run_of_an_organisation_goes_on_at_a_time_whichever_session_serves_it(engine: Engine, url: str) -> None:
    other = create_database_engine(url)
    with one_run_at_a_time(engine, ORG, wait=timedelta(0)):
        for _ in range(3):
            with pytest.raises(UnreachableError, match="on its way"), one_run_at_a_time(other, ORG, wait=timedelta(0)):
                pytest.fail("two at once")
    with one_run_at_a_time(other, ORG, wait=timedelta(0)):
        pass
    other.dispose()


def test_reading_as_arrow_gets_along_with_others_on_the_same_sessions(engine: Engine, url: str) -> None:
    apply_migrations(database_url=url, profiles_url=url)
    sync(engine, *(user(number) for number in range(500)))
    until = time.monotonic() + 1

    def read(_number: int) -> set[int]:
        rows = set()
        while time.monotonic() < until:
            rows.add(read_arrow(url, RAW).read_all().num_rows)
        return rows

    def disturb() -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while time.monotonic() < until:
                connection.execute("SELECT %s::integer", [1])

    with ThreadPoolExecutor(5) as pool:
        disturbing = pool.submit(disturb)
        assert set().union(*pool.map(read, range(4))) == {500}
        disturbing.result()


def test_a_pooler_that_takes_no_options_of_a_session_is_said_to(pooler: PgBouncer) -> None:
    url = pooler.url("postgres", "postgres", options="-c search_path=public")
    engine = create_database_engine(url)
    with (
        pytest.raises(ConfigurationError, match="is a pooler that takes no options of a session"),
        database_errors(),
        engine.connect(),
    ):
        pass
    with pytest.raises(ConfigurationError, match="takes no options of a session"), database_errors():
        read_arrow(url, RAW)


def test_a_login_may_name_the_project_as_well(pooler: PgBouncer) -> None:
    engine = create_database_engine(pooler.url("tenant", "postgres.project"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "postgres"
    engine.dispose()


def test_a_login_that_the_pooler_does_not_know_is_refused(pooler: PgBouncer) -> None:
    url = make_url(pooler.url("postgres", "postgres")).set(username="stranger")
    with pytest.raises(ConfigurationError, match="refuses the user"), database_errors():
        create_database_engine(url.render_as_string(hide_password=False)).connect()


def test_a_full_pooler_takes_no_connection_now(pooler: PgBouncer) -> None:
    def connect_until_it_is_full(opened: ExitStack) -> None:
        with database_errors():
            for _ in range(MOST_CONNECTIONS + 1):
                engine = create_database_engine(pooler.url("postgres", "postgres"))
                opened.callback(engine.dispose)
                opened.enter_context(engine.connect())

    with ExitStack() as opened, pytest.raises(UnreachableError, match="takes no connection now"):
        connect_until_it_is_full(opened)


# Sockets, several hosts, TLS ------------------------------------------------------------------------------------------


def select_one(url: str) -> int:
    engine = create_database_engine(url)
    try:
        with database_errors(), engine.connect() as connection:
            answer: int = connection.scalar(text("SELECT 1"))
        with database_errors():
            assert read_arrow(url, Relation("pg_catalog", "pg_language")).read_all().num_rows > 0
        return answer
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "where",
    [
        "{encoded}:{port}/postgres",
        "/postgres?host={folder}&port={port}",
        "127.0.0.1:1,127.0.0.1:{port}/postgres?target_session_attrs=read-write",
        "[::1]:1,127.0.0.1:{port}/postgres",
        "/postgres?host=127.0.0.1:1&host=127.0.0.1:{port}",
        "/postgres?host=127.0.0.1,127.0.0.1&port=1,{port}",
    ],
    ids=["socket", "socket by option", "two hosts", "with IPv6", "as SQLAlchemy", "as libpq"],
)
def test_sockets_and_several_hosts_are_reached(pooler: PgBouncer, where: str) -> None:
    address = where.format(folder=pooler.folder, encoded=str(pooler.folder).replace("/", "%2F"), port=pooler.port)
    assert select_one(f"postgresql://postgres:{ROLE_PASSWORD}@{address}") == 1


def test_an_encrypted_connection_is_checked_as_the_address_asks(
    pooler: PgBouncer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    trusted = {"sslmode": "verify-full", "sslrootcert": str(authority.ca_file)}
    assert select_one(pooler.url("postgres", "postgres", sslmode="require")) == 1
    assert select_one(pooler.url("postgres", "postgres", **trusted)) == 1
    strange = CertificateAuthority(tmp_path)
    for query_ in (
        {"sslmode": "verify-full", "sslrootcert": str(strange.ca_file)},
        {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "missing.pem")},
    ):
        with pytest.raises(ConfigurationError, match="check sslmode and the certificates it needs"):
            select_one(pooler.url("postgres", "postgres", **query_))
