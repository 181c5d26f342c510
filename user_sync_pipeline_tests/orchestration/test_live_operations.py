"""What is repeated, what waits and what is gone on with, where Dagster's own daemon decides about it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from user_sync_pipeline.partitions import range_tags
from user_sync_pipeline.resources.failures import PAUSED_TAG, RUN_RETRY_TAG
from user_sync_pipeline.sandbox.salesforce import Fault
from user_sync_pipeline.sensors import RUN_OF_ASSETS, WILL_RETRY_TAG
from user_sync_pipeline_tests.conftest import FEW_PEOPLE
from user_sync_pipeline_tests.orchestration.launch_paths import (
    ASSETS,
    PLENTY_OF_CALLS,
    TOO_FEW_CALLS,
    LiveCompany,
    keys_of,
)
from user_sync_pipeline_tests.orchestration.live_dagster import LiveDagster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EVERYBODY = FEW_PEOPLE + 1
# A run that waits for an answer this long is killed before it comes, on any machine.
SECONDS_TO_BE_KILLED_IN = 300


@pytest.fixture(autouse=True)
def _as_if_nothing_had_been_launched(live_company: LiveCompany, live: LiveDagster) -> Iterator[None]:
    live_company.prepare()
    live.forget_everything()
    yield
    live_company.salesforce.faults.clear()
    live_company.salesforce.org.set_daily_limit(PLENTY_OF_CALLS)
    live_company.salesforce.clock.set(live_company.at(23))


def launch(live: LiveDagster, company: LiveCompany) -> str:
    return live.launch(range_tags(company.horizon, company.today))


def events(live: LiveDagster, run_id: str, kind: dg.DagsterEventType) -> list[dg.EventLogEntry]:
    return [record.event_log_entry for record in live.instance.get_records_for_run(run_id, of_type=kind).records]


def test_a_permanent_failure_is_not_repeated(live: LiveDagster, live_company: LiveCompany) -> None:
    app = live_company.salesforce.connected_app
    before, app.client_secret = app.client_secret, "another one"
    try:
        run = live.ended(launch(live, live_company))
    finally:
        app.client_secret = before
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert "SALESFORCE_CLIENT_SECRET" in live.story_of(run.run_id)
    assert events(live, run.run_id, dg.DagsterEventType.STEP_UP_FOR_RETRY) == []
    # By this tag the daemon decides whether to repeat a run; it is there when the run has ended.
    assert (run.tags[WILL_RETRY_TAG], run.tags[RUN_RETRY_TAG]) == ("false", "false")


def test_a_passing_failure_is_tried_again_within_the_run(live: LiveDagster, live_company: LiveCompany) -> None:
    live_company.salesforce.faults.add(Fault(on="updated", text='{"ids": []}', times=1))
    run = live.run(live_company.all_days)
    [retry] = events(live, run.run_id, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert retry.step_key == "salesforce_users_raw"
    assert len(live.instance.get_runs()) == 1
    assert live_company.tables()["sf_users"][0] == EVERYBODY


def test_a_run_whose_process_died_is_repeated(live: LiveDagster, live_company: LiveCompany) -> None:
    live_company.salesforce.faults.add(Fault(on="query", delay=SECONDS_TO_BE_KILLED_IN, times=1))
    died_id = launch(live, live_company)

    def process() -> int | None:
        begun = events(live, died_id, dg.DagsterEventType.STEP_START)
        return begun[0].dagster_event.pid if begun and begun[0].dagster_event else None

    os.kill(live.wait("the run to read", process), signal.SIGKILL)
    live_company.salesforce.faults.clear()
    died = live.ended(died_id)
    assert died.status is dg.DagsterRunStatus.FAILURE
    assert died.tags[WILL_RETRY_TAG] == "true"

    def repeated() -> str | None:
        return next((run.run_id for run in live.instance.get_runs() if run.parent_run_id == died_id), None)

    again = live.ended(live.wait("the run to be repeated", repeated))
    assert again.is_success, live.story_of(again.run_id)
    assert again.tags.items() >= range_tags(live_company.horizon, live_company.today).items()
    assert live_company.tables()["sf_users"][0] == EVERYBODY


def test_of_two_runs_that_ask_salesforce_one_waits_for_the_other(live: LiveDagster, live_company: LiveCompany) -> None:
    run_ids = [launch(live, live_company) for _ in range(2)]
    for run_id in run_ids:
        assert live.ended(run_id).is_success, live.story_of(run_id)
    records = live.instance.get_run_records(dg.RunsFilter(run_ids=run_ids))
    spans = sorted((record.start_time or 0, record.end_time or 0) for record in records)
    assert spans[0][1] <= spans[1][0]


def test_a_paused_backfill_of_assets_is_gone_on_with_by_the_sensor(
    live: LiveDagster, live_company: LiveCompany
) -> None:
    org, clock = live_company.salesforce.org, live_company.salesforce.clock
    org.set_daily_limit(TOO_FEW_CALLS)
    backfill = live.backfill_assets(ASSETS, keys_of(live_company.all_days))
    assert backfill.status is not BulkActionStatus.COMPLETED_SUCCESS
    [paused] = live.instance.get_runs()
    assert paused.job_name == RUN_OF_ASSETS
    assert paused.status is dg.DagsterRunStatus.CANCELED, live.story_of(paused.run_id)
    assert paused.tags[PAUSED_TAG] == "true"

    org.set_daily_limit(PLENTY_OF_CALLS)
    clock.set(live_company.at(23, 59))
    run = live.ended(live.run_of_sensor("recent_sync_sensor"))
    assert run.is_success, live.story_of(run.run_id)
    assert run.tags.items() >= range_tags(live_company.horizon, live_company.today).items()
    assert live_company.tables()["sf_users"][0] == EVERYBODY
