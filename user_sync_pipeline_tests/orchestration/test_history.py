from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.partitions import RANGE_END_TAG, RANGE_START_TAG
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import create_database, drop_database

pytestmark = pytest.mark.slow

DAGSTERS_OWN = "storage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}"
DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-10")
KEYS = DAYS.get_partition_keys()[2:-5]
RANGE = {RANGE_START_TAG: KEYS[0], RANGE_END_TAG: KEYS[-1]}
CHECK_ROWS = "SELECT check_name, partition, execution_status FROM asset_check_executions"


@dg.asset(partitions_def=DAYS)
def users() -> None:
    pass


@dg.asset(deps=[users])
def profiles() -> None:
    pass


@dg.asset_check(asset=users)
def all_there() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def run_over_a_range(home: Path) -> dict[str, Any]:
    """Run a job over a range of days and return what its history tells."""
    job = dg.define_asset_job("sync", [users, profiles])
    definitions = dg.Definitions([users, profiles], asset_checks=[all_there], jobs=[job])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = definitions.resolve_job_def("sync").execute_in_process(instance=instance, tags=RANGE)
        planned = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        history = instance.event_log_storage
        checked = history.get_latest_asset_check_execution_by_key([all_there.check_key])[all_there.check_key]
        entries = [record.asset_entry for record in history.get_asset_records([users.key, profiles.key])]
        return {
            "planned": Counter(
                (event.asset_key, event.partition)
                for event in (record.event_log_entry.get_dagster_event() for record in planned.records)
            ),
            "done": history.get_materialized_partitions(users.key),
            "assets": {(entry.asset_key, entry.last_run_id == run.run_id) for entry in entries},
            "check": (checked.status.value, checked.run_id == run.run_id, checked.partition),
        }


def test_a_run_over_many_days_leaves_the_history_that_dagsters_own_storage_keeps(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, check_rows = {}, {}
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    for name in ("own", "ours"):
        create_database(postgres_server, f"history_{name}")
        home = tmp_path / name
        home.mkdir()
        url = postgres_server.url(f"history_{name}")
        if name == "own":
            (home / "dagster.yaml").write_text(DAGSTERS_OWN)
            url = url.replace("postgresql:", "postgresql+psycopg2:")
        else:
            shutil.copy(shipped_path("dagster.yaml"), home)  # takes an address without a driver as well
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
        told[name] = run_over_a_range(home)
        with psycopg.connect(postgres_server.url(f"history_{name}")) as connection:
            check_rows[name] = connection.execute(CHECK_ROWS).fetchall()
        drop_database(postgres_server, f"history_{name}")

    assert told["ours"] == told["own"]
    assert told["ours"]["done"] == set(KEYS)
    assert {number for (asset, _), number in told["ours"]["planned"].items() if asset == users.key} == {1}
    # Dagster's own notes the check for each day as planned, and never as done.
    assert check_rows["ours"] == [("all_there", None, "SUCCEEDED")]
    assert len(check_rows["own"]) > len(KEYS)
