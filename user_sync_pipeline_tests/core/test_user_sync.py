"""The service against a real Salesforce protocol over TLS and a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from user_sync_pipeline.core.errors import ConfigurationError, UsageError
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG, Progress, UserSyncService
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT


@pytest.fixture
def rest(salesforce: SalesforceSimulator) -> Iterator[RestUserService]:
    with RestUserService(SalesforceSettings.from_environment(salesforce.environment())) as service:
        yield service


@pytest.fixture
def service(engine: Engine, rest: RestUserService) -> UserSyncService:
    return UserSyncService(engine, rest)


def scalar(engine: Engine, statement: str) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text(statement))


def some_user(salesforce: SalesforceSimulator) -> str:
    return salesforce.org.users.ordered[FEW_PEOPLE // 2].id


def pass_the_lag(salesforce: SalesforceSimulator) -> None:
    salesforce.clock.advance(VISIBILITY_LAG + timedelta(seconds=1))


@pytest.mark.slow
def test_the_first_run_stores_every_user_and_the_second_changes_nothing(
    service: UserSyncService, engine: Engine
) -> None:
    first = service.sync_users()
    assert (first.landing.fetched, first.counts.inserted, first.rejected) == (FEW_PEOPLE, FEW_PEOPLE, 0)
    assert scalar(engine, "SELECT count(*) FROM sf_users") == FEW_PEOPLE

    stored = "SELECT md5(string_agg(sf_users::text, ',' ORDER BY id)) FROM sf_users"
    before = scalar(engine, stored)
    second = service.sync_users()
    assert (second.counts.inserted, second.counts.updated, second.counts.unchanged) == (0, 0, FEW_PEOPLE)
    assert scalar(engine, stored) == before


@pytest.mark.slow
def test_a_changed_user_is_updated_alone_by_a_run_since_the_watermark(
    service: UserSyncService, engine: Engine, salesforce: SalesforceSimulator
) -> None:
    watermark = service.sync_users().watermark
    assert watermark is not None
    salesforce.org.update_user(some_user(salesforce), Title="Chief Steward")
    pass_the_lag(salesforce)

    result = service.sync_users(modified_since=watermark)

    assert (result.landing.fetched, result.counts.updated, result.counts.inserted) == (1, 1, 0)
    assert scalar(engine, "SELECT count(*) FROM sf_users WHERE title = 'Chief Steward'") == 1
    assert result.watermark is not None
    assert result.watermark > watermark


@pytest.mark.slow
def test_a_deactivated_user_is_kept_with_the_moment_and_loses_it_on_return(
    service: UserSyncService, engine: Engine, salesforce: SalesforceSimulator
) -> None:
    service.sync_users()
    user = some_user(salesforce)
    gone_since = f"SELECT deactivated_at IS NOT NULL FROM sf_users WHERE id = '{user}'"
    for is_active in (False, True):
        salesforce.org.update_user(user, IsActive=is_active)
        pass_the_lag(salesforce)
        service.sync_users()
        assert scalar(engine, gone_since) is not is_active


@pytest.mark.slow
def test_gotcha_02_what_changed_within_the_last_minute_waits_for_the_next_run(
    service: UserSyncService, engine: Engine, salesforce: SalesforceSimulator
) -> None:
    salesforce.org.add_user(Username="new@example.com", LastName="New", Alias="new")
    assert service.sync_users().landing.fetched == FEW_PEOPLE
    pass_the_lag(salesforce)
    assert service.sync_users().counts.inserted == 1


def test_a_limited_run_is_incomplete_and_leaves_the_watermark_alone(service: UserSyncService) -> None:
    result = service.sync_users(limit=5)
    assert (result.landing.fetched, result.counts.inserted) == (5, 5)
    assert result.complete is False
    assert result.watermark is None


@pytest.mark.slow
def test_a_limited_run_counts_only_what_it_fetched(service: UserSyncService) -> None:
    service.sync_users()
    counts = service.sync_users(limit=5).counts
    assert counts.inserted + counts.updated + counts.unchanged == 5


def test_a_limit_below_one_is_refused_before_anything_is_asked(
    service: UserSyncService, salesforce: SalesforceSimulator
) -> None:
    with pytest.raises(UsageError, match="--limit"):
        service.sync_users(limit=0)
    assert salesforce.journal.exchanges == []


@pytest.mark.slow
def test_a_window_that_has_just_begun_fetches_nothing_and_succeeds(
    service: UserSyncService, salesforce: SalesforceSimulator
) -> None:
    now = salesforce.clock.now()
    result = service.sync_users(window=SyncWindow(now - timedelta(seconds=1), now + timedelta(days=1)))
    assert result.landing.fetched == 0
    assert result.complete is True


@pytest.mark.slow
def test_gotcha_26_a_hidden_field_is_reported_and_its_stored_values_stay(
    service: UserSyncService, engine: Engine, salesforce: SalesforceSimulator
) -> None:
    service.sync_users()
    titles = "SELECT md5(string_agg(title, ',' ORDER BY id)) FROM sf_users"
    before = scalar(engine, titles)
    salesforce.org.hide_field("Title")
    salesforce.org.update_user(some_user(salesforce), Department="Night Watch")
    pass_the_lag(salesforce)

    # A new service asks again which fields there are.
    with RestUserService(SalesforceSettings.from_environment(salesforce.environment())) as rest:
        result = UserSyncService(engine, rest).sync_users()

    assert result.landing.hidden_fields == ("Title",)
    assert scalar(engine, titles) == before
    assert scalar(engine, "SELECT count(*) FROM sf_users WHERE department = 'Night Watch'") == 1


@pytest.mark.slow
def test_a_run_without_a_window_ends_by_the_clock_of_salesforce(
    service: UserSyncService, salesforce: SalesforceSimulator
) -> None:
    """The clock of this machine is a day and a half behind."""
    salesforce.clock.set(datetime.now(UTC) + timedelta(hours=36))
    changed_at = salesforce.org.now()
    salesforce.org.update_user(some_user(salesforce), Title="Chief Steward")
    pass_the_lag(salesforce)
    assert service.sync_users(modified_since=changed_at).landing.fetched == 1
    assert service.sync_users().landing.last_change == changed_at


@pytest.mark.slow
def test_the_forecast_names_the_rows_and_fetches_none(
    service: UserSyncService, engine: Engine, salesforce: SalesforceSimulator
) -> None:
    window = SyncWindow.full(now=datetime.now(UTC))
    forecast = service.forecast(window)
    assert forecast.rows == FEW_PEOPLE
    assert scalar(engine, "SELECT count(*) FROM user_sync.sync_runs") == 0
    assert all("COUNT" in each.query for each in salesforce.journal.exchanges if each.path.endswith("/query/"))

    before = service.forecast(window).usage.calls
    result = service.sync_users(window=window)
    assert result.landing.usage.calls - before == pytest.approx(forecast.api_calls, abs=1)


@pytest.mark.slow
def test_progress_counts_up_to_the_total(service: UserSyncService) -> None:
    seen: list[Progress] = []
    service.sync_users(progress=seen.append)
    assert seen[-1].rows == seen[-1].total == FEW_PEOPLE
    assert seen[-1].usage.calls > 0


@pytest.mark.slow
def test_rows_are_counted_by_the_day_of_their_last_change(
    service: UserSyncService, salesforce: SalesforceSimulator
) -> None:
    result = service.sync_users()
    assert sum(result.landing.rows_per_day.values()) == FEW_PEOPLE
    assert max(result.landing.rows_per_day) < ORG_MADE_AT.date()


@pytest.mark.slow
def test_the_callers_session_is_left_as_it_was(engine: Engine, rest: RestUserService) -> None:
    with Session(engine) as session:
        session.execute(text("CREATE TEMPORARY TABLE mine (a int) ON COMMIT DROP"))
        UserSyncService(session, rest).sync_users(limit=3)
        assert session.scalar(text("SELECT count(*) FROM mine")) == 0


@pytest.mark.slow
def test_a_run_that_breaks_off_is_failed_in_the_ledger_and_the_next_one_repairs(
    service: UserSyncService, engine: Engine
) -> None:
    def break_off(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.sync_users(progress=break_off)
    assert scalar(engine, "SELECT outcome FROM user_sync.sync_runs") == "failed"
    assert scalar(engine, "SELECT count(*) FROM user_sync.watermarks") == 0

    assert service.sync_users().counts.inserted == FEW_PEOPLE


@pytest.mark.slow
def test_salesforce_is_only_read(service: UserSyncService, salesforce: SalesforceSimulator) -> None:
    service.sync_users()
    assert salesforce.journal.violations == []


def test_a_database_without_the_tables_is_explained_in_one_sentence(empty_database: str, rest: RestUserService) -> None:
    engine = create_database_engine(empty_database)
    with pytest.raises(ConfigurationError, match="user-sync migrate apply"):
        UserSyncService(engine, rest).sync_users()
    engine.dispose()
