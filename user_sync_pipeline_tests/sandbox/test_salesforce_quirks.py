"""Each switch of what nobody says for certain of Salesforce does what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.quirks import (
    MORE_TOKEN_FIELDS,
    NEEDED_TOKEN_FIELDS,
    TOKEN_FIELDS,
    CountRecords,
    Wording,
)
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, IN_ORDER, NOW, USERS, Client, error_code

UPDATED, DELETED = f"{DATA}/sobjects/User/updated/", f"{DATA}/sobjects/User/deleted/"
DESCRIBE = f"{DATA}/sobjects/User/describe"
WIRE_NOW = "2026-06-02T10:30:00.000+0000"


def message(response: requests.Response) -> str:
    text: str = response.json()[0]["message"]
    return text


# -- Sign-in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [TOKEN_FIELDS, TOKEN_FIELDS | MORE_TOKEN_FIELDS, NEEDED_TOKEN_FIELDS])
def test_the_answer_to_a_sign_in_can_hold_more_or_less(
    simulator: SalesforceSimulator, client: Client, fields: frozenset[str]
) -> None:
    simulator.org.turn(token_fields=fields)
    assert client.sign_in().json().keys() == fields


def test_a_login_host_refuses_client_credentials_or_not(simulator: SalesforceSimulator, client: Client) -> None:
    client.session.headers["Host"] = "login.salesforce.com"
    assert client.sign_in().json() == {
        "error": "invalid_grant",
        "error_description": "request not supported on this domain",
    }
    simulator.org.turn(login_hosts=frozenset())
    assert "access_token" in client.sign_in().json()


# -- Answers ----------------------------------------------------------------------------------------------------


def test_the_list_of_versions_can_be_inside_of_an_object(simulator: SalesforceSimulator, client: Client) -> None:
    versions = client.get("/services/data/").json()
    simulator.org.turn(versions_in_object=True)
    assert client.get("/services/data/").json() == {"versions": versions}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 199, 2001])
def test_a_page_size_out_of_range_can_be_refused(simulator: SalesforceSimulator, client: Client, size: int) -> None:
    simulator.org.turn(odd_page_sizes_are_refused=True)
    assert client.get(f"{DATA}/query", q=IN_ORDER, page_size=size).status_code == 400
    assert client.get(f"{DATA}/query", q=IN_ORDER, page_size=200).status_code == 200


@pytest.mark.parametrize("status", [414, 431])
def test_an_address_that_is_too_long_has_either_status(
    simulator: SalesforceSimulator, client: Client, status: int
) -> None:
    simulator.org.turn(status_of_long_addresses=status)
    assert client.get(f"{DATA}/query", q="x" * 17_000).status_code == status


@pytest.mark.parametrize(
    ("wording", "text"), [(Wording.EMPTY, ""), (Wording.OTHER, "Salesforce has found other words for this.")]
)
def test_texts_that_nobody_is_sure_of_can_be_others(
    simulator: SalesforceSimulator, client: Client, wording: Wording, text: str
) -> None:
    simulator.org.turn(wording=wording)
    for soql in ("SELECT Shoe__c FROM User", "SELECT Id FROM Shoe__c", "SELECT FROM"):
        assert message(client.get(f"{DATA}/query", q=soql)) == text
    refused = client.sign_in(client_secret="wrong")
    assert refused.json() == {"error": "invalid_client", "error_description": text}
    simulator.org.permissions.api_for_org = False
    assert message(client.get(f"{DATA}/limits/")) not in ("", text)


@pytest.mark.parametrize(
    ("shape", "rest"),
    [
        (CountRecords.EMPTY, {"records": []}),
        (CountRecords.NULL, {"records": None}),
        (CountRecords.ABSENT, {}),
    ],
)
def test_a_count_has_no_records_in_one_of_three_ways(
    simulator: SalesforceSimulator, client: Client, shape: CountRecords, rest: dict[str, Any]
) -> None:
    simulator.org.turn(count_records=shape)
    assert client.query("SELECT COUNT() FROM User") == {"totalSize": USERS, "done": True, **rest}


@pytest.mark.parametrize(("as_asked", "spelled"), [(False, "LastName"), (True, "lastNAME")])
def test_fields_are_spelled_as_described_or_as_asked(
    simulator: SalesforceSimulator, client: Client, as_asked: bool, spelled: str
) -> None:
    simulator.org.turn(fields_as_asked=as_asked)
    user = simulator.org.users.ordered[0].id
    simulator.org.update_user(user, LastName="Ångström")
    [record] = client.query(f"select lastNAME from USER where iD = '{user}'")["records"]
    assert record[spelled] == "Ångström"


def test_users_can_have_a_field_that_tells_of_deletion(simulator: SalesforceSimulator, client: Client) -> None:
    soql = "SELECT COUNT() FROM User WHERE IsDeleted = false"
    assert error_code(client.get(f"{DATA}/query", q=soql)) == (400, "INVALID_FIELD")
    simulator.org.turn(has_is_deleted=True)
    assert client.query(soql)["totalSize"] == USERS
    assert client.get(DESCRIBE).json()["fields"][-1]["name"] == "IsDeleted"


def test_a_large_offset_is_refused_or_not(simulator: SalesforceSimulator, client: Client) -> None:
    soql = "SELECT Id FROM User OFFSET 2001"
    assert error_code(client.get(f"{DATA}/query", q=soql)) == (400, "NUMBER_OUTSIDE_VALID_RANGE")
    simulator.org.turn(offset_is_limited=False)
    assert client.query(soql)["records"] == []


# -- What moves SystemModstamp ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [False, True])
def test_a_login_a_freeze_and_a_deactivation_move_the_stamp_or_not(
    simulator: SalesforceSimulator, client: Client, moves: bool
) -> None:
    simulator.org.turn(login_moves_stamp=moves, freezing_moves_stamp=moves, deactivation_moves_stamp=moves)
    who_logs_in, frozen, deactivated = (user.id for user in simulator.org.users.ordered[:3])
    simulator.org.log_in(who_logs_in)
    simulator.org.freeze_user(frozen)
    simulator.org.deactivate_user(deactivated)
    fields = "Id, SystemModstamp, LastModifiedDate, LastLoginDate, IsActive"
    found = {record["Id"]: record for record in client.query(f"SELECT {fields} FROM User")["records"]}
    for user_id in (who_logs_in, frozen, deactivated):
        assert (found[user_id]["SystemModstamp"] == WIRE_NOW) is moves
        assert (found[user_id]["LastModifiedDate"] == WIRE_NOW) is (user_id == deactivated)
    assert found[who_logs_in]["LastLoginDate"] == WIRE_NOW
    assert found[deactivated]["IsActive"] is False


def test_a_formula_changes_without_a_trace(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.org.make_formula("Cost_Center__c")
    [field] = [each for each in client.get(DESCRIBE).json()["fields"] if each["name"] == "Cost_Center__c"]
    assert field["calculated"] is True
    user = simulator.org.users.ordered[0].id
    soql = f"SELECT Cost_Center__c, SystemModstamp, LastModifiedDate FROM User WHERE Id = '{user}'"
    [before] = client.query(soql)["records"]
    simulator.org.recompute(user, Cost_Center__c="CC-NEW-001")
    [after] = client.query(soql)["records"]
    assert after == before | {"Cost_Center__c": "CC-NEW-001"}


@pytest.mark.parametrize("descend", [False, True])
def test_new_ids_come_before_all_others_or_behind_them(simulator: SalesforceSimulator, descend: bool) -> None:
    known = {user.id for user in simulator.org.users.ordered}
    simulator.org.turn(new_ids_descend=descend)
    new = [simulator.org.add_user(LastName=name) for name in ("One", "Two")]
    assert not known & set(new)
    assert max(new) < min(known) if descend else min(new) > max(known)


# -- Updated and deleted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "found"), [(True, 1), (False, 0)])
def test_updated_leaves_the_seconds_of_its_bounds_off_or_not(
    simulator: SalesforceSimulator, client: Client, cuts: bool, found: int
) -> None:
    simulator.org.turn(updated_cuts_seconds=cuts)
    simulator.org.update_user(simulator.org.users.ordered[0].id, Title="Changed")
    simulator.clock.advance(timedelta(minutes=5))
    answer = client.get(UPDATED, start="2026-06-02T10:30:30Z", end="2026-06-02T10:33:00Z")
    assert len(answer.json()["ids"]) == found


@pytest.mark.parametrize(("stays", "covered"), [(False, "10:30:00"), (True, "10:45:00")])
def test_coverage_can_reach_back_before_the_span_or_not(
    simulator: SalesforceSimulator, client: Client, stays: bool, covered: str
) -> None:
    simulator.org.turn(coverage_stays_in_span=stays)
    simulator.org.begin()
    simulator.clock.advance(timedelta(minutes=30))
    answer = client.get(UPDATED, start="2026-06-02T10:45:00Z", end="2026-06-02T11:00:00Z").json()
    assert answer["latestDateCovered"] == f"2026-06-02T{covered}.000+0000"


def test_nobody_is_ever_deleted(simulator: SalesforceSimulator, client: Client, violations: list[str]) -> None:
    simulator.org.deactivate_user(simulator.org.users.ordered[0].id)
    answer = client.get(DELETED, start="2026-06-01T00:00:00Z", end="2026-06-02T10:30:00Z").json()
    assert answer == {
        "deletedRecords": [],
        "earliestDateAvailable": "2026-05-18T10:30:00.000+0000",
        "latestDateCovered": WIRE_NOW,
    }
    for start, end in (("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"), ("2026-06-02T10:00:00Z", WIRE_NOW[:16])):
        assert client.get(DELETED, start=start, end=end).status_code == 400
    assert client.session.delete(simulator.url + DELETED, timeout=60).status_code == 405
    assert len(violations) == 1
    violations.clear()


# -- Describe and explain ---------------------------------------------------------------------------------------


def test_describe_need_not_be_sent_again_while_nothing_has_changed(
    simulator: SalesforceSimulator, client: Client
) -> None:
    first = client.get(DESCRIBE)
    client.session.headers["If-Modified-Since"] = first.headers["Last-Modified"]
    again = client.get(DESCRIBE)
    assert (again.status_code, again.content) == (304, b"")
    simulator.clock.set(simulator.org.described_since + timedelta(minutes=1))
    client.carry_token()
    simulator.org.hide_field("Fax")
    assert len(client.get(DESCRIBE).json()["fields"]) == len(first.json()["fields"]) - 1


@pytest.mark.parametrize(
    ("soql", "cardinality", "fields", "operation"),
    [
        (f"{IN_ORDER} LIMIT 5", 5, [], "TableScan"),
        ("SELECT Id FROM User WHERE Title = 'x' AND (NOT SystemModstamp > 2000-01-01T00:00:00Z)", 0,
         ["SystemModstamp"], "Index"),
        ("SELECT Id FROM User WHERE SystemModstamp > 2000-01-01T00:00:00Z", USERS, ["SystemModstamp"], "Index"),
    ],
)  # fmt: skip
def test_a_query_can_be_explained_instead_of_answered(
    client: Client, soql: str, cardinality: int, fields: list[str], operation: str
) -> None:
    [plan] = client.get(f"{DATA}/query/", explain=soql).json()["plans"]
    assert (plan["cardinality"], plan["fields"], plan["leadingOperationType"]) == (cardinality, fields, operation)
    assert (plan["sobjectCardinality"], plan["sobjectType"], plan["notes"]) == (USERS, "User", [])
    assert plan["relativeCost"] == round(cardinality / USERS, 3)


def test_a_bad_query_is_not_explained(client: Client) -> None:
    assert error_code(client.get(f"{DATA}/query/", explain="SELECT FROM")) == (400, "MALFORMED_QUERY")


# -- Bulk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("in_z", "end"), [(True, "Z"), (False, "+0000")])
def test_moments_in_bulk_results_end_in_either_way(
    simulator: SalesforceSimulator, client: Client, in_z: bool, end: str
) -> None:
    simulator.org.turn(bulk_moments_end_in_z=in_z)
    simulator.clock.set(NOW)
    jobs = f"{simulator.url}{DATA}/jobs/query"
    body = {"operation": "query", "query": "SELECT SystemModstamp FROM User LIMIT 1"}
    job = client.session.post(jobs, json=body, timeout=60).json()["id"]
    lines = client.session.get(f"{jobs}/{job}/results", timeout=60).text.splitlines()
    assert lines[1].endswith(f'.000{end}"')
