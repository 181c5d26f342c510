"""Each thing that can be wrong with the pipeline's own database and with Dagster's, one a test."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.doctor import checks, database
from user_sync_pipeline.core.doctor.examination import examine
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import ROLE_PASSWORD
from user_sync_pipeline_tests.core.doctor.conftest import finding
from user_sync_pipeline_tests.health.scripted_webserver import ScriptedWebserver
from user_sync_pipeline_tests.postgres import pgbouncer
from user_sync_pipeline_tests.postgres.pgbouncer import PgBouncer

DATABASE = "database"
Change = Callable[[str], None]


def test_a_wrong_password(with_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", re.sub(r":[^:@/]+@", ":wrong@", with_database))
    examination = examine()
    assert finding(DATABASE, "connection", examination).state == "broken"
    assert examination.exit_code == 3


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", "mysql://somebody:secret@host/database")
    examination = examine()
    assert finding(DATABASE, "settings", examination).state == "broken"
    assert "secret" not in str(examination.as_json())


@pytest.mark.parametrize(("oldest", "newest", "state"), [(99, 99, "broken"), (1, 2, "warning")])
def test_a_server_of_another_version(
    with_database: str, monkeypatch: pytest.MonkeyPatch, oldest: int, newest: int, state: str
) -> None:
    monkeypatch.setattr(database, "OLDEST_VERSION", oldest)
    monkeypatch.setattr(database, "NEWEST_VERSION", newest)
    assert finding(DATABASE, "connection").state == state


def test_a_clock_that_is_off(with_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "now", lambda: checks.now() - timedelta(minutes=5))
    found = finding(DATABASE, "clock")
    assert found.state == "warning"
    assert "ahead of" in found.detail


def test_no_migration(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", empty_database)
    examination = examine()
    found = finding(DATABASE, "migrations", examination)
    assert (found.state, found.mend) == ("broken", "Type: user-sync migrate apply")
    assert finding("profiles", "door", examination).state == "not configured"


def test_a_table_that_is_closed_to_us(damaged_database: Change) -> None:
    damaged_database("ALTER TABLE user_sync.watermarks OWNER TO supabase_admin")
    found = finding(DATABASE, "rights")
    assert found.state == "broken"
    assert "user_sync.watermarks" in found.detail


def test_row_level_security_that_is_off(damaged_database: Change) -> None:
    damaged_database("ALTER TABLE sf_users DISABLE ROW LEVEL SECURITY")
    found = finding(DATABASE, "row level security")
    assert found.state == "warning"
    damaged_database(found.mend.removeprefix("Run: "))
    assert finding(DATABASE, "row level security").state == "ok"


def test_users_who_are_open_to_the_api(damaged_database: Change) -> None:
    damaged_database("GRANT SELECT ON sf_users TO authenticated")
    found = finding(DATABASE, "grants")
    assert (found.state, found.detail) == ("broken", "the API can reach public.sf_users")
    damaged_database(found.mend.removeprefix("Run: "))
    assert finding(DATABASE, "grants").state == "ok"


@pytest.mark.parametrize("legacy", [True, False])
def test_both_modes_of_default_grants_are_told_apart(damaged_database: Change, legacy: bool) -> None:
    if legacy:
        damaged_database("ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO anon")
    assert ("are open" in finding(DATABASE, "grants").detail) is legacy


@pytest.mark.slow
@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_told_with_its_mode(
    with_database: str, pooler: Callable[[str], PgBouncer], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    name = make_url(with_database).database or ""
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", pooler(mode).url(name, "postgres"))
    examination = examine()
    assert finding(DATABASE, "pooler", examination).detail == f"in {mode} mode"
    assert examination.exit_code == 0


@pytest.fixture
def pooler(
    postgres_server: PostgresServer, server_folder: Path, authority: CertificateAuthority
) -> Iterator[Callable[[str], PgBouncer]]:
    started: list[PgBouncer] = []

    def start(mode: str) -> PgBouncer:
        folder = server_folder / f"doctor-{mode}"
        started.append(
            PgBouncer(postgres_server, folder, authority, mode=mode, passwords={"postgres": ROLE_PASSWORD})  # type: ignore[arg-type]
        )
        started[-1].start()
        return started[-1]

    yield start
    for pooler in started:
        pooler.stop()


def test_a_home_that_is_none(with_dagster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (with_dagster / "dagster.yaml").unlink()
    assert finding("dagster", "home").state == "warning"
    monkeypatch.setenv("DAGSTER_HOME", "relative")
    assert finding("dagster", "home").state == "broken"
    monkeypatch.setenv("DAGSTER_HOME", str(with_dagster / "nowhere"))
    assert finding("dagster", "home").state == "broken"


def test_a_history_in_which_no_tables_can_be_made(
    damaged_database: Change, monkeypatch: pytest.MonkeyPatch, with_dagster: Path
) -> None:
    url = os.environ["USER_SYNC_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    damaged_database(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC, postgres; ALTER SCHEMA public OWNER TO supabase_admin"
    )
    found = finding("dagster", "history")
    assert (found.state, found.mend) == ("broken", "Let the role of DAGSTER_POSTGRES_URL create tables.")


def test_a_webserver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DAGSTER_URL", "http://127.0.0.1:1")
    examination = examine()
    assert finding("dagster", "webserver", examination).state == "broken"
    assert examination.exit_code == 4


def test_a_webserver_that_is_none_of_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(ScriptedWebserver()) as other:
        monkeypatch.setenv("USER_SYNC_DAGSTER_URL", other.url)
        examination = examine()
    assert finding("dagster", "webserver", examination).state == "broken"
    assert examination.exit_code == 3


@pytest.mark.parametrize(
    ("address", "encrypted", "state"),
    [("203.0.113.7", False, "warning"), ("203.0.113.7", True, "ok"), ("::1", False, "ok"), ("", False, "ok")],
)
def test_a_connection_that_can_be_read_on_the_way(address: str, encrypted: bool, state: str) -> None:
    assert database.encryption_finding(address, encrypted, "USER_SYNC_DATABASE_URL").state == state
