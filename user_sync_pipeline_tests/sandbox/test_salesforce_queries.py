"""Queries, pages, changes, limits and `updated` of the Salesforce simulator, over TLS."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta

import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.ids import with_check_characters
from user_sync_pipeline.sandbox.salesforce.quota import LimitHeader
from user_sync_pipeline_tests.sandbox.salesforce_client import (
    DATA,
    IN_ORDER,
    NOW,
    UNTIL,
    USERS,
    Client,
    Json,
    error_code,
)

# -- Queries and pages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 2000, 2001])
def test_every_user_arrives_once_and_in_order_whatever_the_page_size(
    authority: CertificateAuthority, count: int
) -> None:
    with SalesforceSimulator(count, authority, seed=5) as simulator, closing(Client(simulator)) as client:
        client.carry_token()
        for page_size in (200, 2000):
            pages = list(client.pages(IN_ORDER, page_size=page_size))
            assert [page["done"] for page in pages] == [False] * (len(pages) - 1) + [True]
            assert len(pages) == max(1, -(-count // page_size))
            assert {page["totalSize"] for page in pages} == {count}
            assert all("nextRecordsUrl" not in page or not page["done"] for page in pages)
            keys = [(each["SystemModstamp"], each["Id"]) for page in pages for each in page["records"]]
            assert keys == sorted(set(keys))
            assert len(keys) == count
        assert client.query("SELECT COUNT() FROM User") == {"totalSize": count, "done": True, "records": []}


def test_a_record_has_attributes_the_selected_fields_and_null_for_what_is_empty(client: Client) -> None:
    soql = "SELECT id, USERNAME, MobilePhone, IsActive, CreatedDate, Grade__c, Address FROM user ORDER BY Id"
    records = client.query(soql)["records"]
    for record in records:
        assert list(record) == [
            "attributes", "Id", "Username", "MobilePhone", "IsActive", "CreatedDate", "Grade__c", "Address",
        ]  # fmt: skip
        assert record["attributes"] == {"type": "User", "url": f"{DATA}/sobjects/User/{record['Id']}"}
        assert record["Id"] == with_check_characters(record["Id"][:15])
        datetime.strptime(record["CreatedDate"], "%Y-%m-%dT%H:%M:%S.000%z")
    assert {type(record["MobilePhone"]) for record in records} == {str, type(None)}
    addresses = [record["Address"] for record in records if record["Address"]]
    assert len(addresses) < len(records)
    assert {frozenset(address) for address in addresses} == {
        frozenset(
            {
                "city", "country", "countryCode", "geocodeAccuracy", "latitude", "longitude", "postalCode", "state",
                "stateCode", "street",
            }
        )
    }  # fmt: skip
    assert any(set(address.values()) == {None} for address in addresses)
    assert any(isinstance(address["latitude"], float) for address in addresses)


def test_parents_are_nested_with_attributes_of_their_own(client: Client) -> None:
    soql = "SELECT Id, Profile.Name, Manager.Email, Manager.Manager.Id, UserRole.Name FROM User ORDER BY Id"
    records = client.query(soql)["records"]
    assert records[0]["Manager"] is None
    managed = next(record for record in records if record["Manager"] and record["Manager"]["Manager"])
    assert managed["Profile"]["attributes"]["type"] == "Profile"
    assert managed["Profile"]["Name"]
    emails = {record["Id"]: record["Email"] for record in client.query("SELECT Id, Email FROM User")["records"]}
    manager = client.query(f"SELECT ManagerId FROM User WHERE Id = '{managed['Id']}'")["records"][0]["ManagerId"]
    assert managed["Manager"]["Email"] == emails[manager]
    assert managed["Manager"]["attributes"]["url"] == f"{DATA}/sobjects/User/{manager}"
    assert {record["UserRole"] and record["UserRole"]["Name"] for record in records} > {None, "Sales"}


def test_without_state_and_country_picklists_an_address_has_no_codes(
    simulator: SalesforceSimulator, client: Client
) -> None:
    for name in ("StateCode", "CountryCode"):
        simulator.org.hide_field(name)
    addresses = [record["Address"] for record in client.query("SELECT Address FROM User")["records"]]
    assert {len(address) for address in addresses if address} == {8}
    assert None in addresses


@pytest.mark.parametrize(("asked", "given"), [(1, 200), (201, 201), (9999, 450), (None, 450)])
def test_the_page_size_is_brought_into_range(client: Client, asked: int | None, given: int) -> None:
    assert len(client.query(IN_ORDER, page_size=asked)["records"]) == given


def test_each_request_names_its_own_page_size(client: Client) -> None:
    first = client.query(IN_ORDER, page_size=200)
    assert first["nextRecordsUrl"].endswith("-200")
    second = client.get(first["nextRecordsUrl"], page_size=225).json()
    assert len(second["records"]) == 225
    assert second["nextRecordsUrl"].endswith("-425")
    assert client.get(first["nextRecordsUrl"], page_size=225).json() == second
    last = client.get(second["nextRecordsUrl"].replace("/query/", "/queryAll/")).json()
    assert (len(last["records"]), last["done"]) == (25, True)


def test_a_cursor_keeps_who_was_found_and_shows_them_as_they_are_now(
    simulator: SalesforceSimulator, client: Client
) -> None:
    ids = [record["Id"] for record in client.query(IN_ORDER)["records"]]
    soql = f"SELECT Id, Title FROM User WHERE SystemModstamp < {NOW:%Y-%m-%dT%H:%M:%SZ} ORDER BY SystemModstamp, Id"
    first = client.query(soql, page_size=200)
    simulator.org.update_user(ids[0], Title="Already read")
    simulator.org.update_user(ids[300], Title="Not yet read")
    simulator.org.add_user(LastName="Newcomer")
    second = client.get(first["nextRecordsUrl"], page_size=2000).json()
    assert [record["Id"] for record in second["records"]] == ids[200:]
    assert second["records"][100]["Title"] == "Not yet read"
    assert client.query(soql)["totalSize"] == USERS - 2


def test_a_locator_that_was_not_given_out_is_refused(client: Client) -> None:
    given = client.query(IN_ORDER, page_size=200)["nextRecordsUrl"]
    beyond_the_end = given.replace("-200", f"-{USERS + 1}")
    for url in (f"{DATA}/query/0r8000000000000AAA-200", f"{DATA}/query/nonsense-1", beyond_the_end):
        assert error_code(client.get(url)) == (400, "INVALID_QUERY_LOCATOR")


def test_a_cursor_lives_two_days(simulator: SalesforceSimulator, client: Client) -> None:
    url = client.query(IN_ORDER, page_size=200)["nextRecordsUrl"]
    for hours, status in ((47, 200), (2, 400)):
        simulator.clock.advance(timedelta(hours=hours))
        client.carry_token()
        assert client.get(url).status_code == status


def test_an_address_that_is_too_long_is_refused_without_a_body(client: Client) -> None:
    response = client.get(f"{DATA}/query", q="SELECT Id FROM User WHERE Name = '" + "x" * 17_000 + "'")
    assert (response.status_code, response.content) == (414, b"")


# -- The organisation changes -----------------------------------------------------------------------------------


def test_a_change_is_stamped_by_the_clock_and_comes_last(simulator: SalesforceSimulator, client: Client) -> None:
    first = client.query(IN_ORDER)["records"][0]["Id"]
    simulator.org.update_user(first, FirstName="Zoë", City="Kraków")
    record = client.query(
        "SELECT Id, Name, City, Address, CreatedDate, LastModifiedDate, SystemModstamp FROM User "
        "ORDER BY SystemModstamp DESC, Id LIMIT 1"
    )["records"][0]
    assert record["Id"] == first
    assert record["Name"].startswith("Zoë ")
    assert record["Address"]["city"] == record["City"] == "Kraków"
    assert record["SystemModstamp"] == record["LastModifiedDate"] == "2026-06-02T10:30:00.000+0000"
    assert record["CreatedDate"] < record["SystemModstamp"]
    assert client.query(f"SELECT COUNT() FROM User WHERE Name = '{record['Name']}'")["totalSize"] == 1


def test_new_users_are_found_and_deactivated_ones_stay(simulator: SalesforceSimulator, client: Client) -> None:
    added = simulator.org.add_user(LastName="Ötzi", Email="oetzi@example.org")
    simulator.org.deactivate_user(added)
    [record] = client.query(f"SELECT Email, IsActive, LastLoginDate FROM User WHERE Id = '{added}'")["records"]
    assert (record["Email"], record["IsActive"], record["LastLoginDate"]) == ("oetzi@example.org", False, None)
    assert client.query("SELECT COUNT() FROM User")["totalSize"] == USERS + 1


@pytest.mark.parametrize("name", ["Shoe_Size__c", "Id", "SystemModstamp"])
def test_the_organisation_refuses_what_cannot_be_changed(simulator: SalesforceSimulator, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        simulator.org.update_user(simulator.org.users.ordered[0].id, **{name: "x"})
    with pytest.raises(ValueError, match=name):
        simulator.org.add_user(**{name: "x"})
    assert len(simulator.org.users) == USERS
    with pytest.raises(KeyError):
        simulator.org.update_user("005000000000000AAA", Title="x")


def test_the_same_seed_is_the_same_organisation(authority: CertificateAuthority) -> None:
    def organisation(seed: int) -> tuple[str, list[str]]:
        org = SalesforceSimulator(5, authority, seed=seed, org_start=UNTIL).org
        return org.id, [user.person.username for user in org.users.ordered]

    assert organisation(1) == organisation(1)
    assert organisation(1)[0] != organisation(2)[0]


# -- Limits and updated -----------------------------------------------------------------------------------------


def test_usage_is_counted_over_24_hours_and_told_with_every_answer(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.org.set_daily_limit(3)
    assert client.get(f"{DATA}/limits").headers["Sforce-Limit-Info"] == "api-usage=1/3"
    limits = client.get(f"{DATA}/limits/").json()
    assert limits["DailyApiRequests"] == {"Max": 3, "Remaining": 1}
    assert {"DailyBulkV2QueryJobs", "DailyBulkV2QueryFileStorageMB", "DailyBulkApiBatches"} < set(limits)
    assert client.get(f"{DATA}/query", q="SELECT").headers["Sforce-Limit-Info"] == "api-usage=3/3"
    refused = client.get(f"{DATA}/limits/")
    assert error_code(refused) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert refused.json()[0]["message"] == "TotalRequests Limit exceeded."
    simulator.clock.advance(timedelta(hours=24))
    client.carry_token()
    assert client.get(f"{DATA}/limits/").headers["Sforce-Limit-Info"] == "api-usage=1/3"


def test_the_limit_header_has_three_forms_and_can_be_absent(simulator: SalesforceSimulator, client: Client) -> None:
    seen = {}
    for form in (*LimitHeader, None):
        simulator.org.quota.header = form
        seen[form] = client.get(f"{DATA}/limits/").headers.get("Sforce-Limit-Info")
    assert seen == {
        LimitHeader.PLAIN: "api-usage=1/100000",
        LimitHeader.PER_APPLICATION: "api-usage=2/100000; per-app-api-usage=2/100000(appName=user-sync-pipeline)",
        LimitHeader.BURSTS: "api-usage=3/100000; api-bursts=1/750",
        None: None,
    }


def test_the_limit_header_can_be_kept_from_failures(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.org.quota.header_on_errors = False
    assert "Sforce-Limit-Info" not in client.get(f"{DATA}/query", q="SELECT").headers
    assert "Sforce-Limit-Info" in client.get(f"{DATA}/limits/").headers


def test_updated_names_who_changed_and_how_far_that_is_certain(simulator: SalesforceSimulator, client: Client) -> None:
    changed = simulator.org.users.ordered[5].id
    simulator.org.update_user(changed, Title="Changed")
    simulator.clock.advance(timedelta(minutes=7, seconds=20))

    def updated(start: str, end: str) -> Json:
        return client.get(f"{DATA}/sobjects/User/updated/", start=start, end=end).json()

    # The seconds of both ends are cut off.
    assert updated("2026-06-02T10:30:59Z", "2026-06-02T10:35:59+00:00") == {
        "ids": [changed], "latestDateCovered": "2026-06-02T10:35:00.000+0000",
    }  # fmt: skip
    assert updated("2026-06-02T10:31:00Z", "2026-06-03T00:00:00Z") == {
        "ids": [], "latestDateCovered": "2026-06-02T10:37:20.000+0000",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-06-02T10:30:10Z", "2026-06-02T10:30:50Z"),
        ("2026-06-02T10:00:00Z", "2026-06-01T10:00:00Z"),
        ("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"),
        ("2026-06-01", "2026-06-02"),
        ("yesterday", "2026-06-02T00:00:00Z"),
    ],
)
def test_updated_refuses_ranges_that_are_reversed_too_old_or_unreadable(client: Client, start: str, end: str) -> None:
    response = client.get(f"{DATA}/sobjects/User/updated/", start=start, end=end)
    assert error_code(response) == (400, "INVALID_REPLICATION_DATE")
