"""What is easily got wrong about reading users from Salesforce, each by itself, in whole runs.

The numbers are those of `docs/salesforce-gotchas.md`, which names the tests of the others as well.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.read_bounds import OPEN_TRANSACTIONS
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.core.salesforce.whole_runs import (
    FEW,
    NOW,
    PAGE,
    asked,
    catch_up,
    everybody,
    in_salesforce,
    rows,
    service,
    stored,
    sync,
)

DATE_FUNCTION = re.compile(r"LAST_N|TODAY|YESTERDAY|THIS_|NEXT_|CALENDAR_|DAY_ONLY", re.IGNORECASE)


# Time ---------------------------------------------------------------------------------------------------------------


def test_gotcha_03_updated_is_asked_in_order_and_for_a_recent_time(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    """Also by a run for a window that ended long ago, or began before there was a watermark."""
    sync(company, warehouse)
    with service(company, warehouse) as users:
        users.sync_users(window=SyncWindow(NOW - timedelta(days=400), NOW - timedelta(days=300)))
    spans = [re.fullmatch(r"start=(\S+)&end=(\S+)", query) for query in asked(company, "/updated")]
    assert len(spans) == 2
    for span in spans:
        assert span is not None
        start, end = (datetime.fromisoformat(moment) for moment in span.groups())
        assert NOW - timedelta(days=30) < start < end - timedelta(minutes=1)
        assert end == NOW


def test_gotcha_04_who_is_missing_in_updated_is_read_nevertheless(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.update_user(everybody(company)[0], Title="Not shared with updated")
    company.clock.advance(timedelta(minutes=5))
    nobody = '{"ids": [], "latestDateCovered": "2026-06-15T12:05:17.000+0000"}'
    company.faults.add(Fault(on="updated", text=nobody))
    assert sync(company, warehouse).complete
    assert stored(warehouse) == in_salesforce(company)


def test_gotcha_08_a_new_user_whose_id_comes_before_all_others_is_read(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.turn(new_ids_descend=True)
    sync(company, warehouse)
    newcomer = company.org.add_user(Username="new@example.com", LastName="New")
    assert newcomer < min(stored(warehouse))
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.inserted == 1
    assert stored(warehouse) == in_salesforce(company)


@pytest.mark.slow
def test_gotcha_12_a_limited_run_leaves_the_watermark_and_the_rest_to_the_next(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    before = sync(company, warehouse).watermark
    for user_id in everybody(company)[:10]:
        company.org.update_user(user_id, Title="Changed")
    company.clock.advance(timedelta(minutes=5))
    with service(company, warehouse) as users:
        limited = users.sync_users(window=users.window_since_watermark(), limit=4)
    assert (limited.complete, limited.counts.updated, limited.watermark) == (False, 4, before)
    assert catch_up(company, warehouse).counts.updated == 6
    assert stored(warehouse) == in_salesforce(company)


@pytest.mark.parametrize("days", [1, 30])
def test_gotcha_13_days_are_asked_for_as_moments_in_utc(
    company: SalesforceSimulator, warehouse: Engine, days: int
) -> None:
    with service(company, warehouse) as users:
        users.sync_users(window=SyncWindow.recent(days, now=NOW))
    queries = asked(company, "SystemModstamp")
    first_day = NOW.date() - timedelta(days=days - 1)
    assert queries
    for query in queries:
        assert f"SystemModstamp >= {first_day}T00:00:00.000Z AND SystemModstamp < " in query
        assert not DATE_FUNCTION.search(query)


def test_gotcha_14_no_plus_is_sent_in_a_moment(company: SalesforceSimulator, warehouse: Engine) -> None:
    """A plus in an address is a blank; answers have it, and are read."""
    company.faults.add(Fault(on="next_page", times=1, error="INVALID_QUERY_LOCATOR"))
    company.org.largest_page = PAGE
    sync(company, warehouse)
    assert [each for each in company.journal.exchanges if "+" in each.query] == []
    assert asked(company, "+0000") == asked(company, "+00:00") == []
    assert stored(warehouse) == in_salesforce(company)


def test_gotcha_15_a_change_that_no_person_made_is_read_as_well(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    sync(company, warehouse)
    user = everybody(company)[0]
    [before] = stored(warehouse, "LastModifiedDate")[user]
    with company.org.begin() as transaction:
        transaction.change_unasked(user, moves_stamp=True, Title="Set by automation")
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.updated == 1
    assert stored(warehouse, "Title", "LastModifiedDate")[user] == ("Set by automation", before)


@pytest.mark.slow
def test_gotcha_16_formula_fields_are_named_and_brought_up_to_date_by_a_full_run(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.make_formula("Division")
    certificate = sync(company, warehouse).landing.certificate
    assert certificate is not None
    assert certificate.formula_fields == ("Division",)
    user = everybody(company)[0]
    company.org.recompute(user, Division="Computed anew")
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.updated == 0
    assert sync(company, warehouse).counts.updated == 1
    assert stored(warehouse, "Division")[user] == ("Computed anew",)


@pytest.mark.parametrize("name", ["LastViewedDate", "lastreferenceddate"])
def test_gotcha_17_what_belongs_to_whoever_asks_is_never_selected(
    company: SalesforceSimulator, warehouse: Engine, name: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"SALESFORCE_EXTRA_FIELDS holds {name}"):
        SalesforceSettings.from_environment(company.environment() | {"SALESFORCE_EXTRA_FIELDS": name})
    sync(company, warehouse)
    assert asked(company, "LastViewed") == asked(company, "LastReferenced") == []


@pytest.mark.slow
@pytest.mark.parametrize("moves", [True, False])
def test_gotcha_18_a_login_is_stored_by_the_next_run_or_by_the_next_full_one(
    company: SalesforceSimulator, warehouse: Engine, moves: bool
) -> None:
    company.org.turn(login_moves_stamp=moves)
    sync(company, warehouse)
    user = everybody(company)[0]
    company.org.log_in(user)
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.updated == moves
    assert sync(company, warehouse).counts.updated == (not moves)
    assert stored(warehouse, "LastLoginDate")[user] == (NOW,)


# Pages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "empty_last_page"), [(7, False), (7, True), (59, True), (60, True)])
def test_gotcha_10_neither_a_short_page_nor_an_empty_one_is_taken_for_the_last(
    company: SalesforceSimulator, warehouse: Engine, size: int, empty_last_page: bool
) -> None:
    company.org.largest_page, company.org.empty_last_page = size, empty_last_page
    assert sync(company, warehouse).complete
    assert stored(warehouse) == in_salesforce(company)


@pytest.mark.parametrize("body", ["cut", "html", "empty"])
def test_gotcha_39_a_good_status_without_json_is_asked_for_again(
    company: SalesforceSimulator, warehouse: Engine, body: Any
) -> None:
    company.org.largest_page = PAGE
    company.faults.add(Fault(on="next_page", times=1, body=body))
    assert sync(company, warehouse).complete
    assert stored(warehouse) == in_salesforce(company)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"totalSize": 60, "done": true}', '{"totalSize": 60, "done": false, "records": []}'],
    ids=["a list", "nothing", "no records", "no next page"],
)
def test_gotcha_39_json_that_is_no_page_fails_the_run_and_the_next_one_goes_on(
    company: SalesforceSimulator, warehouse: Engine, text: str
) -> None:
    company.org.largest_page = PAGE
    company.faults.add(Fault(on="next_page", times=1, text=text))
    with pytest.raises(UnreachableError, match="not a page"):
        sync(company, warehouse)
    assert rows(warehouse, "SELECT outcome FROM user_sync.sync_runs") == [("failed",)]
    assert sync(company, warehouse).complete
    assert stored(warehouse) == in_salesforce(company)


def test_gotcha_39_a_page_that_hides_records_makes_the_run_incomplete(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.largest_page = PAGE
    company.faults.add(
        Fault(on="next_page", first=2, times=1, status=200, text='{"totalSize": 60, "done": true, "records": []}')
    )
    result = sync(company, warehouse)
    assert result.landing.certificate is not None
    assert (result.complete, result.landing.certificate.missing) == (False, PAGE)


# Users --------------------------------------------------------------------------------------------------------------


def test_gotcha_20_an_address_is_an_object_with_all_its_keys_or_nothing(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    parts = ("Street", "City", "State", "StateCode", "PostalCode", "Country", "CountryCode", "GeocodeAccuracy")
    nothing: dict[str, str | float | None] = dict.fromkeys((*parts, "Latitude", "Longitude"))
    emptied, partial = [user.id for user in company.org.users.ordered if user.address is not None][:2]
    company.org.update_user(emptied, **nothing)
    company.org.update_user(partial, **(nothing | {"City": "Lyon"}))
    company.org.hide_field("StateCode")
    company.clock.advance(timedelta(minutes=5))
    sync(company, warehouse)
    addresses = {user_id: address for user_id, (address,) in stored(warehouse, "Address").items()}
    assert addresses[emptied] is None
    assert len(addresses[partial]) == 10
    assert {key: value for key, value in addresses[partial].items() if value is not None} == {"city": "Lyon"}
    assert all(address is None or (len(address) == 10 and any(address.values())) for address in addresses.values())


def test_gotcha_22_coordinates_keep_their_digits(company: SalesforceSimulator, warehouse: Engine) -> None:
    user = next(user.id for user in company.org.users.ordered if user.address is not None)
    company.org.update_user(user, Latitude=48.856614, Longitude=-0.1)
    company.clock.advance(timedelta(minutes=5))
    sync(company, warehouse)
    as_text = f"SELECT address ->> 'latitude', address ->> 'longitude' FROM sf_users WHERE id = '{user}'"
    assert rows(warehouse, as_text) == [("48.856614", "-0.1")]


def test_gotcha_23_nul_is_cleaned_and_noted_and_the_row_is_kept(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    user = everybody(company)[0]
    company.org.update_user(user, Title="a\0b\0c")
    company.clock.advance(timedelta(minutes=5))
    sync(company, warehouse)
    assert stored(warehouse, "Title")[user] == ("abc",)
    notes = "SELECT salesforce_id, field, row_stored FROM user_sync.rejected_records"
    assert rows(warehouse, notes) == [(user, "Title", True)]


def test_gotcha_29_two_users_may_swap_their_names_and_share_an_e_mail(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    sync(company, warehouse)
    first, second = everybody(company)[:2]
    names = stored(warehouse, "Username")
    with company.org.begin() as transaction:
        transaction.update_user(first, Username=names[second][0], Email="shared@example.com")
        transaction.update_user(second, Username=names[first][0], Email="shared@example.com")
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).counts.updated == 2
    assert stored(warehouse) == in_salesforce(company)
    assert stored(warehouse, "Username")[first] == names[second]


@pytest.mark.slow
@pytest.mark.parametrize("moves", [True, False])
def test_gotcha_30_who_leaves_and_returns_is_active_and_no_longer_marked(
    company: SalesforceSimulator, warehouse: Engine, moves: bool
) -> None:
    company.org.turn(deactivation_moves_stamp=moves)
    sync(company, warehouse)
    user = next(user.id for user in company.org.users.ordered if user.person.is_active)
    marked = f"SELECT is_active, deactivated_at IS NOT NULL FROM sf_users WHERE id = '{user}'"
    for is_active in (False, True):
        company.org.update_user(user, IsActive=is_active)
        company.clock.advance(timedelta(minutes=5))
        assert catch_up(company, warehouse).counts.updated == moves
        assert sync(company, warehouse).counts.updated == (not moves)
        assert rows(warehouse, marked) == [(is_active, not is_active)]


@pytest.mark.parametrize("moves", [True, False])
def test_gotcha_31_who_is_frozen_stays_as_user_tells(
    company: SalesforceSimulator, warehouse: Engine, moves: bool
) -> None:
    company.org.turn(freezing_moves_stamp=moves)
    sync(company, warehouse)
    user = next(user.id for user in company.org.users.ordered if user.person.is_active)
    company.org.freeze_user(user)
    company.clock.advance(timedelta(minutes=5))
    catch_up(company, warehouse)
    assert stored(warehouse, "IsActive")[user] == (True,)
    assert stored(warehouse) == in_salesforce(company)


def test_gotcha_32_users_of_every_type_are_read_and_counted(company: SalesforceSimulator, warehouse: Engine) -> None:
    types = ("Guest", "AutomatedProcess", "CspLitePortal", "PowerPartner", "CloudIntegrationUser")
    for user_id, user_type in zip(everybody(company), types, strict=False):
        company.org.update_user(user_id, UserType=user_type, IsActive=user_type != "Guest")
    company.clock.advance(timedelta(minutes=5))
    certificate = sync(company, warehouse).landing.certificate
    assert certificate is not None
    assert stored(warehouse) == in_salesforce(company)
    assert certificate.users_by_type["Guest"]["inactive"] >= 1
    assert set(types) <= certificate.users_by_type.keys()
    assert sum(sum(counts.values()) for counts in certificate.users_by_type.values()) == FEW
    assert [query for query in asked(company, "FROM User") if "IsActive =" in query or "UserType =" in query] == []


def test_gotcha_33_who_is_not_shared_with_us_any_more_stays_as_stored_and_out_of_the_figures(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    sync(company, warehouse)
    before = stored(warehouse)
    del company.org.users.ordered[:3]  # as sharing does it: neither queries nor counts find them
    certificate = sync(company, warehouse).landing.certificate
    assert certificate is not None
    assert (certificate.users, certificate.closing_count) == (FEW - 3, FEW - 3)
    assert sum(sum(counts.values()) for counts in certificate.users_by_type.values()) == FEW - 3
    assert stored(warehouse) == before


def test_gotcha_35_users_with_one_external_id_are_stored_side_by_side(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    first, second = everybody(company)[:2]
    for user_id in (first, second):
        company.org.update_user(user_id, External_ID__c="E-1")
    company.clock.advance(timedelta(minutes=5))
    assert sync(company, warehouse).complete
    assert {row for (row,) in rows(warehouse, "SELECT id FROM sf_users WHERE external_id = 'E-1'")} == {first, second}


# Runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [1, 6, 45])
def test_gotcha_01_what_is_committed_late_is_read_by_a_later_run(
    company: SalesforceSimulator, warehouse: Engine, minutes: int
) -> None:
    transaction = company.org.begin()
    transaction.update_user(everybody(company)[0], Title="Late")
    company.clock.advance(timedelta(minutes=minutes))
    held = sync(company, warehouse)
    # An open transaction of less than the lag does not matter: what it changes is not read yet.
    assert held.watermark == min(NOW, company.clock.now() - VISIBILITY_LAG)
    assert (held.landing.held_reason == OPEN_TRANSACTIONS) == (minutes > 1)
    transaction.commit()
    company.clock.advance(timedelta(minutes=5))
    catch_up(company, warehouse)
    assert stored(warehouse) == in_salesforce(company)


def test_gotcha_36_an_older_version_never_replaces_a_newer_one(company: SalesforceSimulator, warehouse: Engine) -> None:
    """Two processes read the same user; the one that read the older version is the last to store it."""
    company.org.largest_page = PAGE
    user = everybody(company)[-1]
    late_window = SyncWindow(None, NOW - timedelta(minutes=10))
    with service(company, warehouse) as slow:
        landing = slow.land(late_window, mode="custom")
        company.org.update_user(user, Title="Newest")
        company.clock.advance(timedelta(minutes=5))
        sync(company, warehouse)
        slow.merge(late_window, landing.run_id)
    assert stored(warehouse, "Title")[user] == ("Newest",)
    assert datetime(2026, 6, 15, tzinfo=UTC) < stored(warehouse, "SystemModstamp")[user][0]
