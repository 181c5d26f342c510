"""`RestUserService` against a whole Salesforce: every user of a window, once, in order, by reading only."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import requests

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError, UsageError
from user_sync_pipeline.core.login_flows import GivenToken
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS, arrow_schema
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.core.salesforce.scripted_server import Answer, ScriptedServer, answered

WITHOUT_WAITING = RetryPolicy(tries=3, sleep=lambda _: None)
MANY = 450
FAR = datetime(2100, 1, 1, tzinfo=UTC)
EVERYTHING = SyncWindow(None, FAR)

Open = Callable[..., RestUserService]


@pytest.fixture
def org(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A Salesforce with more users than two of the smallest pages hold."""
    with SalesforceSimulator(MANY, authority) as simulator:
        yield simulator


def open_service(simulator: SalesforceSimulator, **settings: str) -> RestUserService:
    environment = simulator.environment() | {f"SALESFORCE_{name.upper()}": value for name, value in settings.items()}
    return RestUserService(SalesforceSettings.from_environment(environment), retry=WITHOUT_WAITING)


@pytest.fixture
def rest(org: SalesforceSimulator) -> Iterator[RestUserService]:
    with open_service(org) as service:
        yield service


def read(service: RestUserService, window: SyncWindow = EVERYTHING, *, limit: int | None = None) -> pa.Table:
    return pa.Table.from_batches([page.batch for page in service.fetch_users(window, limit=limit)], arrow_schema())


def queries(simulator: SalesforceSimulator) -> list[Any]:
    return [request for request in simulator.journal.exchanges if "/query" in request.path]


# Completeness -----------------------------------------------------------------------------------------------------


def test_every_user_arrives_once_in_order_and_as_salesforce_has_them(
    org: SalesforceSimulator, rest: RestUserService
) -> None:
    table = read(rest)
    keys = list(zip(table["system_modstamp"].to_pylist(), table["id"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(set(table["id"].to_pylist())) == table.num_rows == rest.count_users() == MANY
    assert set(table["id"].to_pylist()) == {user.id for user in org.org.users.ordered}
    assert table["username"].null_count == 0
    assert org.journal.violations == []


def test_pages_tell_what_was_fetched_and_what_there_is(rest: RestUserService) -> None:
    pages = list(rest.fetch_users(EVERYTHING))
    assert [page.fetched for page in pages] == [200, 200, 50]
    assert {page.total for page in pages} == {MANY}
    assert [page.rejected for page in pages] == [(), (), ()]


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201])
def test_pages_end_where_the_records_end(authority: CertificateAuthority, count: int) -> None:
    with SalesforceSimulator(count, authority) as org, open_service(org) as rest:
        assert [page.fetched for page in rest.fetch_users(EVERYTHING)] == {0: [0], 201: [200, 1]}.get(count, [count])


def test_a_window_takes_its_start_and_leaves_its_end(org: SalesforceSimulator, rest: RestUserService) -> None:
    start = datetime(2099, 1, 1, tzinfo=UTC)
    ids = [user.id for user in org.org.users.ordered[:4]]
    for number, user_id in enumerate(ids):
        org.clock.set(start + timedelta(seconds=number))
        org.org.update_user(user_id, Title=f"change {number}")
    window = SyncWindow(start + timedelta(seconds=1), start + timedelta(seconds=3))
    assert read(rest, window)["id"].to_pylist() == ids[1:3]
    assert rest.count_users(window) == 2
    assert rest.count_users(created_before=start) == MANY
    assert rest.count_users(window, created_before=datetime(1990, 1, 1, tzinfo=UTC)) == 0


def test_inactive_users_are_read_like_all_others(org: SalesforceSimulator, rest: RestUserService) -> None:
    user_id = org.org.users.ordered[0].id
    org.org.deactivate_user(user_id)
    table = read(rest)
    assert dict(zip(table["id"].to_pylist(), table["is_active"].to_pylist(), strict=True))[user_id] is False
    assert table.num_rows == MANY


def test_a_limit_takes_the_oldest_changes(rest: RestUserService) -> None:
    everything = read(rest)
    assert read(rest, limit=250).equals(everything.slice(0, 250))
    with pytest.raises(UsageError, match="--limit"):
        read(rest, limit=0)


def test_a_bad_row_does_not_cost_the_good_ones(org: SalesforceSimulator, rest: RestUserService) -> None:
    first, second = (user.id for user in org.org.users.ordered[:2])
    org.org.update_user(first, Username=None)
    org.org.update_user(second, Title="a\0b")
    pages = list(rest.fetch_users(EVERYTHING))
    notes = [(note.salesforce_id, note.field, note.row_stored) for page in pages for note in page.rejected]
    assert sorted(notes) == sorted([(first, "Username", False), (second, "Title", True)])
    assert sum(page.batch.num_rows for page in pages) == MANY - 1
    assert sum(page.fetched for page in pages) == MANY


# Pages ------------------------------------------------------------------------------------------------------------


def test_gotcha_11_small_windows_are_read_in_pages_of_200(org: SalesforceSimulator, rest: RestUserService) -> None:
    read(rest)
    sizes = [request.headers["sforce-query-options"] for request in queries(org)]
    assert set(sizes) == {"batchSize=200"}
    assert len(sizes) == 1 + 3  # one count, three pages


@pytest.mark.slow
def test_gotcha_11_large_windows_are_read_in_pages_of_2000(authority: CertificateAuthority) -> None:
    with SalesforceSimulator(2001, authority) as org, open_service(org) as rest:
        assert [page.fetched for page in rest.fetch_users(EVERYTHING)] == [2000, 1]
        org.journal.clear()
        assert [page.fetched for page in rest.fetch_users(EVERYTHING, limit=300)] == [200, 100]
        assert len(queries(org)) == 2  # a small limit needs no count


def test_an_explicit_page_size_is_obeyed_without_a_count(org: SalesforceSimulator) -> None:
    with open_service(org, page_size="300") as rest:
        assert [page.fetched for page in rest.fetch_users(EVERYTHING)] == [300, 150]
        assert rest.page_size_for(10**6) == 300
    assert [request.headers["sforce-query-options"] for request in queries(org)] == ["batchSize=300"] * 2


def test_the_page_size_for_a_forecast_is_the_one_of_the_run(rest: RestUserService) -> None:
    assert [rest.page_size_for(count) for count in (0, 2000, 2001, 10**6)] == [200, 200, 2000, 2000]


def page_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "salesforce-page"]


@pytest.mark.slow
def test_one_page_is_fetched_ahead_and_no_more(org: SalesforceSimulator, rest: RestUserService) -> None:
    pages = rest.fetch_users(EVERYTHING)
    next(pages)
    time.sleep(0.3)
    assert len(queries(org)) == 1 + 2
    pages.close()


def test_a_reader_who_stops_early_leaves_no_thread_behind(rest: RestUserService) -> None:
    pages = rest.fetch_users(EVERYTHING)
    next(pages)
    pages.close()
    for thread in page_threads():
        thread.join(60)
    assert page_threads() == []


def test_an_error_of_a_later_page_reaches_the_reader(org: SalesforceSimulator, rest: RestUserService) -> None:
    pages = rest.fetch_users(EVERYTHING)
    next(pages)
    org.org.set_daily_limit(0)
    with pytest.raises(PausedError, match="24 hours"):
        list(pages)


def test_a_session_that_ends_between_pages_is_renewed(org: SalesforceSimulator, rest: RestUserService) -> None:
    pages = rest.fetch_users(EVERYTHING)
    seen = next(pages).fetched
    # Only once: a request whose new token is revoked as well has the right to give up.
    org.tokens.revoke_tokens()
    assert seen + sum(page.fetched for page in pages) == MANY


def test_a_stopped_salesforce_is_unreachable(org: SalesforceSimulator, rest: RestUserService) -> None:
    pages = rest.fetch_users(EVERYTHING)
    next(pages)
    org.stop()
    with pytest.raises(UnreachableError, match="run again later"):
        list(pages)


# Fields -----------------------------------------------------------------------------------------------------------


def test_all_fields_of_the_catalogue_are_seen(rest: RestUserService) -> None:
    assert rest.selected_fields().columns == USER_COLUMNS[:-1]
    assert rest.selected_fields().hidden == ()


def test_a_hidden_field_is_left_out_of_the_query(org: SalesforceSimulator, rest: RestUserService) -> None:
    org.org.hide_field("External_ID__c")
    assert rest.selected_fields().hidden == ("External_ID__c",)
    assert read(rest)["external_id"].null_count == MANY
    assert all("External_ID__c" not in request.query for request in queries(org))


def test_a_hidden_required_field_is_explained(org: SalesforceSimulator, rest: RestUserService) -> None:
    org.org.hide_field("Username")
    with pytest.raises(ConfigurationError, match=r"User\.Username"):
        read(rest)
    assert queries(org) == []


def test_fields_are_described_once(org: SalesforceSimulator, rest: RestUserService) -> None:
    read(rest)
    read(rest)
    assert sum("describe" in request.path for request in org.journal.exchanges) == 1


def test_an_extra_field_that_nobody_has_is_reported(org: SalesforceSimulator) -> None:
    with open_service(org, extra_fields="Nobody__c") as rest:
        assert rest.selected_fields().hidden == ("Nobody__c",)
        assert read(rest).num_rows == MANY


# Clock, watermark, quota ------------------------------------------------------------------------------------------


def test_now_is_the_clock_of_salesforce(org: SalesforceSimulator, rest: RestUserService) -> None:
    for moment in (datetime(2031, 1, 1, 12, tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)):
        org.clock.set(moment)
        assert rest.server_time() == moment


def test_salesforce_says_up_to_when_all_is_visible(org: SalesforceSimulator, rest: RestUserService) -> None:
    now = datetime(2026, 11, 1, 12, 30, 20, 500000, tzinfo=UTC)
    org.clock.set(now)
    covered = rest.latest_date_covered(now)
    assert covered is not None
    assert now - timedelta(minutes=1) <= covered <= now


def test_salesforce_cannot_say_it_of_long_ago(rest: RestUserService) -> None:
    assert rest.latest_date_covered(datetime(2020, 1, 1, tzinfo=UTC)) is None


def test_calls_are_counted_and_the_quota_is_known(org: SalesforceSimulator, rest: RestUserService) -> None:
    rest.server_time()
    assert (rest.usage.calls, rest.usage.used) == (0, None)
    read(rest)
    assert rest.usage.calls == 1 + 1 + 3  # describe, count, pages
    assert rest.usage.used == 5
    assert rest.usage.as_json() == {"used": 5, "limit": org.org.quota.limit, "share": 5 / org.org.quota.limit}


def test_the_daily_limit_pauses_before_the_first_page(org: SalesforceSimulator, rest: RestUserService) -> None:
    org.org.set_daily_limit(0)
    with pytest.raises(PausedError):
        read(rest)


def test_a_version_that_salesforce_does_not_offer_is_explained(org: SalesforceSimulator) -> None:
    for version in ("99.0", "30.0"):
        with open_service(org, api_version=version) as rest, pytest.raises(ConfigurationError, match="API_VERSION"):
            rest.count_users()


# The organisation of a given token, which no sign-in tells -----------------------------------------------------------


def test_a_given_token_is_asked_for_its_organisation(authority: CertificateAuthority) -> None:
    with ScriptedServer(authority) as server:
        server.script = [answered({"totalSize": 1, "done": True, "records": [{"Id": "00D5g0000SimOrg"}]})]
        settings = server.settings(login=GivenToken("given", server.url))
        with RestUserService(settings) as rest:
            assert rest.org_id == "00D5g0000SimOrgEQE"
            assert rest.org_id == "00D5g0000SimOrgEQE"
        assert [request.path for request in server.asked] == [
            "/services/data/v66.0/query/?q=SELECT+Id+FROM+Organization+LIMIT+1"
        ]


def test_an_organisation_that_is_not_told_is_explained(authority: CertificateAuthority) -> None:
    with ScriptedServer(authority, answered({"totalSize": 0, "done": True, "records": []})) as server:
        settings = server.settings(login=GivenToken("given", server.url))
        with RestUserService(settings) as rest, pytest.raises(ConfigurationError, match="Organization"):
            _ = rest.org_id


# Read-only --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_answer_of_the_server_leads_elsewhere(authority: CertificateAuthority) -> None:
    describe = {"fields": [{"name": name, "type": type_} for name, type_ in REQUIRED_TYPES.items()]}
    for next_url in (
        "@evil.example/services/data/v66.0/query/x-1",
        "/services/data/v66.0/sobjects/User/0055g000001AbCdAAK",
        "/services/data/v66.0/query/../sobjects/User",
        "/services/data/v66.0/query/x-1?q=SELECT+Id+FROM+User+FOR+VIEW",
        ".evil.example/services/data/v66.0/query/x-1",
    ):
        page = {"totalSize": 9, "done": False, "records": [], "nextRecordsUrl": next_url}
        with ScriptedServer(authority) as server:
            server.script = [server.token(), answered(describe), answered(page)]
            with RestUserService(server.settings(page_size=200)) as rest, pytest.raises(ConfigurationError):
                list(rest.fetch_users(EVERYTHING))
            assert len(server.asked) == 3


REQUIRED_TYPES = {
    "Id": "id",
    "Username": "string",
    "IsActive": "boolean",
    "CreatedDate": "datetime",
    "SystemModstamp": "datetime",
}


def test_the_service_has_no_method_that_takes_a_query_or_a_path() -> None:
    public = {name for name, _ in inspect.getmembers(RestUserService) if not name.startswith("_")}
    assert public == {
        *("account_rights", "bulk_calls_for", "calls_left", "changed_since", "close", "count_users", "fetch_slices"),
        *("fetch_slices_by_bulk", "fetch_users", "latest_date_covered", "org_id", "page_size_for", "plan_slices"),
        *("selected_fields", "server_time", "transport_for", "usage"),
    }


def test_even_the_client_inside_cannot_write(org: SalesforceSimulator, rest: RestUserService) -> None:
    rest.count_users()
    org.journal.clear()
    client: Any = rest._client()
    for attempt in (
        lambda: client.User.update("0055g000001AbCdAAK", {"Title": "x"}),
        lambda: client.User.delete("0055g000001AbCdAAK"),
        lambda: client.set_password("0055g000001AbCdAAK", "x"),
        lambda: client.query("SELECT Id FROM User FOR VIEW"),
        lambda: client.query("SELECT Id FROM Account"),
        lambda: client.search("FIND {ann}"),
        lambda: client.apexecute("x", method="POST"),
        lambda: list(client.bulk2.User.query("SELECT Id FROM User")),
    ):
        with pytest.raises(NotReadOnlyError):
            attempt()
    assert org.journal.exchanges == []


# What we rely on in simple-salesforce ---------------------------------------------------------------------------------


def test_simple_salesforce_gives_back_the_bytes_of_an_answer(org: SalesforceSimulator, rest: RestUserService) -> None:
    client: Any = rest._client()
    assert client.query("SELECT COUNT() FROM User") == b'{"totalSize":%d,"done":true,"records":[]}' % MANY
    assert client.restful("sobjects/User/describe").startswith(b'{"')
    assert isinstance(client.session, requests.Session)
    first = client.query("SELECT Id FROM User")
    assert b'"nextRecordsUrl"' in first
    locator = first.split(b'"nextRecordsUrl":"')[1].split(b'"')[0].decode()
    assert b'"records"' in client.query_more(locator, True)


def test_an_error_that_simple_salesforce_never_sees_is_ours(authority: CertificateAuthority) -> None:
    with ScriptedServer(authority) as server:
        server.script = [server.token(), Answer(404, b"<html>")]
        with RestUserService(server.settings()) as rest, pytest.raises(ConfigurationError, match="HTTP status 404"):
            rest.count_users()
