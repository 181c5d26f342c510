"""The situations that a client of Salesforce gets into, lived through in whole runs: limits, faults, time and rights.

The others are in `test_scenarios.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UsageError
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.quota import LimitHeader
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.core.salesforce.whole_runs import (
    FEW,
    MADE_AT,
    NOW,
    PAGE,
    after_page,
    asked,
    catch_up,
    everybody,
    in_salesforce,
    rows,
    service,
    stored,
    sync,
)

# 10 and 11: limits, and what befalls requests -----------------------------------------------------------------------


@pytest.mark.parametrize("free", range(7))
def test_scenario_10_the_daily_limit_is_reached_at_any_request(
    paged: SalesforceSimulator, warehouse: Engine, free: int
) -> None:
    paged.org.set_daily_limit(free)
    with pytest.raises(PausedError, match="24 hours"):
        sync(paged, warehouse, api_reserve_percent=0)
    paged.clock.advance(timedelta(hours=25))
    paged.org.set_daily_limit(100)
    result = sync(paged, warehouse, api_reserve_percent=0)
    assert result.complete
    assert stored(warehouse) == in_salesforce(paged)


def test_scenario_10_too_many_requests_at_once_are_waited_for(paged: SalesforceSimulator, warehouse: Engine) -> None:
    message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    paged.faults.add(Fault(on="page", first=2, times=2, error="REQUEST_LIMIT_EXCEEDED", message=message))
    assert sync(paged, warehouse).complete
    paged.faults.add(Fault(on="page", first=2, error="REQUEST_LIMIT_EXCEEDED", message=message))
    with pytest.raises(PausedError, match="concurrent"):
        sync(paged, warehouse)
    assert stored(warehouse) == in_salesforce(paged)


@pytest.mark.parametrize("header", [*LimitHeader, None])
def test_scenario_10_the_reserve_is_kept_in_whatever_form_usage_is_told(
    paged: SalesforceSimulator, warehouse: Engine, header: LimitHeader | None
) -> None:
    paged.org.quota.header = header
    paged.org.set_daily_limit(5)
    with pytest.raises(PausedError, match="RESERVE_PERCENT" if header else "24 hours"):
        sync(paged, warehouse, api_reserve_percent=40)
    assert paged.org.quota.used == (3 if header else 5)


PASSING = {
    **{str(status): Fault(status=status) for status in (406, 420, 429, 500, 502, 503, 504)},
    "500 with its code": Fault(error="UNKNOWN_EXCEPTION"),
    "420 with a page": Fault(status=420, body="html"),
    "dropped before": Fault(connection="drop_before"),
    "dropped after": Fault(connection="drop_after"),
    "dropped during": Fault(connection="drop_during"),
    "cut": Fault(body="cut"),
    "cut gzip": Fault(body="cut_gzip"),
    "a page with status 200": Fault(body="html"),
    "a slow drip": Fault(drip=0.2),
}


@pytest.fixture(scope="module")
def served(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    with SalesforceSimulator(people(FEW, seed=7, until=MADE_AT), authority) as simulator:
        simulator.org.largest_page = PAGE
        simulator.clock.set(NOW)
        yield simulator


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSING)
def test_scenario_11_what_passes_by_itself_befalls_every_second_request(
    served: SalesforceSimulator, warehouse: Engine, name: str
) -> None:
    served.faults.clear()
    served.faults.add(msgspec.structs.replace(PASSING[name], every=2))
    assert sync(served, warehouse).complete
    assert stored(warehouse) == in_salesforce(served)


def test_scenario_11_another_host_is_not_followed(paged: SalesforceSimulator, warehouse: Engine) -> None:
    paged.faults.add(Fault(on="next_page", redirect="https://elsewhere.example/services/data/"))
    with pytest.raises(ConfigurationError, match="another address, which is not followed"):
        sync(paged, warehouse)


# 12 and 13: time ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-1, 1])
def test_scenario_12_the_clock_of_this_machine_is_an_hour_off(
    company: SalesforceSimulator, warehouse: Engine, hours: int
) -> None:
    """What counts is Salesforce's clock: nothing is lost and nothing is read too early."""
    company.clock.set(datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours))
    first = sync(company, warehouse)
    assert [warning for warning in first.landing.warnings if "clock" in warning]
    assert first.watermark == company.clock.now() - VISIBILITY_LAG
    company.org.update_user(everybody(company)[0], Title="Just now")
    assert catch_up(company, warehouse).counts.updated == 0
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.updated == 1
    assert stored(warehouse) == in_salesforce(company)


MOMENTS = ("2028-02-29T23:59:59", "2028-03-01T00:00:00", "2028-03-26T00:59:59", "2028-03-26T01:00:00")


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z", [0]),
        ("2028-02-29T23:59:59Z", "2028-03-01T00:00:01Z", [0, 1]),
        ("2028-03-26T00:59:59Z", "2028-03-26T01:00:00Z", [2]),
        ("2028-03-26T01:59:59+01:00", "2028-03-26T03:00:01+02:00", [2, 3]),
        ("2028-03-26T01:00:00Z", "2028-03-26T01:00:01Z", [3]),
        ("2028-03-26T01:00:01Z", "2028-03-26T01:00:02Z", []),
    ],
)
def test_scenario_12_odd_days_and_single_seconds_bring_what_belongs_to_them(
    company: SalesforceSimulator, warehouse: Engine, start: str, end: str, found: list[int]
) -> None:
    who = everybody(company)[:4]
    for user_id, moment in zip(who, MOMENTS, strict=True):
        company.clock.set(datetime.fromisoformat(f"{moment}+00:00"))
        company.org.update_user(user_id, Title=f"At {moment}")
    company.clock.advance(timedelta(days=1))
    with service(company, warehouse) as users:
        users.sync_users(window=SyncWindow(datetime.fromisoformat(start), datetime.fromisoformat(end)))
    assert stored(warehouse).keys() == {who[number] for number in found}


def test_scenario_12_an_end_before_its_start_asks_nothing(company: SalesforceSimulator, warehouse: Engine) -> None:
    with pytest.raises(UsageError, match="give a start that lies before the end"):
        SyncWindow(NOW, NOW - timedelta(seconds=1))
    assert company.journal.exchanges == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="query", rows_above=9, error="QUERY_TIMEOUT"),
        Fault(on="count", rows_above=9, error="QUERY_TIMEOUT"),
        Fault(on="query", days_above=3_000, error="QUERY_TIMEOUT"),
        Fault(on="count", days_above=3_000, error="QUERY_TIMEOUT"),
        Fault(on="query", rows_above=9, error="QUERY_TOO_COMPLICATED"),
    ],
    ids=["of many users", "of many to count", "of many days", "of many days to count", "too complicated"],
)
def test_scenario_13_a_query_takes_too_long(company: SalesforceSimulator, warehouse: Engine, fault: Fault) -> None:
    company.faults.add(fault)
    assert sync(company, warehouse).complete
    assert stored(warehouse) == in_salesforce(company)


def test_scenario_13_updated_has_too_many_ids(company: SalesforceSimulator, warehouse: Engine) -> None:
    for minutes, user_id in enumerate(everybody(company)):
        company.clock.set(NOW - timedelta(minutes=FEW + 2 - minutes))
        company.org.update_user(user_id, Title="Busy")
    company.clock.set(NOW)
    company.org.most_updated_ids = 10
    result = sync(company, warehouse)
    assert (result.watermark, result.landing.held_reason) == (NOW - VISIBILITY_LAG, None)
    assert len(asked(company, "/updated")) > 1
    assert stored(warehouse) == in_salesforce(company)


# 15: who answers, and what is permitted -----------------------------------------------------------------------------


def test_scenario_15_another_organisation_answers(company: SalesforceSimulator, warehouse: Engine) -> None:
    sync(company, warehouse)
    before = stored(warehouse)
    company.org.become_another()
    company.org.update_user(everybody(company)[0], Title="Of another company")
    with pytest.raises(ConfigurationError, match="organisation"):
        sync(company, warehouse)
    assert stored(warehouse) == before


def test_scenario_15_the_organisation_changes_in_mid_run(paged: SalesforceSimulator, warehouse: Engine) -> None:
    with pytest.raises(ConfigurationError, match="organisation changed during the run"):
        after_page(paged, warehouse, 1, lambda org: org.org.become_another())
    assert rows(warehouse, "SELECT count(*) FROM sf_users") == [(0,)]


@pytest.mark.parametrize(
    ("permission", "must_say"),
    [
        ("active", "inactive"),
        ("api_for_org", "API is disabled for this Salesforce organisation"),
        ("api_for_user", "API Enabled"),
    ],
)
@pytest.mark.parametrize("page", [0, 1])
def test_scenario_15_the_integration_user_loses_what_it_needs(
    paged: SalesforceSimulator, warehouse: Engine, permission: str, must_say: str, page: int
) -> None:
    def lose(org: SalesforceSimulator) -> None:
        setattr(org.org.permissions, permission, False)

    if page == 0:
        lose(paged)
    with pytest.raises(ConfigurationError, match=must_say):
        after_page(paged, warehouse, page, lose)
    assert rows(warehouse, "SELECT count(*) FROM sf_users") == [(0,)]


@pytest.mark.slow
def test_scenario_15_limits_are_never_needed(company: SalesforceSimulator, warehouse: Engine) -> None:
    company.org.permissions.setup = False
    assert sync(company, warehouse).complete
    assert asked(company, quote("/limits")) == []
