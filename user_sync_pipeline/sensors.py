"""Sensors: one follows the changes in Salesforce, one tells somebody when a run has failed.

What belongs here: from a tick to the question and back to Dagster. What does not: when to run what
(`core/recent_changes.py`), and how somebody is told (`core/failure_notices.py`).
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.errors import PausedError, UserSyncError
from user_sync_pipeline.core.failure_notices import FailureNotice, Notifier, post
from user_sync_pipeline.core.recent_changes import (
    Days,
    PastRun,
    RunState,
    decide,
    read_cursor,
    run_key,
    what_to_ask,
)
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.ledger import read_so_far
from user_sync_pipeline.jobs import user_sync
from user_sync_pipeline.partitions import RANGE_END_TAG, RANGE_START_TAG, first_day, range_tags
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import PAUSED_TAG

BETWEEN_TICKS = timedelta(minutes=5)
# Enough to find a run that goes on, one that was paused, and a row of failures.
RUNS_LOOKED_AT = 25
# What a run must materialize to have read its days.
READING = {dg.AssetKey("salesforce_users_raw"), dg.AssetKey("sf_users")}
# What Dagster calls a run of assets that were launched from their graph or by its command line, and not as a job.
RUN_OF_ASSETS = "__ASSET_JOB"
WILL_RETRY_TAG = "dagster/will_retry"
PARTITION_TAG = "dagster/partition"

RECENT_SYNC = """
Asks Salesforce **one question a tick** (an API call; signing in is none): who has changed since the watermark?

* Somebody has: launches `user_sync` for the days from the watermark to today, at least two.
* A run was **paused by a quota**: launches it again as soon as there is quota, and it goes on where it was.
* A run failed: tries again, at first after five minutes, at last every six hours.
* Such a run is on its way already, or nothing has been read at all: asks nothing.
"""
FAILURES = """
Tells somebody about a run that failed, **once a run**: not for an attempt that is going to be repeated, and not for a
run that was paused or canceled. In the log of the tick, and to `USER_SYNC_FAILURE_WEBHOOK_URL` where that is set.
"""


def build_sensors(partitions: dg.DailyPartitionsDefinition, *, running: bool) -> list[dg.SensorDefinition]:
    """Return the sensors on the given axis."""
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
    return [build_recent_sync_sensor(partitions, status), build_failure_sensor(status)]


def build_recent_sync_sensor(
    partitions: dg.DailyPartitionsDefinition, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Return the sensor that launches `user_sync` for the days that have changed."""
    horizon = first_day(partitions)

    @dg.sensor(
        job=user_sync,
        minimum_interval_seconds=int(BETWEEN_TICKS.total_seconds()),
        default_status=status,
        description=RECENT_SYNC,
    )
    def recent_sync_sensor(
        context: dg.SensorEvaluationContext, postgres: PostgresResource, salesforce: SalesforceResource
    ) -> dg.SensorResult:
        try:
            with database_errors():
                return _tick(context, postgres, salesforce, horizon)
        except PausedError as paused:
            return dg.SensorResult(skip_reason=f"Paused: {paused}")

    return recent_sync_sensor


def _tick(
    context: dg.SensorEvaluationContext, postgres: PostgresResource, salesforce: SalesforceResource, horizon: date
) -> dg.SensorResult:
    with postgres.engine.connect() as connection:
        read = read_so_far(connection)
    users = salesforce.users
    now = users.server_time()
    question = what_to_ask(
        read,
        past_runs(context.instance),
        read_cursor(context.cursor),
        now=now,
        today=min(now, datetime.now(UTC)).date(),  # the axis ends by the clock of this machine
        horizon=horizon,
    )
    if isinstance(question, str):
        return dg.SensorResult(skip_reason=question)
    changes = users.changed_since(question.since, until=now)
    decision = decide(question, changes, now=now, calls_left=users.calls_left)
    cursor = decision.cursor.dump() if decision.cursor else None
    if decision.days is None:
        return dg.SensorResult(skip_reason=decision.reason, cursor=cursor)
    context.log.info(decision.reason)
    key = run_key(decision.days, now, BETWEEN_TICKS)
    request = dg.RunRequest(key, tags=range_tags(decision.days.first, decision.days.last))
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def past_runs(instance: dg.DagsterInstance) -> list[PastRun]:
    """Return the latest runs that read days, as the job or as its assets, whoever launched them, newest first."""
    records = [
        record
        for name in (user_sync.name, RUN_OF_ASSETS)
        for record in instance.get_run_records(dg.RunsFilter(job_name=name), limit=RUNS_LOOKED_AT)
    ]
    runs = []
    for record in sorted(records, key=lambda record: record.storage_id, reverse=True):
        selected = record.dagster_run.asset_selection
        days = _days_of(record.dagster_run)
        if days and (not selected or selected >= READING):
            ended_at = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None
            runs.append(PastRun(days, _state_of(record.dagster_run), ended_at))
    return runs


def _days_of(run: dg.DagsterRun) -> Days | None:
    single = run.tags.get(PARTITION_TAG)
    first, last = run.tags.get(RANGE_START_TAG, single), run.tags.get(RANGE_END_TAG, single)
    try:
        return Days(date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
    except ValueError:
        return None


def _state_of(run: dg.DagsterRun) -> RunState:
    states: dict[dg.DagsterRunStatus, RunState] = {
        dg.DagsterRunStatus.SUCCESS: "succeeded",
        dg.DagsterRunStatus.FAILURE: "failed",
        dg.DagsterRunStatus.CANCELED: "canceled",
    }
    state = states.get(run.status, "in progress")
    return "paused" if state == "canceled" and PAUSED_TAG in run.tags else state


def build_failure_sensor(status: dg.DefaultSensorStatus, *, notifier: Notifier | None = None) -> dg.SensorDefinition:
    """Return the sensor that logs failures and passes them on: to `notifier`, else to the webhook if one is set."""

    @dg.run_failure_sensor(name="failure_sensor", default_status=status, description=FAILURES)
    def failure_sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.tags.get(WILL_RETRY_TAG) == "true":
            return dg.SkipReason(f"Run {run.run_id} is going to be repeated.")
        notice = notice_of(context)
        context.log.error(notice.text)
        try:
            if notifier is not None:
                notifier(notice)
            elif url := settings.failure_webhook_url():
                post(url, notice)
        except UserSyncError as error:
            context.log.error(str(error))
        return None

    return failure_sensor


def notice_of(context: dg.RunFailureSensorContext) -> FailureNotice:
    """Return the notice of a failed run: of an error of this program its sentence, of any other one only its class.

    The text of a foreign error may hold anything; the log of the run has it.
    """
    run, failures = context.dagster_run, context.get_step_failure_events()
    if failures:
        step, data = failures[0].step_key, failures[0].step_failure_data
        said = data.user_failure_data.description if data.user_failure_data else None
        reason = said or _said_by_checks(context, step) or _reason(data.error)
    else:
        step, reason = None, _reason(context.failure_event.job_failure_data.error)
    days = _days_of(run)
    return FailureNotice(
        run.job_name,
        run.run_id,
        days=str(days) if days else None,
        step=step,
        reason=reason or context.failure_event.message or "nobody said why.",
    )


def _said_by_checks(context: dg.RunFailureSensorContext, step: str | None) -> str | None:
    """Return what the checks say that have stopped the run in this step; None when it was not stopped by checks."""
    events = context.instance.get_records_for_run(
        context.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    entries = [record.event_log_entry.dagster_event for record in events.records]
    checks = [entry.asset_check_evaluation_data for entry in entries if entry and entry.step_key == step]
    stopping = [
        check
        for check in checks
        if check.blocking and not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    ]
    return " ".join(f"{check.check_name}: {check.description}" for check in stopping) or None


def _reason(error: Any) -> str | None:
    """Return what an error and those behind it say for people; None without an error."""
    root = None
    while error is not None:
        if error.cls_name == dg.Failure.__name__:
            return str(error.message).partition(": ")[2]
        root, error = error, error.cause
    return f"{root.cls_name}; the log of the run says more." if root else None
