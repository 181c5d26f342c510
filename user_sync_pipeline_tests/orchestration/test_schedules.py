from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import text

from user_sync_pipeline.core.warehouse.ledger import ReadSoFar
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.partitions import RANGE_END_TAG, RANGE_START_TAG, range_tags
from user_sync_pipeline.schedules import DAYS_READ_DAILY, days_to_read_daily
from user_sync_pipeline_tests.orchestration.conftest import Company, metadata_by_day

HORIZON = date(2026, 1, 1)
TODAY = date(2026, 6, 15)


def running() -> dict[str, str]:
    """Return by name whether schedules and sensors run without anybody switching them on."""
    repository = build_definitions().get_repository_def()
    return {each.name: each.default_status.value for each in [*repository.schedule_defs, *repository.sensor_defs]}


def request(name: str, at: datetime) -> dg.RunRequest:
    definitions = build_definitions()
    schedule = definitions.resolve_schedule_def(name)
    with dg.build_schedule_context(scheduled_execution_time=at, resources=definitions.resources) as context:
        [asked] = schedule.evaluate_tick(context).run_requests or []
    return asked


def after_midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 1, 15, tzinfo=UTC)


def watermark_at(moment: datetime) -> ReadSoFar:
    return ReadSoFar(moment, moment)


def test_nothing_runs_by_itself_unless_the_environment_is_production(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(running().values()) == {"STOPPED"}
    monkeypatch.setenv("USER_SYNC_ENVIRONMENT", "staging")
    assert set(running().values()) == {"STOPPED"}
    monkeypatch.setenv("USER_SYNC_ENVIRONMENT", "Production")
    assert running() == {
        "daily_recent_schedule": "RUNNING",
        "weekly_full_schedule": "STOPPED",
        "hourly_profiles_schedule": "RUNNING",
        "recent_sync_sensor": "RUNNING",
        "failure_sensor": "RUNNING",
    }


def test_all_times_are_in_utc_as_the_days_are() -> None:
    for schedule in build_definitions().get_repository_def().schedule_defs:
        assert schedule.execution_timezone == "UTC"
        assert schedule.description


def test_the_night_reads_yesterday_again_and_the_day_before() -> None:
    days = days_to_read_daily(watermark_at(after_midnight(TODAY)), TODAY, HORIZON)
    assert (days.first, days.last) == (TODAY - timedelta(days=DAYS_READ_DAILY - 1), TODAY)


def test_after_an_outage_the_night_reads_from_where_it_was() -> None:
    days = days_to_read_daily(watermark_at(after_midnight(date(2026, 6, 1))), TODAY, HORIZON)
    assert (days.first, days.last) == (date(2026, 5, 31), TODAY)


def test_the_first_night_reads_everything() -> None:
    assert days_to_read_daily(None, TODAY, HORIZON).first == HORIZON


def test_the_days_never_leave_the_axis() -> None:
    for read in (None, watermark_at(after_midnight(HORIZON)), watermark_at(datetime(2020, 1, 1, tzinfo=UTC))):
        days = days_to_read_daily(read, HORIZON, HORIZON)
        assert (days.first, days.last) == (HORIZON, HORIZON)


@pytest.mark.slow
def test_every_night_asks_for_the_days_by_the_time_it_was_to_run_and_leaves_no_gap(company: Company) -> None:
    assert request("daily_recent_schedule", after_midnight(company.today)).tags.items() >= (
        range_tags(company.horizon, company.today).items()
    )
    assert company.run().success
    tags = request("daily_recent_schedule", after_midnight(company.today)).tags
    assert tags[RANGE_START_TAG] == (company.today - timedelta(days=2)).isoformat()
    assert tags[RANGE_END_TAG] == company.today.isoformat()
    assert company.run_with_tags(dict(tags)).success
    with company.engine.begin() as connection:
        connection.execute(text("UPDATE user_sync.watermarks SET watermark = watermark - interval '3 days'"))
    late = request("daily_recent_schedule", after_midnight(company.today)).tags
    assert late[RANGE_START_TAG] == company.horizon.isoformat()


def test_the_week_reads_all_days(company: Company) -> None:
    tags = request("weekly_full_schedule", after_midnight(company.today)).tags
    assert tags.items() >= range_tags(company.horizon, company.today).items()


@pytest.mark.slow
def test_the_profiles_are_compared_without_asking_salesforce(company: Company) -> None:
    company.run()
    company.scalar("WITH lost AS (DELETE FROM public.user_profiles RETURNING id) SELECT count(*) FROM lost")
    company.salesforce.journal.clear()
    job = build_definitions().resolve_job_def("reconcile_profiles")
    result = job.execute_in_process(instance=company.instance)
    [figures] = metadata_by_day(result, "profile_reconciliation").values()
    assert figures["profiles_created"] > 0
    assert {check.check_name for check in result.get_asset_check_evaluations()} >= {"sync_percentage"}
    assert company.salesforce.journal.exchanges == []
