from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from user_sync_pipeline.assets.metadata import PREVIEW_COLUMNS
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.partitions import RANGE_END_TAG, RANGE_START_TAG
from user_sync_pipeline.resources import failures
from user_sync_pipeline.resources.failures import PAUSED_TAG, RUN_RETRY_TAG
from user_sync_pipeline.resources.supabase import NOTHING_CONFIGURED
from user_sync_pipeline.sandbox.salesforce import Fault
from user_sync_pipeline_tests.conftest import FEW_PEOPLE
from user_sync_pipeline_tests.orchestration.conftest import (
    DAYS,
    Company,
    checks_of,
    failure_of,
    metadata_by_day,
    midday,
    section_of,
)

DIGEST = "SELECT md5(string_agg(u::text, '' ORDER BY id)) FROM public.sf_users AS u"


def test_the_first_run_over_all_days_brings_everything(company: Company) -> None:
    result = company.run()
    assert result.success
    assert company.scalar("SELECT count(*) FROM public.sf_users") == FEW_PEOPLE
    assert company.scalar("SELECT count(*) FROM user_sync.salesforce_users_raw") == FEW_PEOPLE
    assert company.scalar("SELECT started_by FROM user_sync.sync_runs") == f"dagster {result.run_id}"
    checks = checks_of(result)
    assert len(checks) == len(build_definitions().resolve_asset_graph().asset_check_keys)
    assert all(check.passed for check in checks.values())

    raw, stored = metadata_by_day(result, "salesforce_users_raw"), metadata_by_day(result, "sf_users")
    newest = raw[company.today.isoformat()]
    assert (newest["mode"], newest["fetched"], newest["rejected"]) == ("full", FEW_PEOPLE, 0)
    assert newest["api_calls"] > 0
    assert 0 < newest["api_share_percent"] < 100
    assert newest["hidden_fields"] == "none"
    assert newest["dagster/table_name"] == "user_sync.salesforce_users_raw"
    newest = stored[company.today.isoformat()]
    assert (newest["inserted"], newest["updated"], newest["unchanged"]) == (FEW_PEOPLE, 0, 0)
    assert newest["dagster/row_count"] == FEW_PEOPLE
    assert newest["duration_seconds"] > 0

    for days in (raw, stored):
        rows = {day: data["dagster/partition_row_count"] for day, data in days.items()}
        assert len(rows) == DAYS
        assert rows.pop(company.horizon.isoformat()) == FEW_PEOPLE  # all of them older than the axis
        assert set(rows.values()) == {0}


@pytest.mark.slow
def test_the_second_run_changes_nothing(company: Company) -> None:
    assert company.run().success
    before = company.scalar(DIGEST)
    again = company.run()
    assert company.scalar(DIGEST) == before
    newest = metadata_by_day(again, "sf_users")[company.today.isoformat()]
    assert (newest["inserted"], newest["updated"], newest["unchanged"]) == (0, 0, FEW_PEOPLE)
    [data] = metadata_by_day(again, "profile_reconciliation").values()
    assert data["profiles_created"] == 0
    assert len(section_of(data["report"], "Trend")) == 2


@pytest.mark.slow
def test_a_run_over_two_days_brings_what_changed_in_them_and_tells_each_day_apart(company: Company) -> None:
    assert company.run().success
    clock, org = company.salesforce.clock, company.salesforce.org
    today, yesterday = company.today, company.today - timedelta(days=1)
    first, second, third = [user.id for user in org.users.ordered[:3]]
    clock.set(midday(yesterday))
    org.update_user(first, Title="Head of Engineering")
    org.update_user(second, Title="Head of Finance")
    clock.set(midday(today))
    org.deactivate_user(third)
    clock.advance(timedelta(minutes=5))

    result = company.run(yesterday, today)
    raw, stored = metadata_by_day(result, "salesforce_users_raw"), metadata_by_day(result, "sf_users")
    for days in (raw, stored):
        assert {day: data["dagster/partition_row_count"] for day, data in days.items()} == {
            yesterday.isoformat(): 2,
            today.isoformat(): 1,
        }
    assert raw[today.isoformat()]["mode"] == "recent"
    assert stored[today.isoformat()]["updated"] == 3
    assert company.scalar(f"SELECT is_active FROM public.sf_users WHERE id = '{third}'") is False
    assert all(check.passed for check in checks_of(result).values())


@pytest.mark.slow
def test_the_history_of_runs_has_its_figures_and_a_preview_once_and_no_personal_data(company: Company) -> None:
    result = company.run()
    raw = metadata_by_day(result, "salesforce_users_raw")
    assert [day for day, data in raw.items() if "preview" in data] == [company.today.isoformat()]
    newest = raw[company.today.isoformat()]
    assert len(newest["preview"].records) == 10
    assert set(newest["preview"].records[0].data) == set(PREVIEW_COLUMNS)
    assert newest["dagster/column_schema"].columns[0].name == "id"
    assert newest["dagster/column_lineage"].deps_by_column["id"][0].column_name == "Id"
    assert [day for day, data in raw.items() if "fetched" in data] == [company.today.isoformat()]  # plotted once a run

    history = repr(company.instance.get_records_for_run(result.run_id).records)
    assert "partition_row_count" in history
    with company.engine.connect() as connection:
        people = connection.exec_driver_sql("SELECT email, name, phone FROM public.sf_users").all()
    assert not [value for person in people for value in person if value and value in history]


@pytest.mark.slow
def test_the_reconciliation_creates_profiles_and_reports_findings(company: Company) -> None:
    missing = company.scalar("WITH lost AS (DELETE FROM public.user_profiles RETURNING id) SELECT count(*) FROM lost")
    [data] = metadata_by_day(company.run(), "profile_reconciliation").values()
    assert data["profiles_created"] == missing > 0
    assert (data["missing_profiles"], data["sync_percentage"], data["failed_creations"]) == (0, 100.0, 0)
    findings = company.scalar("SELECT count(*) FROM user_sync.profile_reconciliation")
    assert data["findings"] == data["dagster/row_count"] == findings > 0
    assert data["findings"] == sum(value for name, value in data.items() if name.startswith("findings_"))
    assert ["**Sync percentage**", "**100.00%**"] in section_of(data["report"], "Application profiles")
    [[_, synced, still_missing, created, found]] = section_of(data["report"], "Trend")
    assert (synced, still_missing, created, found) == ("100.00%", "0", str(missing), str(findings))
    assert 0 < len(section_of(data["report"], "The 10 worst")) <= 10
    with company.engine.connect() as connection:
        addresses = connection.exec_driver_sql("SELECT email FROM auth.users WHERE email IS NOT NULL").scalars().all()
    assert company.scalar("SELECT run_id::text FROM user_sync.profile_runs") == data["sync"]["run_id"]
    assert company.scalar("SELECT count(*) FROM user_sync.profile_links") == data["linked_people"] > 0
    assert addresses
    assert not [address for address in addresses if address in data["report"]]


@pytest.mark.slow
def test_without_supabase_the_salesforce_side_works_alone(
    company: Company, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_migrations(database_url=empty_database, profiles_url=None)
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", empty_database)
    result = company.run()
    assert result.success
    [data] = metadata_by_day(result, "profile_reconciliation").values()
    assert data["note"] == NOTHING_CONFIGURED
    assert data["dagster/row_count"] == 0
    of_profiles, of_users = [], []
    for check in result.get_asset_check_evaluations():
        (of_profiles if check.asset_key == dg.AssetKey("profile_reconciliation") else of_users).append(check)
    assert all(check.passed for check in of_users)
    assert {check.description for check in of_profiles} == {NOTHING_CONFIGURED}
    assert {check.severity for check in of_profiles} == {dg.AssetCheckSeverity.WARN}
    assert not any(check.passed for check in of_profiles)


@pytest.mark.slow
def test_one_day_and_one_asset_at_a_time_come_to_the_same(company: Company) -> None:
    job = build_definitions().resolve_implicit_global_asset_job_def()
    first_day = company.horizon.isoformat()
    for asset, day in (("salesforce_users_raw", first_day), ("sf_users", first_day), ("profile_reconciliation", None)):
        result = job.execute_in_process(
            instance=company.instance, partition_key=day, asset_selection=[dg.AssetKey(asset)]
        )
        assert list(metadata_by_day(result, asset)) == [day]
    assert company.scalar("SELECT count(*) FROM public.sf_users") == FEW_PEOPLE


@pytest.mark.slow
def test_a_missing_setting_fails_the_run_before_its_first_step(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SALESFORCE_CLIENT_SECRET")
    result = company.run()
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_start]
    assert "SALESFORCE_CLIENT_SECRET is not set" in repr([event for event in result.all_events if event.is_failure])
    assert company.tags_of(result)[RUN_RETRY_TAG] == "false"


@pytest.mark.slow
def test_a_wrong_secret_is_said_in_one_sentence_and_not_tried_again(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "not-the-secret")
    result = company.run()
    assert "SALESFORCE_CLIENT_SECRET" in failure_of(result)
    assert "not-the-secret" not in failure_of(result)
    assert company.tags_of(result)[RUN_RETRY_TAG] == "false"
    assert company.scalar("SELECT count(*) FROM user_sync.salesforce_users_raw") == 0


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_tried_again_and_then_said_in_one_sentence(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/postgres")
    result = company.run()
    assert "USER_SYNC_DATABASE_URL" in failure_of(result)
    assert "secret" not in failure_of(result)
    assert RUN_RETRY_TAG not in company.tags_of(result)
    retries = [event for event in result.all_events if event.is_step_up_for_retry]
    assert len(retries) == len(failures.WAITS)
    assert "USER_SYNC_DATABASE_URL" in repr(retries[0])


@pytest.mark.slow
def test_a_salesforce_that_answers_again_is_read_by_the_next_try_of_the_step(company: Company) -> None:
    company.salesforce.faults.add(Fault(on="updated", text='{"ids": []}', times=1))
    result = company.run()
    assert result.success
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == ["salesforce_users_raw"]


@pytest.mark.slow
def test_a_used_up_quota_is_a_pause_neither_a_failure_nor_a_success(company: Company) -> None:
    company.salesforce.org.set_daily_limit(3)
    result = company.run()
    assert not result.success
    assert company.status_of(result) is dg.DagsterRunStatus.CANCELED
    assert company.tags_of(result)[PAUSED_TAG] == "true"
    assert company.tags_of(result)[RUN_RETRY_TAG] == "false"
    assert failure_of(result).startswith("Paused: ")
    history = company.instance.get_records_for_run(result.run_id, of_type=dg.DagsterEventType.RUN_CANCELING).records
    [event] = [record.event_log_entry.dagster_event for record in history]
    assert event is not None
    assert (event.message or "").startswith("Paused: ")


@pytest.mark.slow
def test_a_range_that_ends_after_today_marks_no_day_that_has_not_come(company: Company) -> None:
    result = company.run(company.today, company.today + timedelta(days=3))
    assert list(metadata_by_day(result, "sf_users")) == [company.today.isoformat()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("days_from_today", "says"),
    [
        (None, "no partitions"),
        ((0, -2), "a start that lies before the end"),
        ((-9, 0), "before the first partition"),
        ((2, 3), "lies in the future"),
    ],
    ids=["no days", "reversed", "before the first day", "not yet come"],
)
def test_days_that_cannot_be_meant_are_refused_before_anything_is_asked(
    company: Company, days_from_today: tuple[int, int] | None, says: str
) -> None:
    tags = {}
    if days_from_today is not None:
        first, last = ((company.today + timedelta(days=days)).isoformat() for days in days_from_today)
        tags = {RANGE_START_TAG: first, RANGE_END_TAG: last}
    result = company.run_with_tags(tags)
    assert says in failure_of(result)
    assert not result.get_asset_materialization_events()
    assert company.salesforce.journal.exchanges == []
    assert company.scalar("SELECT count(*) FROM user_sync.sync_runs") == 0
