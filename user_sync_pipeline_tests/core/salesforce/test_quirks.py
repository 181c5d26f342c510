"""Whatever Salesforce does where nobody says for certain what it does, the same users are stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.login_flows import JwtBearer
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.cursors import OLDER_RULES, Consistency
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.quirks import (
    MORE_TOKEN_FIELDS,
    NEEDED_TOKEN_FIELDS,
    TOKEN_FIELDS,
    CountRecords,
    Wording,
)
from user_sync_pipeline.sandbox.salesforce.quota import LimitHeader
from user_sync_pipeline_tests.core.private_keys import private_key, public_key
from user_sync_pipeline_tests.core.salesforce.whole_runs import (
    NOW,
    PAGE,
    catch_up,
    everybody,
    in_salesforce,
    service,
    stored,
    sync,
)

Turn = Callable[[Org], object]


def switch(thing: str, name: str, value: object) -> Turn:
    """Return what turns a switch that has its place at the thing itself."""

    def turn(org: Org) -> None:
        found: object = org
        for part in thing.split(".") if thing else ():
            found = getattr(found, part)
        setattr(found, name, value)

    return turn


def quirk(name: str, value: object) -> Turn:
    return lambda org: org.turn(**{name: value})


# The positions other than the one in which each switch stands.
POSITIONS: dict[str, Turn] = {
    "the least in a token answer": quirk("token_fields", NEEDED_TOKEN_FIELDS),
    "no id in a token answer": quirk("token_fields", TOKEN_FIELDS - {"id"}),
    "no scope in a token answer": quirk("token_fields", TOKEN_FIELDS - {"scope"}),
    "more in a token answer": quirk("token_fields", TOKEN_FIELDS | MORE_TOKEN_FIELDS),
    "login hosts that take client credentials": quirk("login_hosts", frozenset()),
    "versions in an object": quirk("versions_in_object", True),
    "odd page sizes refused": quirk("odd_page_sizes_are_refused", True),
    "431 for long addresses": quirk("status_of_long_addresses", 431),
    "refusals without words": quirk("wording", Wording.EMPTY),
    "refusals in other words": quirk("wording", Wording.OTHER),
    "null records in a count": quirk("count_records", CountRecords.NULL),
    "no records in a count": quirk("count_records", CountRecords.ABSENT),
    "fields as asked": quirk("fields_as_asked", True),
    "users with IsDeleted": quirk("has_is_deleted", True),
    "any OFFSET": quirk("offset_is_limited", False),
    "logins that move the stamp": quirk("login_moves_stamp", True),
    "freezing that moves the stamp": quirk("freezing_moves_stamp", True),
    "deactivation that moves no stamp": quirk("deactivation_moves_stamp", False),
    "ids that descend": quirk("new_ids_descend", True),
    "updated with seconds": quirk("updated_cuts_seconds", False),
    "coverage within the span": quirk("coverage_stays_in_span", True),
    "cursors by the older rules": switch("cursors", "rules", OLDER_RULES),
    "cursors that are snapshots": switch("cursors", "consistency", Consistency.SNAPSHOT),
    "cursors that are live": switch("cursors", "consistency", Consistency.LIVE),
    "usage by application": switch("quota", "header", LimitHeader.PER_APPLICATION),
    "usage with bursts": switch("quota", "header", LimitHeader.BURSTS),
    "no usage": switch("quota", "header", None),
    "no usage on refusals": switch("quota", "header_on_errors", False),
    "smaller pages than asked for": switch("", "largest_page", 7),
    "an empty last page": switch("", "empty_last_page", True),
    "no ids in updated": switch("", "most_updated_ids", 0),
    "no permission for limits": switch("permissions", "setup", False),
}
BULK_POSITIONS: dict[str, Turn] = {
    "the other end of moments": quirk("bulk_moments_end_in_z", False),
    "the other names of links": switch("jobs.settings", "link_names", ("resultLink", "nextRecordUrl")),
    "no locator header": switch("jobs.settings", "locator_header", False),
    "small pages": switch("jobs.settings", "page_rows", PAGE),
    "no permission": switch("permissions", "bulk", False),
    "no jobs left": switch("jobs.settings", "daily_jobs", 0),
}


def lives_through(org: SalesforceSimulator, warehouse: Engine, *turns: Turn) -> None:
    """Extract with mishaps, let users change in every way, catch up, extract again: all is as in Salesforce."""
    org.org.largest_page = PAGE
    for turn in turns:
        turn(org.org)
    org.faults.add(
        Fault(on="page", first=2, times=1, error="SERVER_UNAVAILABLE"),
        Fault(on="next_page", first=2, times=1, error="INVALID_QUERY_LOCATOR"),
    )
    org.org.hide_field("Fax")
    first = sync(org, warehouse)
    assert first.complete
    assert first.landing.hidden_fields == ("Fax",)
    assert stored(warehouse) == in_salesforce(org)

    org.clock.advance(timedelta(minutes=30))
    who_logs_in, leaves, freezes, renames, waits = everybody(org)[::12]
    org.org.log_in(who_logs_in)
    org.org.deactivate_user(leaves)
    org.org.freeze_user(freezes)
    org.org.update_user(renames, LastName="Renamed", Username="renamed@example.com")
    org.org.add_user(Username="new@example.com", LastName="New", Email="new@example.com")
    late = org.org.begin()
    late.update_user(waits, Title="Late")
    org.clock.advance(timedelta(minutes=30))
    held = catch_up(org, warehouse)
    assert held.watermark is None or held.watermark <= late.started
    late.commit()
    org.clock.advance(timedelta(minutes=30))

    assert catch_up(org, warehouse).complete
    seen = {user_id: values[3:4] for user_id, values in stored(warehouse).items()}
    assert seen == {user_id: values[3:4] for user_id, values in in_salesforce(org).items()}
    last = sync(org, warehouse)
    assert last.complete
    assert stored(warehouse) == in_salesforce(org)


@pytest.mark.slow
@pytest.mark.parametrize("turn", POSITIONS.values(), ids=POSITIONS)
def test_any_one_switch_changes_nothing(company: SalesforceSimulator, warehouse: Engine, turn: Turn) -> None:
    lives_through(company, warehouse, turn)


@pytest.mark.slow
@pytest.mark.parametrize("every", range(3))
def test_many_switches_together_change_nothing(company: SalesforceSimulator, warehouse: Engine, every: int) -> None:
    """Each in one of three cases; of two positions of one switch in the same case the second counts."""
    lives_through(company, warehouse, *list(POSITIONS.values())[every::3])


@pytest.mark.parametrize("turn", BULK_POSITIONS.values(), ids=BULK_POSITIONS)
def test_any_one_switch_of_bulk_changes_nothing(company: SalesforceSimulator, warehouse: Engine, turn: Turn) -> None:
    turn(company.org)
    result = sync(company, warehouse, transport="bulk")
    assert result.complete
    assert stored(warehouse) == in_salesforce(company)
    assert company.org.jobs.all() == []


@pytest.mark.parametrize("fields", [NEEDED_TOKEN_FIELDS, TOKEN_FIELDS, TOKEN_FIELDS | MORE_TOKEN_FIELDS])
def test_a_signed_sign_in_may_be_answered_with_more_or_less(
    company: SalesforceSimulator, warehouse: Engine, fields: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    company.org.turn(signed_token_fields=fields)
    company.connected_app.certificate = public_key()
    monkeypatch.setattr("time.time", NOW.timestamp)
    login = JwtBearer("user-sync-sandbox", company.org.api_username, private_key(), "https://login.salesforce.com")
    assert sync(company, warehouse, login=login).complete
    assert stored(warehouse) == in_salesforce(company)


def test_a_login_host_that_wants_the_own_domain_is_explained(company: SalesforceSimulator, warehouse: Engine) -> None:
    company.org.turn(login_hosts=frozenset({"localhost"}))
    with pytest.raises(ConfigurationError, match="My Domain"):
        sync(company, warehouse)
    company.org.turn(wording=Wording.OTHER)
    with pytest.raises(ConfigurationError, match="SALESFORCE_LOGIN_URL"):
        sync(company, warehouse)


@pytest.mark.parametrize("status", [414, 431])
def test_a_query_that_is_too_long_names_the_setting(
    company: SalesforceSimulator, warehouse: Engine, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.org.turn(status_of_long_addresses=status)
    monkeypatch.setattr("user_sync_pipeline.sandbox.salesforce.api.LONGEST_ADDRESS", 600)
    with pytest.raises(ConfigurationError, match="SALESFORCE_EXTRA_FIELDS"):
        sync(company, warehouse)


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("second", [0, 59])
def test_the_watermark_loses_nothing_by_the_seconds_of_updated(
    company: SalesforceSimulator, warehouse: Engine, cuts: bool, second: int
) -> None:
    company.org.turn(updated_cuts_seconds=cuts)
    now = NOW.replace(second=second)
    company.clock.set(now)
    result = sync(company, warehouse)
    assert (result.watermark, result.landing.held_reason) == (now - VISIBILITY_LAG, None)


def test_no_words_of_a_refusal_are_needed_to_read_on_without_a_field(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.turn(wording=Wording.EMPTY)
    company.org.largest_page = PAGE
    with service(company, warehouse) as users:
        window = SyncWindow.full(now=NOW)
        result = users.sync_users(window=window, progress=lambda _: company.org.hide_field("Fax"))
    assert (result.landing.lost_fields, result.complete) == (("Fax",), True)
