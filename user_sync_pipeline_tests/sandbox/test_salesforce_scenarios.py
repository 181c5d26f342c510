"""Situations that a client of Salesforce gets into, played on the simulator over TLS.

Those with one switch each are in the files about transactions, faults, modes, signed sign-in and bulk jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, IN_ORDER, NOW, USERS, Client, Json, error_code

EXPIRED = (401, "INVALID_SESSION_ID")
WIRE_NOW = "2026-06-02T10:30:00.000+0000"


@pytest.fixture(autouse=True)
def only_reading(simulator: SalesforceSimulator) -> Iterator[None]:
    yield
    assert simulator.journal.violations == []


def users_in(client: Client, start: str, end: str) -> int:
    soql = f"SELECT COUNT() FROM User WHERE SystemModstamp >= {start} AND SystemModstamp < {end}"
    return int(client.query(soql)["totalSize"])


# -- Pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty_last_page", [False, True])
@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 2000, 2001])
def test_short_pages_and_an_empty_last_one_lose_and_double_nobody(
    authority: CertificateAuthority, count: int, empty_last_page: bool
) -> None:
    with SalesforceSimulator(count, authority, seed=5) as simulator, closing(Client(simulator)) as client:
        simulator.org.largest_page, simulator.org.empty_last_page = 150, empty_last_page
        client.carry_token()
        pages = list(client.pages(IN_ORDER, page_size=200))
        ids = [record["Id"] for page in pages for record in page["records"]]
        assert len(set(ids)) == len(ids) == count
        assert all(len(page["records"]) == 150 for page in pages[: count // 150])
        assert len(pages) == max(1, -(-count // 150) + (empty_last_page and count > 0))


@pytest.mark.slow
def test_five_thousand_users_with_one_stamp_are_read_by_locator_and_by_key(authority: CertificateAuthority) -> None:
    with SalesforceSimulator(5_000, authority) as simulator, closing(Client(simulator)) as client:
        simulator.clock.set(NOW)
        with simulator.org.begin() as transaction:
            for user in list(simulator.org.users.ordered):
                transaction.update_user(user.id, Title="Migrated")
        client.carry_token()
        by_locator = [record["Id"] for page in client.pages(IN_ORDER) for record in page["records"]]
        assert by_locator == sorted(by_locator)
        by_key: list[str] = []
        while True:
            after = by_key[-1] if by_key else ""
            condition = f"(SystemModstamp = {WIRE_NOW} AND Id > '{after}') OR SystemModstamp > {WIRE_NOW}"
            where = f"WHERE {condition} " if after else ""
            order = "ORDER BY SystemModstamp, Id LIMIT 2000"
            page = client.query(f"SELECT Id, SystemModstamp FROM User {where}{order}")["records"]
            if not page:
                break
            by_key += [record["Id"] for record in page]
        assert by_key == by_locator
        assert len(by_key) == 5_000


def test_the_page_size_of_every_call_is_written_down_also_after_a_new_sign_in(
    simulator: SalesforceSimulator, client: Client
) -> None:
    first = client.query(IN_ORDER, page_size=200)
    client.carry_token()
    client.get(first["nextRecordsUrl"], page_size=201)
    client.get(first["nextRecordsUrl"])
    asked = [
        exchange.headers.get("sforce-query-options")
        for exchange in simulator.journal.exchanges
        if "/query" in exchange.path
    ]
    assert asked == ["batchSize=200", "batchSize=201", None]


# -- Sessions ---------------------------------------------------------------------------------------------------


def test_a_token_can_expire_between_the_second_and_the_third_page(
    simulator: SalesforceSimulator, client: Client
) -> None:
    pages = client.pages(IN_ORDER, page_size=200)
    next(pages)
    url = next(pages)["nextRecordsUrl"]
    simulator.clock.advance(timedelta(hours=2, seconds=1))
    assert error_code(client.get(url)) == EXPIRED
    client.carry_token()
    assert len(client.get(url).json()["records"]) == USERS - 400


def test_the_token_endpoint_can_fail_once_and_for_ever(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(Fault(on="token", status=503, times=1))
    assert [client.sign_in().status_code for _ in range(2)] == [503, 200]
    simulator.faults.add(Fault(on="token", status=503, body="html"))
    assert {client.sign_in().status_code for _ in range(5)} == {503}
    assert client.get(f"{DATA}/limits/").status_code == 200


def test_a_token_can_be_refused_with_a_page_and_as_no_token_at_all(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(
        Fault(status=401, body="html", times=1), Fault(error="INVALID_AUTH_HEADER", message="INVALID_JWT_FORMAT")
    )
    page, refused = client.get(f"{DATA}/limits/"), client.get(f"{DATA}/limits/")
    assert (page.status_code, page.headers["Content-Type"]) == (401, "text/html; charset=UTF-8")
    assert error_code(refused) == (401, "INVALID_AUTH_HEADER")
    for response in (page, refused):
        assert response.headers["WWW-Authenticate"] == "Token"
        assert "Sforce-Limit-Info" not in response.headers


# -- Changes while somebody reads -------------------------------------------------------------------------------


def test_who_changes_between_two_pages_moves_to_the_end_of_the_order(
    simulator: SalesforceSimulator, client: Client
) -> None:
    first = client.query(IN_ORDER, page_size=200)
    read, unread, renamed = first["records"][0]["Id"], simulator.org.users.ordered[300].id, first["records"][1]["Id"]
    simulator.org.deactivate_user(unread)
    simulator.clock.advance(timedelta(minutes=1))
    simulator.org.update_user(unread, IsActive=True)
    simulator.org.update_user(read, Department="Legal")
    simulator.org.update_user(renamed, Username="another@example.com", LastName="Nováková")
    rest = client.get(first["nextRecordsUrl"], page_size=2000).json()["records"]
    assert {read, renamed} & {record["Id"] for record in rest} == set()
    soql = f"SELECT Id, Name, Username, IsActive FROM User WHERE SystemModstamp >= {WIRE_NOW} ORDER BY Id"
    again = {record["Id"]: record for record in client.query(soql)["records"]}
    assert set(again) == {read, unread, renamed}
    assert again[unread]["IsActive"] is True
    assert again[renamed]["Name"].endswith("Nováková")
    assert again[renamed]["Username"] == "another@example.com"


def test_a_field_can_be_hidden_in_the_middle_and_come_back(simulator: SalesforceSimulator, client: Client) -> None:
    first = client.query("SELECT Id, External_ID__c FROM User", page_size=200)
    simulator.org.hide_field("External_ID__c")
    assert error_code(client.get(first["nextRecordsUrl"])) == (400, "INVALID_FIELD")
    assert client.get(first["nextRecordsUrl"].replace("-200", "-400")).status_code == 400
    simulator.org.show_field("External_ID__c")
    assert len(client.get(first["nextRecordsUrl"]).json()["records"]) == USERS - 200


def test_addresses_and_texts_of_every_kind_arrive_as_they_are(simulator: SalesforceSimulator, client: Client) -> None:
    parts = (
        "Street", "City", "State", "StateCode", "PostalCode", "Country", "CountryCode", "Latitude", "Longitude",
        "GeocodeAccuracy",
    )  # fmt: skip
    users = simulator.org.users
    without = next(user.id for user in users.ordered if user.address is None)
    emptied, partial, odd = [user.id for user in users.ordered if user.address is not None][:3]
    nothing: dict[str, str | float | None] = dict.fromkeys(parts)
    simulator.org.update_user(emptied, **nothing)
    simulator.org.update_user(partial, **(nothing | {"City": "Lyon", "Latitude": 45.75}))
    simulator.org.update_user(odd, Street='1 rue "A", B\r\nBât. 🏠\0', Title="NA")

    def addresses() -> dict[str, Json]:
        records = client.query("SELECT Id, Street, Title, Address FROM User")["records"]
        return {record["Id"]: record for record in records}

    found = addresses()
    assert found[without]["Address"] is None
    assert set(found[emptied]["Address"].values()) == {None}
    given = {key: value for key, value in found[partial]["Address"].items() if value is not None}
    assert given == {"city": "Lyon", "latitude": 45.75}
    assert found[odd]["Address"]["street"] == found[odd]["Street"] == '1 rue "A", B\r\nBât. 🏠\0'
    assert found[odd]["Title"] == "NA"
    simulator.org.hide_field("CountryCode")
    assert set(found[partial]["Address"]) - set(addresses()[partial]["Address"]) == {"countryCode"}


# -- Limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_the_daily_limit_can_be_reached_at_the_start_in_the_middle_and_on_the_last_page(
    simulator: SalesforceSimulator, client: Client, allowed: int
) -> None:
    simulator.org.set_daily_limit(allowed)
    url = f"{DATA}/query?q={quote(IN_ORDER)}"
    for _ in range(allowed):
        url = client.get(url, page_size=200).json()["nextRecordsUrl"]
    refused = client.get(url, page_size=200)
    assert error_code(refused) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert refused.json()[0]["message"] == "TotalRequests Limit exceeded."
    assert refused.headers["Sforce-Limit-Info"] == f"api-usage={allowed}/{allowed}"
    simulator.clock.advance(timedelta(hours=24))
    client.carry_token()
    assert client.get(url).status_code == (200 if allowed else 403)


def test_too_many_long_requests_at_once_are_refused_for_half_a_minute(
    simulator: SalesforceSimulator, client: Client
) -> None:
    message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    simulator.faults.add(Fault(error="REQUEST_LIMIT_EXCEEDED", message=message, seconds=30))
    for seconds, status in ((0, 403), (15, 403), (15, 200)):
        simulator.clock.advance(timedelta(seconds=seconds))
        assert client.get(f"{DATA}/limits/").status_code == status


# -- Time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_the_organisation_can_be_an_hour_off(
    simulator: SalesforceSimulator, client: Client, hours: int
) -> None:
    simulator.clock.shift(timedelta(hours=hours))
    there = NOW + timedelta(hours=hours)
    user = simulator.org.users.ordered[0].id
    simulator.org.update_user(user, Title="Changed")
    [record] = client.query(f"SELECT SystemModstamp FROM User WHERE Id = '{user}'")["records"]
    assert record["SystemModstamp"] == f"{there:%Y-%m-%dT%H:%M:%S.000+0000}"
    response = client.get(f"{DATA}/sobjects/User/updated/", start="2026-06-02T08:00:00Z", end="2026-06-03T00:00:00Z")
    assert response.json()["latestDateCovered"] == f"{there:%Y-%m-%dT%H:%M:%S.000+0000}"
    assert parsedate_to_datetime(response.headers["Date"]) == there


def test_windows_of_odd_days_and_single_seconds_hold_what_belongs_to_them(
    simulator: SalesforceSimulator, client: Client
) -> None:
    moments = ("2028-02-29T23:59:59+00:00", "2028-03-26T01:00:00+00:00", "2028-03-26T01:00:01+00:00")
    for number, moment in enumerate(moments):
        simulator.clock.set(datetime.fromisoformat(moment))
        simulator.org.update_user(simulator.org.users.ordered[0].id, Title=f"Moment {number}")
    client.carry_token()
    assert users_in(client, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z") == 1
    assert users_in(client, "2028-03-26T01:00:00Z", "2028-03-26T01:00:01Z") == 1
    assert users_in(client, "2028-03-26T03:00:00+02:00", "2028-03-26T03:00:02+02:00") == 2
    assert users_in(client, "2028-03-26T02:00:00Z", "2028-03-26T01:00:00Z") == 0
    no_such_day = "SELECT Id FROM User WHERE SystemModstamp > 2027-02-29T00:00:00Z"
    assert error_code(client.get(f"{DATA}/query", q=no_such_day)) == (400, "MALFORMED_QUERY")
