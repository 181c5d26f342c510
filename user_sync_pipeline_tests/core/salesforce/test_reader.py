"""One stretch of users, read whole in spite of what befalls its queries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.positions import Position, last_position
from user_sync_pipeline.core.salesforce.fields import arrow_schema
from user_sync_pipeline.core.salesforce.records import UserPage
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.cursors import Consistency
from user_sync_pipeline.sandbox.sample_people import Person, people

MANY = 900
MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
EVERYTHING = SyncWindow(None, NOW - timedelta(minutes=1))
LOST = "INVALID_QUERY_LOCATOR"


@pytest.fixture(scope="module")
def members() -> list[Person]:
    return people(MANY, seed=3, until=MADE_AT)


@pytest.fixture
def org(authority: CertificateAuthority, members: list[Person]) -> Iterator[SalesforceSimulator]:
    """A Salesforce with five of the smallest pages of users, at a clock that stands still."""
    with SalesforceSimulator(members, authority) as simulator:
        simulator.clock.set(NOW)
        yield simulator
    assert simulator.journal.violations == []


@pytest.fixture
def rest(org: SalesforceSimulator) -> Iterator[RestUserService]:
    settings = SalesforceSettings.from_environment(org.environment() | {"SALESFORCE_PAGE_SIZE": "200"})
    with RestUserService(settings, retry=RetryPolicy(tries=2, sleep=lambda _: None)) as service:
        yield service


def befall(org: SalesforceSimulator, *faults: Fault) -> None:
    org.faults.add(*faults)


def ids(pages: list[UserPage]) -> list[str]:
    return [id_ for page in pages for id_ in page.batch.column("id").to_pylist()]


def all_ids(org: SalesforceSimulator) -> list[str]:
    return [user.id for user in org.org.users.ordered]


def selects(org: SalesforceSimulator) -> list[str]:
    return [each.query for each in org.journal.exchanges if "SELECT" in each.query and "COUNT" not in each.query]


# A lost cursor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_retry_row_6_a_lost_cursor_costs_no_user_and_brings_none_twice(
    org: SalesforceSimulator, rest: RestUserService, page: int
) -> None:
    befall(org, Fault(on="next_page", first=page, times=1, error=LOST))
    assert ids(list(rest.fetch_users(EVERYTHING))) == all_ids(org)
    assert len(selects(org)) == 2


def test_gotcha_09_a_cursor_that_is_always_lost_is_replaced_page_by_page(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    befall(org, Fault(on="next_page", error=LOST))
    assert ids(list(rest.fetch_users(EVERYTHING))) == all_ids(org)
    assert len(selects(org)) == 5


def test_gotcha_06_more_users_of_one_moment_than_a_page_holds_survive_lost_cursors(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    org.clock.set(NOW - timedelta(hours=1))
    with org.org.begin() as transaction:
        for user_id in all_ids(org)[100:]:
            transaction.update_user(user_id, Division="All at once")
    org.clock.set(NOW)
    befall(org, Fault(on="next_page", error=LOST))
    assert ids(list(rest.fetch_users(EVERYTHING))) == all_ids(org)


def test_a_query_that_is_lost_before_its_first_page_again_and_again_ends_the_run(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    befall(org, Fault(on="query", first=2, error=LOST), Fault(on="next_page", error=LOST))
    with pytest.raises(UnreachableError, match="run again"):
        list(rest.fetch_users(EVERYTHING))
    assert len(selects(org)) == 2


def test_reading_begins_behind_a_given_record(org: SalesforceSimulator, rest: RestUserService) -> None:
    first = next(rest.fetch_users(EVERYTHING))
    after = last_position(first.batch, NOW)
    assert ids(list(rest.fetch_users(EVERYTHING, after=after))) == all_ids(org)[200:]


def test_a_limit_holds_across_a_lost_cursor(org: SalesforceSimulator, rest: RestUserService) -> None:
    befall(org, Fault(on="next_page", first=2, times=1, error=LOST))
    assert ids(list(rest.fetch_users(EVERYTHING, limit=500))) == all_ids(org)[:500]


# Records that change while they are read ----------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", Consistency)
def test_a_user_who_changes_at_the_end_of_a_page_takes_no_other_with_him_when_the_cursor_is_lost(
    org: SalesforceSimulator, rest: RestUserService, consistency: Consistency
) -> None:
    org.org.cursors.consistency = consistency
    everybody = all_ids(org)
    befall(org, Fault(on="next_page", first=3, times=1, error=LOST))
    pages = []
    for page in rest.fetch_users(EVERYTHING):
        pages.append(page)
        if len(pages) == 1:
            org.org.update_user(everybody[599], Title="Late")
    assert set(everybody) - set(ids(pages)) <= {everybody[599]}


@pytest.mark.parametrize("consistency", Consistency)
def test_gotcha_07_users_who_change_and_so_leave_the_window_take_no_other_with_them(
    org: SalesforceSimulator, rest: RestUserService, consistency: Consistency
) -> None:
    org.org.cursors.consistency = consistency
    everybody = all_ids(org)
    pages = []
    for number, page in enumerate(rest.fetch_users(EVERYTHING)):
        pages.append(page)
        org.org.update_user(everybody[7 * number], Title="Late")
    assert set(ids(pages)) == set(everybody)


def test_a_change_that_is_committed_late_moves_nobody_out_of_reach(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    """Its moment lies in the window, far ahead of its neighbours, and Salesforce does not vouch for it."""
    everybody = all_ids(org)
    org.clock.set(NOW - timedelta(hours=1))
    transaction = org.org.begin()
    transaction.update_user(everybody[599], Title="Late")
    org.clock.set(NOW)
    befall(org, Fault(on="next_page", first=3, times=1, error=LOST))
    pages = []
    for page in rest.fetch_users(EVERYTHING, settled_until=rest.latest_date_covered(NOW)):
        pages.append(page)
        if len(pages) == 1:
            transaction.commit()
    assert set(ids(pages)) == set(everybody)


def test_the_place_in_a_page_is_its_last_row_that_is_settled() -> None:
    stamps = [NOW, NOW + timedelta(hours=2), NOW + timedelta(seconds=1), NOW + timedelta(hours=3)]
    rows = [{"id": str(number), "system_modstamp": stamp} for number, stamp in enumerate(stamps)]
    batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema())
    assert last_position(batch, NOW + timedelta(hours=1)) == Position(stamps[2], "2")
    assert last_position(batch, NOW) is None
    assert last_position(batch.slice(0, 0), NOW) is None


# Queries that take too long -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("code", ["QUERY_TIMEOUT", "QUERY_TOO_COMPLICATED", "OPERATION_TOO_LARGE"])
def test_retry_row_5_a_query_that_takes_too_long_is_asked_in_halves(
    org: SalesforceSimulator, rest: RestUserService, code: str
) -> None:
    befall(org, Fault(on="query", rows_above=150, error=code))
    assert ids(list(rest.fetch_users(EVERYTHING))) == all_ids(org)


def test_a_query_that_takes_too_long_behind_a_page_goes_on_in_halves_from_there(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    befall(org, Fault(on="next_page", first=2, times=1, error="QUERY_TIMEOUT"))
    assert ids(list(rest.fetch_users(EVERYTHING))) == all_ids(org)


def test_a_minute_that_takes_too_long_ends_the_run(org: SalesforceSimulator, rest: RestUserService) -> None:
    befall(org, Fault(on="query", error="QUERY_TIMEOUT"))
    with pytest.raises(ConfigurationError, match="shorter"):
        list(rest.fetch_users(SyncWindow(NOW - timedelta(minutes=8), NOW)))
    assert len(selects(org)) == 4


def test_a_count_that_takes_too_long_is_asked_in_halves(org: SalesforceSimulator, rest: RestUserService) -> None:
    befall(org, Fault(on="count", rows_above=150, error="QUERY_TIMEOUT"))
    assert rest.count_users(EVERYTHING) == MANY


def test_retry_row_5_a_shorter_time_is_asked_for_when_too_many_users_have_changed(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    for minutes, user_id in enumerate(all_ids(org)[:100]):
        org.clock.set(NOW - timedelta(minutes=100 - minutes))
        org.org.update_user(user_id, Title="busy")
    org.clock.set(NOW)
    org.org.most_updated_ids = 20
    assert rest.latest_date_covered(NOW) == NOW
    assert len(org.journal.exchanges) == 1 + 4  # sign-in; 120, 60, 30 and 15 minutes
    org.org.most_updated_ids = 0
    assert rest.latest_date_covered(NOW) is None


# Fields that vanish -------------------------------------------------------------------------------------------------


def test_retry_row_7_a_field_that_is_hidden_between_pages_is_left_out_of_the_rest(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    pages = []
    for page in rest.fetch_users(EVERYTHING):
        pages.append(page)
        if len(pages) == 1:
            org.org.hide_field("Fax")
    assert ids(pages) == all_ids(org)
    assert rest.selected_fields().hidden == ("Fax",)
    assert sum("describe" in each.path for each in org.journal.exchanges) == 2


def test_a_field_that_nobody_can_do_without_ends_the_run_when_it_is_hidden(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    with pytest.raises(ConfigurationError, match=r"User\.Username"):
        read_while_hiding(org, rest, ["Username"])


def test_retry_row_7_fields_that_vanish_a_second_time_end_the_run(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    with pytest.raises(ConfigurationError, match="does not show the field"):
        read_while_hiding(org, rest, ["Fax", "Title", "Phone", "Division", "Alias"])


def read_while_hiding(org: SalesforceSimulator, rest: RestUserService, names: list[str]) -> None:
    for page_number, _ in enumerate(rest.fetch_users(EVERYTHING)):
        org.org.hide_field(names[page_number % len(names)])
