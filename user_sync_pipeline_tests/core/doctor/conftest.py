"""Everything that the doctor looks at, in good health: one Salesforce, one database and one project for a test file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.doctor.checks import Finding
from user_sync_pipeline.core.doctor.examination import Examination, examine
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT, role_url, run_as_superuser, supabase_on

_databases = itertools.count()


@pytest.fixture(scope="module")
def healthy_database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """Name of a migrated database that no test changes."""
    name = f"doctor_{next(_databases)}"
    run_as_superuser(postgres_server, f"CREATE DATABASE {name} TEMPLATE {migrated_template} OWNER postgres")
    yield name
    run_as_superuser(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def one_ledger(postgres_server: PostgresServer, healthy_database: str) -> Iterator[Engine]:
    engine = create_database_engine(role_url(postgres_server, healthy_database))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def project(
    postgres_server: PostgresServer, healthy_database: str, authority: CertificateAuthority
) -> Iterator[SupabaseSimulator]:
    with supabase_on(postgres_server, healthy_database, authority) as simulator:
        yield simulator


@pytest.fixture
def company(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    with SalesforceSimulator(people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT), authority) as simulator:
        yield simulator


@pytest.fixture
def with_salesforce(company: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch) -> SalesforceSimulator:
    set_all(monkeypatch, company.environment())
    return company


@pytest.fixture
def with_database(postgres_server: PostgresServer, healthy_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    url = role_url(postgres_server, healthy_database)
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", url)
    return url


@pytest.fixture
def with_project(project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch) -> SupabaseSimulator:
    set_all(monkeypatch, project.environment())
    return project


@pytest.fixture
def with_dagster(postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    url = postgres_server.url("postgres").replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    return tmp_path


@pytest.fixture
def damaged_database(
    postgres_server: PostgresServer, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """A database of one's own, to be changed by statements of its superuser."""
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", migrated_database)

    def change(statement: str) -> None:
        name = make_url(migrated_database).database or ""
        with psycopg.connect(postgres_server.url(name), autocommit=True) as connection:
            connection.execute(statement.encode())

    return change


def set_all(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def finding(area: str, name: str, examination: Examination | None = None) -> Finding:
    """The one finding of a name, of a new examination unless one is given."""
    examination = examination or examine()
    found = [check.finding for check in examination.checks if (check.area, check.name) == (area, name)]
    assert len(found) == 1, [(check.area, check.name, check.finding) for check in examination.checks]
    return found[0]
