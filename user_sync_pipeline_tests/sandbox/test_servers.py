"""The sandbox as a whole: what it is made of, and what a kept folder brings back."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from user_sync_pipeline.core.errors import ConfigurationError, UsageError
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import SalesforceSettings, SupabaseSettings, database_url, horizon
from user_sync_pipeline.sandbox.salesforce.faults import Fault, FaultScript
from user_sync_pipeline.sandbox.servers import Sandbox

USERS = 30


@pytest.fixture
def folder(server_folder: Path, request: pytest.FixtureRequest) -> Path:
    return server_folder / request.node.name


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    started = time.monotonic()
    with Sandbox(USERS) as running:
        print(f"\nthe sandbox started in {time.monotonic() - started:.1f} s")
        yield running


def count(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.slow
def test_every_setting_points_into_the_sandbox(sandbox: Sandbox) -> None:
    environment = sandbox.environment
    with RestUserService(SalesforceSettings.from_environment(environment)) as salesforce:
        assert salesforce.count_users() == USERS
    supabase = SupabaseSettings.from_environment(environment)
    assert supabase.url == sandbox.supabase.url
    assert supabase.database_url == database_url(environment)
    assert 0 < count(database_url(environment), "auth.users") <= USERS
    assert (datetime.now(UTC).date() - horizon(environment)).days in (90, 91)
    dagster = environment["DAGSTER_POSTGRES_URL"]
    assert dagster.startswith("postgresql+psycopg2://")
    assert count(dagster.replace("+psycopg2", ""), "pg_class") > 0


@pytest.mark.slow
def test_settings_of_real_systems_do_not_mix_with_those_of_the_sandbox(sandbox: Sandbox) -> None:
    real = {
        "SALESFORCE_ACCESS_TOKEN": "token",
        "SALESFORCE_INSTANCE_URL": "https://example.my.salesforce.com",
        "SALESFORCE_PROXY": "http://proxy.example.com",
        "SALESFORCE_EXTRA_FIELDS": "Region__c",
        "SUPABASE_DB_URL": "postgresql://db.example.com/postgres",
    }
    mixed = {**real, **sandbox.environment}
    assert SalesforceSettings.from_environment(mixed) == SalesforceSettings.from_environment(sandbox.environment)
    assert SupabaseSettings.from_environment(mixed) == SupabaseSettings.from_environment(sandbox.environment)


@pytest.mark.slow
def test_a_temporary_sandbox_leaves_nothing_behind() -> None:
    with Sandbox(USERS) as sandbox:
        folder, url = sandbox.folder, sandbox.database_url
        assert folder.exists()
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


@pytest.mark.slow
def test_a_kept_folder_brings_back_the_same_company(folder: Path) -> None:
    with Sandbox(USERS, folder=folder) as first:
        people, org, secret = first.people, first.salesforce.org.id, first.environment["SALESFORCE_CLIENT_SECRET"]
        ids = [user.id for user in first.salesforce.org.users.ordered]
        users = count(first.database_url, "auth.users")
        first_horizon = first.environment["USER_SYNC_HORIZON"]
        with psycopg.connect(first.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS row")
    assert stat.S_IMODE((folder / "sandbox.json").stat().st_mode) == 0o600

    with Sandbox(folder=folder) as second:
        assert (second.users, second.people, second.salesforce.org.id) == (USERS, people, org)
        assert [user.id for user in second.salesforce.org.users.ordered] == ids
        assert second.environment["SALESFORCE_CLIENT_SECRET"] == secret
        assert second.environment["USER_SYNC_HORIZON"] == first_horizon
        assert count(second.database_url, "auth.users") == users
        assert count(second.database_url, "kept") == 1


@pytest.mark.slow
def test_a_kept_folder_is_for_one_sandbox_at_a_time_and_for_one_number_of_users(folder: Path) -> None:
    with Sandbox(USERS, folder=folder) as running:
        with pytest.raises(UsageError, match="is running"):
            Sandbox(folder=folder).start()
        assert count(running.database_url, "auth.users") > 0
    with pytest.raises(UsageError, match="made with 30 users"):
        Sandbox(USERS + 1, folder=folder).start()


def test_a_folder_with_other_files_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    mode = folder.stat().st_mode
    with pytest.raises(UsageError, match="no sandbox made"):
        Sandbox(folder=folder).start()
    assert os.listdir(folder) == ["thesis.txt"]
    assert folder.stat().st_mode == mode


@pytest.mark.slow
def test_a_script_of_faults_befalls_salesforce() -> None:
    faults = FaultScript([Fault(on="describe", error="API_DISABLED_FOR_ORG")])
    with Sandbox(USERS, faults=faults) as misbehaving:
        settings = SalesforceSettings.from_environment(misbehaving.environment)
        with RestUserService(settings) as salesforce, pytest.raises(ConfigurationError, match="API_DISABLED_FOR_ORG"):
            salesforce.selected_fields()
