"""Users that come by Bulk 2.0 are stored like those that come over REST, and nothing else is sent for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests
from sqlalchemy import Engine

from user_sync_pipeline.core.salesforce import bulk
from user_sync_pipeline.core.salesforce import rest as rest_module
from user_sync_pipeline.core.salesforce.bulk import Patience
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.bulk import Outcome
from user_sync_pipeline_tests.core.bulk.harness import (
    BULK_PAGE,
    EXTRA,
    JOBS,
    MANY,
    NOW,
    WINDOW,
    forget_everything,
    make_nasty,
    notes,
    rows,
    service,
    sync,
    users_stored,
    warnings,
    writes,
)
from user_sync_pipeline_tests.core.salesforce.test_no_way_round import reachable


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), ("StateCode", "CountryCode"), ("Title", "External_ID__c", "Region__c")])
@pytest.mark.parametrize("grade", ["double", "string", "boolean"])
def test_gotcha_25_both_transports_store_the_same(
    org: SalesforceSimulator, engine: Engine, hidden: tuple[str, ...], grade: str
) -> None:
    make_nasty(org)
    org.org.retype_field("Grade__c", grade)
    for name in hidden:
        org.org.hide_field(name)
    org.clock.advance(timedelta(hours=1))
    by_rest = sync(org, engine, transport="rest", extra_fields=EXTRA)
    expected = users_stored(engine)
    forget_everything(engine)

    by_bulk = sync(org, engine, transport="bulk", extra_fields=EXTRA)

    assert (by_rest.landing.transport, by_bulk.landing.transport) == ("rest", "bulk")
    assert warnings(by_bulk) == warnings(by_rest) == []
    assert users_stored(engine) == expected
    assert len(expected) > MANY // 2
    assert notes(by_bulk) == notes(by_rest) != set()
    assert by_bulk.landing.hidden_fields == by_rest.landing.hidden_fields
    assert by_bulk.landing.certificate is not None
    assert by_rest.landing.certificate is not None
    assert by_bulk.landing.certificate.complete
    assert by_bulk.landing.certificate.digest == by_rest.landing.certificate.digest
    assert by_bulk.landing.certificate.as_json()["transport"] == "bulk"


@pytest.mark.slow
def test_a_part_of_the_window_and_of_the_users_comes_by_bulk_as_well(org: SalesforceSimulator, engine: Engine) -> None:
    since = NOW - timedelta(minutes=30)
    org.clock.set(since)
    for user in org.org.users.ordered[:3]:
        org.org.update_user(user.id, Title="Changed")
    org.clock.set(NOW)
    with service(org, engine) as users:
        result = users.sync_users(window=SyncWindow(since, WINDOW.until))
    assert (result.landing.transport, result.landing.fetched, result.complete) == ("bulk", 3, True)


@pytest.mark.slow
def test_a_field_that_vanishes_before_the_job_is_left_out(org: SalesforceSimulator, engine: Engine) -> None:
    with service(org, engine) as users:
        users._rest.selected_fields()
        org.org.hide_field("Title")
        result = users.sync_users(window=WINDOW)
    assert result.landing.transport == "bulk"
    assert result.landing.lost_fields == ("Title",)
    assert rows(engine, "SELECT count(*), count(title) FROM sf_users") == [(MANY, 0)]


# What is sent -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_changed_in_salesforce_but_our_own_job(org: SalesforceSimulator, engine: Engine) -> None:
    assert sync(org, engine).complete
    (_, created), (_, deleted) = writes(org)
    assert writes(org) == [("POST", created), ("DELETE", deleted)]
    assert created == JOBS
    assert deleted.startswith(f"{JOBS}/750")
    assert org.org.jobs.all() == []
    results = [exchange for exchange in org.journal.exchanges if exchange.path.endswith("/results")]
    assert len(results) == -(-MANY // BULK_PAGE)


@pytest.mark.slow
def test_a_job_neither_orders_nor_limits(org: SalesforceSimulator, engine: Engine) -> None:
    org.org.jobs.settings.outcome = Outcome.STAY_IN_PROGRESS
    jobs: list[Any] = []

    def look(seconds: float) -> None:
        jobs.extend(org.org.jobs.all())
        org.clock.advance(timedelta(seconds=seconds))

    with service(org, engine) as users:
        users._rest._patience = Patience(deadline=2, sleep=look)
        users.sync_users(window=WINDOW)
    assert jobs[0].is_chunked


@pytest.mark.parametrize("options", [{"limit": 5}, {"window": SyncWindow(NOW - timedelta(minutes=5), WINDOW.until)}])
def test_a_limit_or_a_window_with_nothing_in_it_needs_no_job(
    org: SalesforceSimulator, engine: Engine, options: dict[str, Any]
) -> None:
    with service(org, engine) as users:
        result = users.sync_users(**{"window": WINDOW, **options})
    assert result.landing.transport == "rest"
    assert warnings(result) == []
    assert writes(org) == []


@pytest.mark.slow
@pytest.mark.parametrize(("worth", "transport"), [(MANY, "bulk"), (MANY + 1, "rest")])
def test_auto_takes_bulk_where_there_are_many_users(
    org: SalesforceSimulator, engine: Engine, monkeypatch: pytest.MonkeyPatch, worth: int, transport: str
) -> None:
    monkeypatch.setattr(rest_module, "RECORDS_WORTH_A_JOB", worth)
    with service(org, engine, transport="auto") as users:
        assert users.forecast(WINDOW).transport == transport
        assert users.sync_users(window=WINDOW).landing.transport == transport


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 2, 20, 200])
def test_the_forecast_is_what_is_used_when_the_job_takes_as_long_as_supposed(
    org: SalesforceSimulator, engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    org.org.jobs.settings.page_rows = 50_000
    if seconds:
        monkeypatch.setattr(bulk, "RECORDS_A_SECOND", MANY / seconds)
    with service(org, engine) as users:
        forecast = users.forecast(WINDOW)
    assert (forecast.rows, forecast.transport) == (MANY, "bulk")
    org.org.jobs.settings.work_time = timedelta(seconds=seconds)
    assert sync(org, engine).landing.usage.calls == forecast.api_calls


def test_a_session_for_bulk_sends_nothing_but_what_its_own_job_needs(org: SalesforceSimulator, engine: Engine) -> None:
    foreign = f"{JOBS}/7505g0000SimOwnAQE"
    forbidden = [
        ("PATCH", foreign, {"state": "Aborted"}),
        ("DELETE", foreign, None),
        ("GET", f"{foreign}/results", None),
        ("GET", JOBS, None),
        ("POST", JOBS, {"operation": "queryAll", "query": "SELECT Id FROM User"}),
        ("POST", JOBS, {"operation": "query", "query": "SELECT Id FROM Account"}),
        ("POST", "/services/data/v66.0/jobs/ingest", {"object": "User", "operation": "update"}),
        ("PATCH", "/services/data/v66.0/sobjects/User/0055g000001AbCdAAK", {"Title": "x"}),
    ]
    with service(org, engine) as users:
        pages = users._rest.fetch_slices_by_bulk([(WINDOW, None)])
        next(pages)
        sessions = [thing for thing in reachable(pages) if isinstance(thing, requests.Session)]
        before = len(org.journal.exchanges)
        for session in sessions:
            for method, path, body in forbidden:
                with pytest.raises(NotReadOnlyError):
                    session.send(requests.Request(method, org.url + path, json=body).prepare())
        assert sessions
        assert not [exchange for exchange in org.journal.exchanges[before:] if exchange.method != "GET"]
        pages.close()
    assert [method for method, _ in writes(org)] == ["POST", "DELETE"]
