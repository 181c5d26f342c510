"""Every way of having the same days read, and what is to be compared after each of them.

What belongs here: the company whose users are read, one function for each way, and the outcome as plain values.
What does not: which ways and which days go together (`test_launch_paths.py`), and Dagster itself (`live_dagster.py`).

The two live together only in tests that start whole programs; the fixtures `live` and `live_company` of this folder
make them, once a module.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from psycopg.rows import dict_row

from user_sync_pipeline.core.recent_changes import Days
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.partitions import range_tags
from user_sync_pipeline.resources.failures import PAUSED_TAG
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT, create_database, role_url, run_as_superuser
from user_sync_pipeline_tests.orchestration.live_dagster import MODULE, SECONDS_TO_RUN, LiveDagster

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.postgres import PostgresServer
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator

ASSETS = ("salesforce_users_raw", "sf_users", "profile_reconciliation")
DAYS_OF_AXIS = 7
PROFILES_MISSING = 4
PLENTY_OF_CALLS, TOO_FEW_CALLS = 100_000, 3

_DATABASE, _BEFORE, _READ_BEFORE = "launched", "launched_before", "launched_read_before"
_BIN = Path(sys.executable).parent
_USER = ", ".join(USER_COLUMNS)
# What a run is called, and when it ran, is left out: everything else must not depend on who launched it.
_DIGESTS = {
    "sf_users": f"SELECT {_USER}, deactivated_at IS NULL FROM public.sf_users",
    "salesforce_users_raw": f"SELECT {_USER} FROM user_sync.salesforce_users_raw",
    "rejected_records": "SELECT salesforce_id, field, reason, row_stored FROM user_sync.rejected_records",
    "user_profiles": "SELECT id, email, phone, full_name, avatar_url, role, source FROM public.user_profiles",
    "profile_reconciliation": (
        "SELECT finding, auth_user_id, salesforce_user_id, reason FROM user_sync.profile_reconciliation"
    ),
}
_NEWEST_RUN = """
    SELECT since, until, outcome, fetched, inserted, updated, unchanged, rejected
    FROM user_sync.sync_runs ORDER BY started_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class Outcome:
    """What a launch left behind: rows and digest of each table, the window in the ledger, and what Dagster shows."""

    tables: Mapping[str, tuple[int, str]]
    ledger: Mapping[str, Any]
    days: Mapping[str, set[str]]
    checks: Mapping[str, tuple[bool, str]]


class LiveCompany:
    """A company whose users changed in the last days, its empty database, and a live Dagster for both.

    Salesforce's clock stands still on the evening of `today`, so that the same days hold the same changes whenever
    they are read. Some of today's changes are younger than what `prepare(read_before=True)` has read.
    """

    def __init__(self, server: PostgresServer, salesforce: SalesforceSimulator, migrated: str, today: date) -> None:
        """Make the company; `migrated` is the name of a database to copy, without any people."""
        self._server = server
        self.salesforce = salesforce
        self.today = today
        self.horizon = today - timedelta(days=DAYS_OF_AXIS - 1)
        self.database_url = role_url(server, _DATABASE)
        self.settings = {
            **salesforce.environment(),
            "USER_SYNC_DATABASE_URL": self.database_url,
            "USER_SYNC_HORIZON": self.horizon.isoformat(),
        }
        self._make_people(migrated)

    def at(self, hour: int, minute: int = 0, *, days_ago: int = 0) -> datetime:
        """Return a moment of these days."""
        return datetime.combine(self.today - timedelta(days=days_ago), time(hour, minute), UTC)

    def days(self, first_days_ago: int, last_days_ago: int = 0) -> Days:
        """Return days, counted back from today."""
        return Days(self.today - timedelta(days=first_days_ago), self.today - timedelta(days=last_days_ago))

    @property
    def all_days(self) -> Days:
        """Return the whole axis."""
        return Days(self.horizon, self.today)

    def prepare(self, *, read_before: bool = False) -> None:
        """Put the database back to where nothing was read, or everything up to an hour ago."""
        self._copy(_READ_BEFORE if read_before else _BEFORE, _DATABASE)

    def materialize(self, days: Days, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        """Read days in this process, as a script or a notebook does."""
        with pytest.MonkeyPatch.context() as environment:
            for name, value in self.settings.items():
                environment.setenv(name, value)
            definitions = build_definitions()
            return dg.materialize(
                [*(definitions.assets or ()), *(definitions.asset_checks or ())],
                resources=definitions.resources,
                tags=range_tags(days.first, days.last),
                instance=instance,
            )

    def outcome(self, instance: dg.DagsterInstance) -> Outcome:
        """Return what is in the tables, and what the runs of this instance came to."""
        runs = sorted(instance.get_run_records(), key=lambda record: record.storage_id)
        checks = {}
        for record in runs:
            events = instance.get_records_for_run(
                record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ).records
            for event in events:
                assert event.event_log_entry.dagster_event is not None
                check = event.event_log_entry.dagster_event.asset_check_evaluation_data
                checks[check.check_name] = (check.passed, check.severity.value)
        days = {asset: instance.get_materialized_partitions(dg.AssetKey(asset)) for asset in ASSETS[:2]}
        return Outcome(self.tables(), self.ledger(), days, checks)

    def tables(self) -> dict[str, tuple[int, str]]:
        """Return the number of rows of each table, and a digest of all that does not depend on the run."""
        with psycopg.connect(self.database_url) as connection:
            return {
                table: connection.execute(
                    "SELECT count(*), md5(string_agg(line, '' ORDER BY line)) "
                    f"FROM (SELECT md5(each::text) AS line FROM ({rows}) AS each) AS lines"
                ).fetchone()
                or (0, "")
                for table, rows in _DIGESTS.items()
            }

    def ledger(self) -> dict[str, Any]:
        """Return window, outcome and counts of the newest run of the ledger."""
        with psycopg.connect(self.database_url, options="-c timezone=UTC", row_factory=dict_row) as connection:
            return connection.execute(_NEWEST_RUN).fetchone() or {}

    def _make_people(self, migrated: str) -> None:
        from user_sync_pipeline.sandbox.sample_people import people
        from user_sync_pipeline.sandbox.supabase import load_auth_users

        self._copy(migrated, _BEFORE)
        load_auth_users(self._server.url(_BEFORE), people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT))
        with psycopg.connect(self._server.url(_BEFORE)) as connection:
            connection.execute(
                "DELETE FROM public.user_profiles "
                "WHERE id IN (SELECT id FROM public.user_profiles ORDER BY id LIMIT %s)",
                [PROFILES_MISSING],
            )
        org, clock = self.salesforce.org, self.salesforce.clock
        ids = [user.id for user in org.users.ordered]
        for number, days_ago in enumerate((6, 5, 4, 4, 3, 2, 1, 1)):
            clock.set(self.at(12, number, days_ago=days_ago))
            org.update_user(ids[number], Title=f"Head of Department {number}")
        clock.set(self.at(22))
        self.prepare()
        with dg.DagsterInstance.ephemeral() as instance:
            assert self.materialize(self.all_days, instance).success
        self._copy(_DATABASE, _READ_BEFORE)
        clock.set(self.at(22, 30))
        org.update_user(ids[2], Title="Head of Nothing")
        org.deactivate_user(ids[20])
        org.add_user(Username="new@users.example.com", LastName="New", Email="new@example.com")
        clock.set(self.at(23))

    def _copy(self, template: str, name: str) -> None:
        run_as_superuser(self._server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        create_database(self._server, name, template=template, owner="postgres")


# The ways ---------------------------------------------------------------------------------------------------------

LaunchPath = Callable[[LiveCompany, LiveDagster, Days], None]


def by_python(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    assert company.materialize(days, live.instance).success


def by_asset_command(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    _type(
        live,
        "dagster", "asset", "materialize", "-m", MODULE,
        "--select", ",".join(ASSETS), "--partition-range", f"{days.first}...{days.last}",
    )  # fmt: skip


def by_launchpad(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    live.run(days)


def by_job_backfill(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    _succeeded(live, live.backfill_job(keys_of(days)), runs=1)


def by_asset_backfill(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    """Dagster computes the asset without partitions in a second run, which knows of no days."""
    _succeeded(live, live.backfill_assets(ASSETS, keys_of(days)), runs=2)


def by_sensor_after_changes(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    run = live.ended(live.run_of_sensor("recent_sync_sensor"))
    assert run.is_success, live.story_of(run.run_id)
    assert run.tags.items() >= range_tags(days.first, days.last).items()


def by_sensor_after_a_pause(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    """A quota pauses the run of any days, and the sensor launches it again when there is quota."""
    company.salesforce.org.set_daily_limit(TOO_FEW_CALLS)
    try:
        paused = live.ended(live.launch(range_tags(days.first, days.last)))
    finally:
        company.salesforce.org.set_daily_limit(PLENTY_OF_CALLS)
    assert paused.status is dg.DagsterRunStatus.CANCELED, live.story_of(paused.run_id)
    assert paused.tags[PAUSED_TAG] == "true"
    company.salesforce.clock.set(company.at(23, 59))  # the sensor waits a while, by Salesforce's clock
    try:
        by_sensor_after_changes(company, live, days)
    finally:
        company.salesforce.clock.set(company.at(23))


def by_daily_schedule(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    [tags] = live.runs_that_a_schedule_asks_for("daily_recent_schedule", company.at(0).timestamp())
    assert tags.items() >= range_tags(days.first, days.last).items()
    run = live.ended(live.launch(tags))
    assert run.is_success, live.story_of(run.run_id)


def by_own_command(company: LiveCompany, live: LiveDagster, days: Days) -> None:
    if days.first == company.horizon:
        options = ["--mode", "full"]
    else:
        options = ["--mode", "custom", "--start-date", str(days.first), "--end-date", str(days.last)]
    _type(live, "user-sync", "sync-users", *options)


def keys_of(days: Days) -> list[str]:
    """Return the partition keys of days."""
    return [str(days.first + timedelta(days=number)) for number in range((days.last - days.first).days + 1)]


def _succeeded(live: LiveDagster, backfill: Any, *, runs: int) -> None:
    launched = live.instance.get_runs(dg.RunsFilter.for_backfill(backfill.backfill_id))
    stories = "\n".join(live.story_of(run.run_id) for run in launched)
    assert backfill.status is BulkActionStatus.COMPLETED_SUCCESS, stories
    assert len(launched) == runs, stories


def _type(live: LiveDagster, program: str, *arguments: str) -> None:
    ran = subprocess.run(
        [_BIN / program, *arguments],
        cwd=live.home,
        env=live.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_RUN,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
