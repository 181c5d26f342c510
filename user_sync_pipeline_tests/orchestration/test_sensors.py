from __future__ import annotations

import time
from datetime import timedelta

import dagster as dg
import pytest

from user_sync_pipeline.core.recent_changes import NOTHING_READ
from user_sync_pipeline.partitions import RANGE_END_TAG, RANGE_START_TAG, range_tags
from user_sync_pipeline.sensors import READING, RUN_OF_ASSETS
from user_sync_pipeline_tests.orchestration.conftest import Company
from user_sync_pipeline_tests.orchestration.ticks import RecentSync

VERSIONED = "/services/data/v"


@pytest.fixture
def sensor(company: Company) -> RecentSync:
    return RecentSync(company.instance)


def change_somebody(company: Company, title: str = "Head of Engineering", number: int = 0) -> str:
    user_id = company.salesforce.org.users.ordered[number].id
    company.salesforce.org.update_user(user_id, Title=title)
    return user_id


def wait(company: Company, minutes: float = 5) -> None:
    company.salesforce.clock.advance(timedelta(minutes=minutes))


def api_calls(company: Company) -> list[str]:
    return [each.path for each in company.salesforce.journal.exchanges if each.path.startswith(VERSIONED)]


def title_of(company: Company, user_id: str) -> str:
    return str(company.scalar(f"SELECT title FROM public.sf_users WHERE id = '{user_id}'"))


@pytest.mark.slow
def test_a_quiet_tick_is_one_api_call_and_quick(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    assert sensor.reason().startswith("Nobody has changed since ")
    seconds: list[float] = []
    for _ in range(3):
        wait(company)
        company.salesforce.journal.clear()
        started = time.monotonic()
        assert sensor.reason().startswith("Nobody has changed since ")
        seconds.append(time.monotonic() - started)
        [path] = api_calls(company)
        assert path.rstrip("/").endswith("/sobjects/User/updated")
    assert min(seconds) < 1


def test_before_the_first_full_run_nothing_is_asked_of_the_api(company: Company, sensor: RecentSync) -> None:
    assert sensor.reason() == NOTHING_READ
    assert api_calls(company) == []


def test_a_change_asks_for_the_days_behind_the_watermark_and_the_run_brings_it(
    company: Company, sensor: RecentSync
) -> None:
    assert company.run().success
    user_id = change_somebody(company)
    wait(company)
    tags = sensor.request()
    assert tags is not None
    assert tags[RANGE_END_TAG] == company.today.isoformat()
    assert tags[RANGE_START_TAG] == (company.today - timedelta(days=1)).isoformat()
    assert company.run_with_tags(tags).success
    assert title_of(company, user_id) == "Head of Engineering"
    wait(company)
    assert sensor.reason().startswith("Nobody has changed since ")


@pytest.mark.slow
def test_more_changes_than_salesforce_lists_are_read_all_the_same(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company, number=0)
    change_somebody(company, number=1)
    wait(company)
    company.salesforce.org.most_updated_ids = 1
    assert sensor.request() is not None


@pytest.mark.slow
def test_after_more_than_thirty_days_salesforce_cannot_say_and_all_is_read(
    company: Company, sensor: RecentSync
) -> None:
    assert company.run().success
    wait(company, minutes=31 * 24 * 60)
    tags = sensor.request()
    assert tags is not None
    assert tags[RANGE_START_TAG] == (company.today - timedelta(days=32)).isoformat()


@pytest.mark.slow
def test_two_ticks_in_one_bucket_of_time_launch_one_run(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company)
    now = company.salesforce.clock.now()
    company.salesforce.clock.set(
        now.replace(second=0, microsecond=0, minute=now.minute // 5 * 5) + timedelta(minutes=5)
    )
    assert sensor.request() is not None
    restarted = sensor.tick()
    assert [request.run_key for request in restarted.run_requests] == list(sensor._keys)


@pytest.mark.slow
@pytest.mark.parametrize("cursor", [None, "unreadable", '{"watermark": 1}'])
def test_a_lost_or_unreadable_cursor_costs_nothing(company: Company, sensor: RecentSync, cursor: str | None) -> None:
    assert company.run().success
    change_somebody(company)
    wait(company)
    sensor.cursor = cursor
    assert sensor.request() is not None


@pytest.mark.slow
def test_while_a_run_of_these_days_is_on_its_way_nothing_is_asked(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company)
    wait(company)
    tags = sensor.request()
    assert tags is not None
    company.salesforce.journal.clear()
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED):
        run = sensor.add_run(status, tags)
        wait(company)
        assert sensor.reason().startswith("A run of ")
        company.instance.delete_run(run.run_id)
    assert api_calls(company) == []


@pytest.mark.slow
def test_a_run_of_other_days_keeps_nothing_waiting(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company)
    wait(company)
    sensor.add_run(dg.DagsterRunStatus.STARTED, range_tags(company.horizon, company.today - timedelta(days=1)))
    assert sensor.request() is not None


@pytest.mark.slow
def test_a_run_that_does_not_read_the_users_keeps_nothing_waiting(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company)
    wait(company)
    company.instance.create_run_for_job(
        sensor.job.get_subset(asset_selection={dg.AssetKey("sf_users")}),
        status=dg.DagsterRunStatus.STARTED,
        tags=range_tags(company.horizon, company.today),
        asset_selection=frozenset({dg.AssetKey("sf_users")}),
    )
    assert sensor.request() is not None


@pytest.mark.slow
def test_a_run_launched_from_the_graph_of_assets_counts_as_one_of_the_job(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    change_somebody(company)
    wait(company)
    assets = sensor.definitions.resolve_implicit_global_asset_job_def()
    assert assets.name == RUN_OF_ASSETS
    company.instance.create_run_for_job(
        assets.get_subset(asset_selection=READING),
        status=dg.DagsterRunStatus.STARTED,
        tags=range_tags(company.horizon, company.today),
        asset_selection=frozenset(READING),
    )
    assert sensor.reason().startswith("A run of ")


@pytest.mark.slow
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_run_that_failed_or_was_canceled_is_asked_for_again_after_a_while(
    company: Company, sensor: RecentSync, status: dg.DagsterRunStatus
) -> None:
    assert company.run().success
    user_id = change_somebody(company)
    wait(company)
    tags = sensor.request()
    assert tags is not None
    run = sensor.add_run(dg.DagsterRunStatus.STARTED, tags)
    if status is dg.DagsterRunStatus.FAILURE:
        company.instance.report_run_failed(run)
    else:
        company.instance.report_run_canceled(run)
    company.salesforce.clock.set(company.salesforce.clock.now() - timedelta(minutes=5))  # as the machine's
    assert f"ended once as {status.value.lower().replace('failure', 'failed')}" in sensor.reason()
    wait(company, minutes=11)  # after five it may be tried again, after ten its key is another one
    again = sensor.request()
    assert again == tags
    assert company.run_with_tags(again).success
    assert title_of(company, user_id) == "Head of Engineering"


@pytest.mark.slow
def test_a_run_paused_by_the_quota_is_gone_on_with_when_there_is_quota_again(
    company: Company, sensor: RecentSync
) -> None:
    org = company.salesforce.org
    org.set_daily_limit(4)
    first = company.run()
    assert company.status_of(first) is dg.DagsterRunStatus.CANCELED
    assert "ended once as paused" in sensor.reason()
    wait(company, minutes=6)
    assert sensor.reason().startswith("Paused: ")  # Salesforce refuses the question itself
    org.set_daily_limit(5)
    wait(company)
    assert sensor.reason().endswith("Salesforce's quota is still used up.")
    org.set_daily_limit(100_000)
    wait(company)
    tags = sensor.request()
    assert tags is not None
    assert tags.items() >= range_tags(company.horizon, company.today).items()
    assert company.run_with_tags(tags).success
    assert company.scalar("SELECT count(*) FROM user_sync.watermarks") == 1
    wait(company)
    assert sensor.reason().startswith("Nobody has changed since ")


@pytest.mark.slow
def test_a_paused_run_goes_on_in_the_ledger_where_it_was(
    company: Company, sensor: RecentSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert company.run().success
    for number in range(12):
        change_somebody(company, number=number)
    wait(company)
    company.salesforce.org.largest_page = 1
    tags = sensor.request()
    assert tags is not None
    monkeypatch.setenv("SALESFORCE_PARALLEL_REQUESTS", "1")
    monkeypatch.setenv("SALESFORCE_API_BUDGET_PER_RUN", "9")
    pauses = 0
    while company.status_of(company.run_with_tags(tags)) is dg.DagsterRunStatus.CANCELED:
        pauses += 1
        wait(company, minutes=60)
        again = sensor.request()
        assert again is not None
        assert again[RANGE_START_TAG] == tags[RANGE_START_TAG]
        tags = again
    assert pauses > 1
    assert company.scalar("SELECT resumed FROM user_sync.sync_runs ORDER BY started_at DESC LIMIT 1") == pauses
    assert company.scalar("SELECT count(*) FROM public.sf_users WHERE title = 'Head of Engineering'") == 12


@pytest.mark.slow
def test_a_late_commit_behind_a_run_is_brought_by_the_next_one(company: Company, sensor: RecentSync) -> None:
    assert company.run().success
    wait(company)
    late, early = [user.id for user in company.salesforce.org.users.ordered[:2]]
    transaction = company.salesforce.org.begin()
    transaction.update_user(late, Title="Committed late")
    wait(company)
    company.salesforce.org.update_user(early, Title="Committed at once")
    wait(company)
    tags = sensor.request()
    assert tags is not None
    assert company.run_with_tags(tags).success
    assert title_of(company, early) == "Committed at once"
    wait(company)
    assert sensor.reason().startswith("Nobody has changed since ")  # as far as can be seen
    transaction.commit()
    wait(company, minutes=10)
    tags = sensor.request()
    assert tags is not None
    assert company.run_with_tags(tags).success
    assert title_of(company, late) == "Committed late"


@pytest.mark.slow
def test_a_salesforce_that_cannot_be_reached_fails_the_tick_and_keeps_the_cursor(
    company: Company, sensor: RecentSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert company.run().success
    sensor.reason()
    before = sensor.cursor
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "wrong")
    with pytest.raises(Exception, match="SALESFORCE_CLIENT_SECRET"):
        sensor.tick()
    assert sensor.cursor == before
