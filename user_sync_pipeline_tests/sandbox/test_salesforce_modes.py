"""The switches of the Salesforce simulator: cursors, pages, permissions, field types, another organisation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.cursors import OLDER_RULES, Consistency
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, IN_ORDER, NOW, USERS, Client, error_code

GONE = (400, "INVALID_QUERY_LOCATOR")
TITLES = f"SELECT Id, Title FROM User WHERE SystemModstamp < {NOW:%Y-%m-%dT%H:%M:%SZ} ORDER BY SystemModstamp, Id"


# -- Cursors ----------------------------------------------------------------------------------------------------


def test_by_the_older_rules_a_cursor_lives_while_it_is_read_every_fifteen_minutes(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.org.cursors.rules = OLDER_RULES
    url = client.query(IN_ORDER, page_size=200)["nextRecordsUrl"]
    for minutes, status in ((15, 200), (15, 200), (16, 400)):
        simulator.clock.advance(timedelta(minutes=minutes))
        assert client.get(url).status_code == status


def test_by_the_older_rules_an_eleventh_cursor_releases_the_first(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.org.cursors.rules = OLDER_RULES
    urls = [client.query(IN_ORDER, page_size=200)["nextRecordsUrl"] for _ in range(11)]
    assert error_code(client.get(urls[0])) == GONE
    assert client.get(urls[1]).status_code == 200


def test_every_cursor_can_be_gone_at_once(simulator: SalesforceSimulator, client: Client) -> None:
    url = client.query(IN_ORDER, page_size=200)["nextRecordsUrl"]
    simulator.org.cursors.release_all()
    assert error_code(client.get(url)) == GONE


@pytest.mark.parametrize(
    ("consistency", "shown", "found"),
    [
        (Consistency.IDS_FIXED, "now", USERS),
        (Consistency.SNAPSHOT, "before", USERS),
        (Consistency.LIVE, "gone", USERS - 1),
    ],
)
def test_a_later_page_shows_what_the_mode_says(
    simulator: SalesforceSimulator, client: Client, consistency: Consistency, shown: str, found: int
) -> None:
    user = simulator.org.users.ordered[300].id
    before = client.query(f"SELECT Title FROM User WHERE Id = '{user}'")["records"][0]["Title"]
    simulator.org.cursors.consistency = consistency
    first = client.query(TITLES, page_size=200)
    simulator.org.update_user(user, Title="Changed")
    second = client.get(first["nextRecordsUrl"], page_size=2000).json()
    assert second["totalSize"] == found
    titles = {record["Id"]: record["Title"] for record in second["records"]}
    assert titles.get(user) == {"now": "Changed", "before": before, "gone": None}[shown]
    assert len(second["records"]) == found - 200


# -- Pages ------------------------------------------------------------------------------------------------------


def test_pages_can_be_smaller_than_was_asked_for(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.org.largest_page = 130
    pages = list(client.pages(IN_ORDER, page_size=200))
    assert [len(page["records"]) for page in pages] == [130, 130, 130, 60]
    assert [page["done"] for page in pages] == [False, False, False, True]


@pytest.mark.parametrize(("page_size", "sizes"), [(225, [225, 225, 0]), (200, [200, 200, 50, 0])])
def test_an_empty_page_can_follow_the_last(
    simulator: SalesforceSimulator, client: Client, page_size: int, sizes: list[int]
) -> None:
    simulator.org.empty_last_page = True
    pages = list(client.pages(IN_ORDER, page_size=page_size))
    assert [len(page["records"]) for page in pages] == sizes
    assert [page["done"] for page in pages] == [False] * (len(sizes) - 1) + [True]
    assert client.query("SELECT Id FROM User WHERE Username = 'nobody'")["done"]


# -- Fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "value", "condition"),
    [
        ("Grade__c", "string", "1.5", "= '1.5'"),
        ("External_ID__c", "double", None, "= null"),
        ("IsActive", "string", "true", "= 'TRUE'"),
        ("Cost_Center__c", "boolean", True, "= true"),
    ],
)
def test_a_field_can_change_its_type_and_its_values_with_it(
    simulator: SalesforceSimulator, client: Client, name: str, kind: str, value: object, condition: str
) -> None:
    simulator.org.retype_field(name, kind)
    fields = {field["name"]: field for field in client.get(f"{DATA}/sobjects/User/describe").json()["fields"]}
    assert fields[name]["type"] == kind
    records = client.query(f"SELECT Id, {name} FROM User WHERE {name} {condition}")["records"]
    assert records
    assert all(record[name] == value for record in records)


def test_a_field_cannot_become_what_no_field_is(simulator: SalesforceSimulator) -> None:
    with pytest.raises(ValueError, match="Shoe_Size__c"):
        simulator.org.retype_field("Shoe_Size__c", "double")
    with pytest.raises(ValueError, match="colour"):
        simulator.org.retype_field("Grade__c", "colour")


def test_a_field_can_be_hidden_between_two_pages(simulator: SalesforceSimulator, client: Client) -> None:
    first = client.query("SELECT Id, External_ID__c FROM User", page_size=200)
    simulator.org.hide_field("External_ID__c")
    assert error_code(client.get(first["nextRecordsUrl"])) == (400, "INVALID_FIELD")


# -- The organisation and what we may ----------------------------------------------------------------------------


def test_the_organisation_can_be_asked_for_its_id(simulator: SalesforceSimulator, client: Client) -> None:
    page = client.query("SELECT Id, Name, IsSandbox FROM Organization LIMIT 1")
    [record] = page["records"]
    assert (record["Id"], record["IsSandbox"], page["totalSize"]) == (simulator.org.id, False, 1)
    assert record["attributes"]["type"] == "Organization"
    assert client.query("SELECT COUNT() FROM Organization")["totalSize"] == 1
    assert error_code(client.get(f"{DATA}/query", q="SELECT Id FROM Account")) == (400, "INVALID_TYPE")
    assert error_code(client.get(f"{DATA}/query", q="SELECT Username FROM Organization")) == (400, "INVALID_FIELD")


def test_a_refreshed_sandbox_is_another_organisation_and_ends_every_session(
    simulator: SalesforceSimulator, client: Client
) -> None:
    before = simulator.org.id
    simulator.org.become_another()
    assert error_code(client.get(f"{DATA}/limits/")) == (401, "INVALID_SESSION_ID")
    identity = client.sign_in().json()["id"]
    client.carry_token()
    [record] = client.query("SELECT Id, IsSandbox FROM Organization")["records"]
    assert record["Id"] == simulator.org.id != before
    assert record["IsSandbox"] is True
    assert f"/id/{record['Id']}/" in identity
    assert client.query("SELECT COUNT() FROM User")["totalSize"] == USERS


def test_an_inactive_integration_user_has_no_session_and_gets_none(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.org.permissions.active = False
    assert error_code(client.get(f"{DATA}/limits/")) == (401, "INVALID_SESSION_ID")
    assert client.sign_in().json() == {"error": "inactive_user", "error_description": "user is inactive"}


@pytest.mark.parametrize(
    ("permission", "code"), [("api_for_org", "API_DISABLED_FOR_ORG"), ("api_for_user", "API_CURRENTLY_DISABLED")]
)
def test_without_the_api_everything_is_refused(
    simulator: SalesforceSimulator, client: Client, permission: str, code: str
) -> None:
    setattr(simulator.org.permissions, permission, False)
    for path in ("limits/", "sobjects/User/describe"):
        assert error_code(client.get(f"{DATA}/{path}")) == (403, code)


def test_without_the_setup_permission_only_limits_are_refused(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.org.permissions.setup = False
    assert error_code(client.get(f"{DATA}/limits/")) == (403, "INSUFFICIENT_ACCESS")
    assert client.query("SELECT COUNT() FROM User")["totalSize"] == USERS
