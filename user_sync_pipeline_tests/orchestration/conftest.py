"""A small company for the tests of the Dagster side: its Salesforce, its auth users, and the settings for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url, text

from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.partitions import range_tags
from user_sync_pipeline.resources import failures

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.certificates import CertificateAuthority
    from user_sync_pipeline.sandbox.postgres import PostgresServer
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
    from user_sync_pipeline_tests.orchestration.launch_paths import LiveCompany
    from user_sync_pipeline_tests.orchestration.live_dagster import LiveDagster

DAYS = 4


@dataclass
class Company:
    """A running company and a Dagster instance; the axis holds `DAYS` days, the last one is today."""

    salesforce: SalesforceSimulator
    engine: Engine
    instance: dg.DagsterInstance

    @property
    def today(self) -> date:
        return self.salesforce.clock.now().date()

    @property
    def horizon(self) -> date:
        return self.today - timedelta(days=DAYS - 1)

    def run(
        self, first: date | None = None, last: date | None = None, *, config: dict[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run the job over a range, or over all days."""
        return self.run_with_tags(range_tags(first or self.horizon, last or self.today), config=config)

    def run_with_tags(self, tags: dict[str, str], *, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        job = build_definitions().resolve_job_def("user_sync")
        return job.execute_in_process(instance=self.instance, tags=tags, run_config=config, raise_on_error=False)

    def tags_of(self, result: dg.ExecuteInProcessResult) -> Mapping[str, str]:
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run.tags

    def status_of(self, result: dg.ExecuteInProcessResult) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run.status

    def scalar(self, statement: str) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(text(statement)).scalar_one()


@pytest.fixture(scope="package", autouse=True)
def _scripts_are_read_once() -> Iterator[None]:
    """Each instance notes which of Dagster's own migrations is the newest; reading them takes longer than a test."""
    read = ScriptDirectory.from_config
    read_before: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in read_before:
            read_before[folder] = read(config)
        return read_before[folder]

    with patch.object(ScriptDirectory, "from_config", from_config):
        yield


@pytest.fixture(autouse=True)
def _no_wait_before_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "WAITS", (0.0, 0.0))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def company(
    salesforce: SalesforceSimulator,
    postgres_server: PostgresServer,
    migrated_database: str,
    engine: Engine,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Company:
    """Everybody lives in one database, as on a Supabase project of one's own."""
    from user_sync_pipeline.sandbox.sample_people import people
    from user_sync_pipeline.sandbox.supabase import load_auth_users
    from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT

    load_auth_users(
        postgres_server.url(make_url(migrated_database).database or ""),
        people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT),
    )
    company = Company(salesforce, engine, instance)
    settings = {
        **salesforce.environment(),
        "USER_SYNC_DATABASE_URL": migrated_database,
        "USER_SYNC_HORIZON": company.horizon.isoformat(),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return company


@pytest.fixture(scope="module")
def live_company(
    postgres_server: PostgresServer, authority: CertificateAuthority, migrated_template: str
) -> Iterator[LiveCompany]:
    """A company for a Dagster that really runs; everybody lives in one database here as well."""
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
    from user_sync_pipeline.sandbox.sample_people import people
    from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT
    from user_sync_pipeline_tests.orchestration.launch_paths import LiveCompany

    now = datetime.now(UTC)
    if (now.hour, now.minute) >= (23, 30):
        pytest.skip("The axis is about to grow by a day, in the middle of these tests.")
    with SalesforceSimulator(people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT), authority) as salesforce:
        yield LiveCompany(postgres_server, salesforce, migrated_template, now.date())


@pytest.fixture(scope="module")
def live(
    live_company: LiveCompany, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveDagster]:
    """A webserver and a daemon that read the live company."""
    from user_sync_pipeline_tests.conftest import create_database, drop_database, role_url
    from user_sync_pipeline_tests.orchestration.live_dagster import LiveDagster

    history = "launched_history"
    create_database(postgres_server, history, owner="postgres")
    url = role_url(postgres_server, history).replace("postgresql:", "postgresql+psycopg2:", 1)
    settings = {**live_company.settings, "DAGSTER_POSTGRES_URL": url}
    with LiveDagster(tmp_path_factory.mktemp("live_dagster"), settings) as live:
        yield live
    drop_database(postgres_server, history)


def metadata_by_day(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, dict[str, Any]]:
    """Return the metadata of each materialization of an asset, by its partition key."""
    return {
        event.partition: {
            name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    }


def section_of(report: str, title: str) -> list[list[str]]:
    """Return the rows of a table in a Markdown report, without its head."""
    _, _, table = report.partition(f"### {title}\n\n")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return what a failed step says for a person."""
    [failure] = [event for event in result.all_events if event.is_step_failure]
    user_failure = failure.step_failure_data.user_failure_data
    assert user_failure is not None
    return user_failure.description or ""


def midday(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
