"""What an extraction reads, what it costs, how far it can be trusted, and what it certifies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.certificate import Certificate
from user_sync_pipeline.core.errors import ConfigurationError, PausedError
from user_sync_pipeline.core.read_bounds import LONGEST_TRANSACTION, OPEN_TRANSACTIONS
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG, WATERMARK_OVERLAP, Progress, UserSyncService
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people

MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = SyncWindow(None, NOW + timedelta(hours=12))
MANY, PAGE = 400, 20


@pytest.fixture
def org(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A Salesforce with twenty small pages of users, at a clock that stands still."""
    with SalesforceSimulator(people(MANY, seed=5, until=MADE_AT), authority) as simulator:
        simulator.clock.set(NOW)
        simulator.org.largest_page = PAGE
        yield simulator
    assert simulator.journal.violations == []


@contextmanager
def service(org: SalesforceSimulator, engine: Engine, **settings: Any) -> Iterator[UserSyncService]:
    read = SalesforceSettings.from_environment(org.environment())
    read = replace(read, **{"page_size": PAGE, "parallel_requests": 3, **settings})
    with RestUserService(read, retry=RetryPolicy(tries=2, sleep=lambda _: None)) as rest:
        yield UserSyncService(engine, rest)


@pytest.fixture
def users(org: SalesforceSimulator, engine: Engine) -> Iterator[UserSyncService]:
    with service(org, engine) as opened:
        yield opened


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def ids(org: SalesforceSimulator) -> list[str]:
    return [user.id for user in org.org.users.ordered]


def calls_of(org: SalesforceSimulator) -> int:
    return sum("/v" in each.path for each in org.journal.exchanges)


# Slices -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_window_is_read_in_slices_that_bring_every_user_once(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    result = users.sync_users(window=WINDOW)
    landed = rows(engine, "SELECT id FROM user_sync.salesforce_users_raw")
    assert sorted(landed) == sorted((user_id,) for user_id in ids(org))
    certificate = result.landing.certificate
    assert certificate is not None
    assert len(certificate.slices) == 3
    assert sum(slice_.rows for slice_ in certificate.slices) == MANY


@pytest.mark.slow
def test_a_small_window_is_read_in_one_piece(users: UserSyncService) -> None:
    landing = users.land(SyncWindow(MADE_AT - timedelta(days=30), MADE_AT), mode="custom")
    assert 0 < landing.fetched < 12 * PAGE
    assert landing.certificate is not None
    assert len(landing.certificate.slices) == 1


@pytest.mark.slow
def test_progress_knows_the_total_from_the_first_page(users: UserSyncService) -> None:
    seen: list[Progress] = []
    users.sync_users(window=WINDOW, progress=seen.append)
    assert {progress.total for progress in seen} == {MANY}
    assert [progress.rows for progress in seen] == sorted(progress.rows for progress in seen)
    assert seen[-1].rows == MANY


@pytest.mark.slow
def test_an_error_in_one_slice_ends_the_run_and_is_told_once(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    org.faults.add(Fault(on="next_page", first=4, error="MALFORMED_QUERY"))
    with pytest.raises(ConfigurationError, match="MALFORMED_QUERY"):
        users.land(WINDOW, mode="full")
    assert rows(engine, "SELECT outcome FROM user_sync.sync_runs") == [("failed",)]


# What it costs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [PAGE, 200])
def test_the_forecast_is_what_the_run_costs(org: SalesforceSimulator, engine: Engine, page_size: int) -> None:
    org.org.largest_page = page_size
    with service(org, engine, page_size=page_size) as users:
        forecast = users.forecast(WINDOW)
        assert rows(engine, "SELECT 1 FROM user_sync.sync_runs") == []
    before = calls_of(org)
    with service(org, engine, page_size=page_size) as users:
        result = users.sync_users(window=WINDOW)
    assert forecast.rows == result.landing.fetched == MANY
    assert forecast.api_calls == result.landing.usage.calls == calls_of(org) - before
    assert forecast.share == forecast.api_calls / org.org.quota.limit


@pytest.mark.slow
@pytest.mark.parametrize("limit", [5, 100, MANY, 10_000])
def test_the_forecast_of_a_limited_run_is_what_it_costs(org: SalesforceSimulator, engine: Engine, limit: int) -> None:
    with service(org, engine) as users:
        forecast = users.forecast(WINDOW, limit)
    with service(org, engine) as users:
        result = users.sync_users(window=WINDOW, limit=limit)
    assert forecast.rows == result.landing.fetched
    assert forecast.api_calls == result.landing.usage.calls


@pytest.mark.slow
def test_a_quiet_day_takes_five_calls(org: SalesforceSimulator, engine: Engine) -> None:
    with service(org, engine) as users:
        users.sync_users(window=WINDOW)
    org.clock.advance(timedelta(days=1))
    for user_id in ids(org)[:15]:
        org.org.update_user(user_id, Title="Quiet")
    org.clock.advance(timedelta(days=1))
    with service(org, engine, page_size=None) as users:
        result = users.sync_users(window=users.window_since_watermark())
    assert (result.counts.updated, result.complete) == (15, True)
    assert result.landing.usage.calls == 5


def test_a_budget_pauses_the_run_and_the_ledger_tells_what_it_spent(org: SalesforceSimulator, engine: Engine) -> None:
    with service(org, engine, api_budget_per_run=10) as users, pytest.raises(PausedError, match="BUDGET"):
        users.sync_users(window=WINDOW)
    assert rows(engine, "SELECT outcome, api_calls FROM user_sync.sync_runs") == [("paused", 10)]
    assert rows(engine, "SELECT 1 FROM user_sync.watermarks") == []


# The watermark ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_watermark_is_held_by_an_open_transaction_and_the_reason_is_told(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    started = NOW - timedelta(minutes=30)
    org.clock.set(started)
    transaction = org.org.begin()
    transaction.update_user(ids(org)[0], Title="Late")
    org.clock.set(NOW)
    held = users.sync_users(window=WINDOW)
    assert (held.watermark, held.landing.held_reason) == (started, OPEN_TRANSACTIONS)
    assert held.landing.certificate is not None
    assert held.landing.certificate.vouched_until == started

    transaction.commit()
    org.clock.advance(timedelta(minutes=5))
    window = users.window_since_watermark()
    assert window.since == started - WATERMARK_OVERLAP
    assert users.sync_users(window=window).watermark == org.clock.now() - VISIBILITY_LAG
    assert rows(engine, "SELECT count(*) FROM sf_users WHERE title = 'Late'") == [(1,)]


@pytest.mark.slow
def test_the_watermark_stays_behind_when_salesforce_does_not_vouch(
    users: UserSyncService, org: SalesforceSimulator
) -> None:
    org.faults.add(Fault(on="updated", error="EXCEEDED_ID_LIMIT"))
    result = users.sync_users(window=WINDOW)
    assert result.watermark == NOW - LONGEST_TRANSACTION
    assert result.landing.held_reason is not None


def test_before_the_first_run_everything_is_to_be_read(users: UserSyncService) -> None:
    assert users.window_since_watermark() == SyncWindow.full(now=NOW)


@pytest.mark.slow
def test_gotcha_34_another_organisation_is_refused_before_anything_is_stored(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    users.sync_users(window=WINDOW)
    before, first = rows(engine, "SELECT id, sync_run_id FROM sf_users ORDER BY id"), org.org.id
    org.org.become_another()
    with service(org, engine) as refreshed:
        with pytest.raises(ConfigurationError, match=f"{first}.*{org.org.id}.*USER_SYNC_DATABASE_URL"):
            refreshed.sync_users(window=WINDOW)
        with pytest.raises(ConfigurationError, match="SALESFORCE_LOGIN_URL"):
            refreshed.window_since_watermark()
    assert rows(engine, "SELECT id, sync_run_id FROM sf_users ORDER BY id") == before
    assert rows(engine, "SELECT count(*) FROM user_sync.sync_runs") == [(1,)]


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "warning"), [(1, "behind"), (-1, "ahead of")])
def test_gotcha_05_a_clock_that_is_wrong_is_warned_of_and_has_no_say(
    users: UserSyncService, org: SalesforceSimulator, shift: int, warning: str
) -> None:
    now = datetime.now(UTC).replace(microsecond=0) + shift * timedelta(hours=1)
    org.clock.set(now)
    result = users.sync_users()
    assert len(result.landing.warnings) == 1
    assert warning in result.landing.warnings[0]
    assert result.watermark == now - VISIBILITY_LAG


@pytest.mark.slow
def test_a_clock_that_is_nearly_right_is_not_warned_of(users: UserSyncService, org: SalesforceSimulator) -> None:
    org.clock.set(datetime.now(UTC) - timedelta(seconds=20))
    assert users.sync_users().landing.warnings == ()


# Fields that vanish -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gotcha_27_a_field_that_vanishes_while_it_is_read_leaves_what_is_stored_of_it(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    users.sync_users(window=WINDOW)
    titles = rows(engine, "SELECT id, title FROM sf_users ORDER BY id")
    for user_id in ids(org):
        org.org.update_user(user_id, Department="Night Watch", Title="Not to be seen")
    org.clock.advance(timedelta(minutes=5))

    def hide(progress: Progress) -> None:
        if progress.pages == 2:
            org.org.hide_field("Title")

    result = users.sync_users(window=WINDOW, progress=hide)

    assert (result.landing.lost_fields, result.landing.hidden_fields) == (("Title",), ("Title",))
    assert result.complete
    assert rows(engine, "SELECT id, title FROM sf_users ORDER BY id") == titles
    assert rows(engine, "SELECT count(*) FROM sf_users WHERE department = 'Night Watch'") == [(MANY,)]
    ledger = "SELECT lost_fields, 'title' = ANY(fetched_columns) FROM user_sync.sync_runs ORDER BY started_at"
    assert rows(engine, ledger) == [([], True), (["Title"], False)]


# The certificate ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_certificate_can_be_checked_against_the_table(
    users: UserSyncService, org: SalesforceSimulator, engine: Engine
) -> None:
    org.org.hide_field("Fax")
    org.org.deactivate_user(ids(org)[0])
    org.clock.advance(timedelta(minutes=5))
    result = users.sync_users(window=WINDOW)
    [(certificate,)] = rows(engine, "SELECT certificate FROM user_sync.sync_runs")
    assert result.landing.certificate is not None
    assert certificate == result.landing.certificate.as_json() == Certificate.from_json(certificate).as_json()

    stored = rows(engine, "SELECT id, system_modstamp, user_type, is_active FROM sf_users")
    lines = sorted(f"{id_} {moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z" for id_, moment, _, _ in stored)
    assert certificate["digest"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    counted = {
        user_type: {
            "active": sum(active for _, _, type_, active in stored if type_ == user_type),
            "inactive": sum(not active for _, _, type_, active in stored if type_ == user_type),
        }
        for user_type in {type_ for _, _, type_, _ in stored}
    }
    assert certificate["users_by_type"] == counted
    assert (certificate["users"], certificate["closing_count"], certificate["complete"]) == (MANY, MANY, True)
    assert certificate["hidden_fields"] == ["Fax"]
    assert certificate["until"] == "2026-06-15T12:04:00Z"


@pytest.mark.slow
def test_a_user_that_was_missed_makes_the_run_incomplete(users: UserSyncService, org: SalesforceSimulator) -> None:
    """He was changed within the window and is seen only after its page was read."""
    org.clock.set(NOW - timedelta(minutes=30))
    transaction = org.org.begin()
    transaction.add_user(Username="late@example.com", LastName="Late", Alias="late")
    org.clock.set(NOW)

    def commit(progress: Progress) -> None:
        if progress.rows == progress.total:
            transaction.commit()

    result = users.sync_users(window=WINDOW, progress=commit)
    assert result.landing.certificate is not None
    assert result.landing.certificate.closing_count == MANY + 1
    assert not result.complete
    assert result.as_json()["complete"] is False


@pytest.mark.slow
def test_gotcha_40_a_user_who_changes_while_the_run_reads_leaves_it_complete(
    users: UserSyncService, org: SalesforceSimulator
) -> None:
    def change(progress: Progress) -> None:
        if progress.pages == 1:
            org.org.update_user(ids(org)[0], Title="Meanwhile")

    result = users.sync_users(window=WINDOW, progress=change)
    assert result.landing.certificate is not None
    assert result.landing.certificate.closing_count == MANY - 1
    assert result.complete


@pytest.mark.slow
def test_a_limited_run_certifies_no_more_than_its_rows(users: UserSyncService) -> None:
    certificate = users.sync_users(window=WINDOW, limit=30).landing.certificate
    assert certificate is not None
    assert (certificate.users, certificate.closing_count, certificate.complete) == (30, None, False)
