"""The contract of the Salesforce simulator, over TLS, with requests and with simple-salesforce itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast

import pytest
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import (
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceResourceNotFound,
)

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.ids import with_check_characters
from user_sync_pipeline_tests.sandbox.salesforce_client import (
    DATA,
    IN_ORDER,
    NOW,
    USERS,
    VERSION,
    Client,
    error_code,
)

# -- Sign-in ----------------------------------------------------------------------------------------------------


def test_client_credentials_are_taken_from_the_body_and_from_a_basic_header(simulator: SalesforceSimulator) -> None:
    with closing(Client(simulator)) as client:
        in_body = client.sign_in()
        client.session.auth = (client.settings["SALESFORCE_CLIENT_ID"], client.settings["SALESFORCE_CLIENT_SECRET"])
        in_header = client.sign_in(client_id="", client_secret="")
    for response in (in_body, in_header):
        assert response.status_code == 200
        answer = response.json()
        assert set(answer) == {
            "access_token", "signature", "scope", "instance_url", "id", "token_type", "issued_at",
        }  # fmt: skip
        assert answer["token_type"] == "Bearer"
        assert answer["instance_url"] == simulator.url
        assert answer["id"].endswith(f"/id/{simulator.org.id}/{simulator.org.api_user_id}")
        assert answer["issued_at"] == str(int(NOW.timestamp() * 1000))
        assert "Sforce-Limit-Info" not in response.headers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({"client_id": "somebody-else"}, "invalid_client_id", "client identifier invalid"),
        ({"client_secret": "guessed"}, "invalid_client", "invalid client credentials"),
        ({"grant_type": "password"}, "unsupported_grant_type", "grant type not supported"),
    ],
)
def test_a_refused_sign_in_is_an_object_with_status_400(
    client: Client, form: dict[str, str], error: str, description: str
) -> None:
    response = client.sign_in(**form)
    assert response.status_code == 400
    assert response.json() == {"error": error, "error_description": description}


def test_an_application_without_a_run_as_user_is_refused(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.tokens.has_run_as_user = False
    assert client.sign_in().json()["error_description"] == "no client credentials user enabled"


def test_a_token_ends_after_two_hours_without_a_call_and_each_call_prolongs_it(
    simulator: SalesforceSimulator, client: Client
) -> None:
    for _ in range(2):
        simulator.clock.advance(timedelta(hours=1, minutes=59))
        assert client.get(f"{DATA}/limits/").status_code == 200
    simulator.clock.advance(timedelta(hours=2, seconds=1))
    response = client.get(f"{DATA}/limits/")
    assert error_code(response) == (401, "INVALID_SESSION_ID")
    assert response.headers["WWW-Authenticate"] == "Token"
    client.carry_token()
    assert client.get(f"{DATA}/limits/").status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer forged", "Basic dXNlcjpwYXNz", "nonsense"])
def test_no_data_without_a_token(client: Client, authorization: str | None) -> None:
    del client.session.headers["Authorization"]
    if authorization:
        client.session.headers["Authorization"] = authorization
    assert error_code(client.get(f"{DATA}/query", q=IN_ORDER)) == (401, "INVALID_SESSION_ID")


def test_the_older_oauth_scheme_is_still_understood_and_revoked_tokens_are_dead(
    simulator: SalesforceSimulator, client: Client
) -> None:
    client.session.headers["Authorization"] = f"OAuth {client.carry_token()}"
    assert client.get(f"{DATA}/limits/").status_code == 200
    simulator.tokens.revoke_tokens()
    assert client.get(f"{DATA}/limits/").status_code == 401


# -- Versions, describe, headers --------------------------------------------------------------------------------


def test_versions_are_free_and_open_to_everybody(simulator: SalesforceSimulator, client: Client) -> None:
    del client.session.headers["Authorization"]
    response = client.get("/services/data/")
    versions = response.json()
    assert {"label": "Spring '26", "url": DATA, "version": VERSION} in versions
    assert versions[-1] == {"label": "Winter '27", "url": "/services/data/v68.0", "version": "68.0"}
    assert "Sforce-Limit-Info" not in response.headers
    assert simulator.org.quota.used == 0


@pytest.mark.parametrize(("version", "expected"), [("30.0", (410, "GONE")), ("99.0", (404, "NOT_FOUND"))])
def test_versions_that_are_gone_or_to_come_are_refused(client: Client, version: str, expected: tuple[int, str]) -> None:
    assert error_code(client.get(f"/services/data/v{version}/limits/")) == expected


def test_describe_tells_type_and_flags_of_every_field(client: Client) -> None:
    answer = client.get(f"{DATA}/sobjects/User/describe").json()
    assert (answer["name"], answer["queryable"], answer["replicateable"]) == ("User", True, True)
    fields = {field["name"]: field for field in answer["fields"]}
    external_id = fields["External_ID__c"]
    expected = {
        "name": "External_ID__c", "type": "string", "length": 64, "nillable": True, "custom": True,
        "calculated": False, "externalId": True, "unique": False, "compoundFieldName": None, "filterable": True,
        "sortable": True, "relationshipName": None,
    }  # fmt: skip
    assert expected.items() <= external_id.items()
    assert fields["Address"]["type"] == "address"
    assert {fields[part]["compoundFieldName"] for part in ("Street", "City", "Latitude", "CountryCode")} == {"Address"}
    assert {fields[part]["compoundFieldName"] for part in ("FirstName", "LastName")} == {"Name"}
    assert fields["ManagerId"]["relationshipName"] == "Manager"
    assert "IsDeleted" not in fields
    assert {field["type"] for field in answer["fields"]} == {
        "id", "string", "textarea", "email", "phone", "url", "picklist", "reference", "boolean", "int", "double",
        "date", "datetime", "address",
    }  # fmt: skip


def test_a_hidden_field_is_absent_and_cannot_be_queried_until_it_is_shown_again(
    simulator: SalesforceSimulator, client: Client
) -> None:
    def described() -> set[str]:
        return {field["name"] for field in client.get(f"{DATA}/sobjects/User/describe").json()["fields"]}

    soql = "SELECT Id, External_ID__c FROM User LIMIT 1"
    assert client.get(f"{DATA}/query", q=soql).status_code == 200
    simulator.org.hide_field("External_ID__c")
    assert "External_ID__c" not in described()
    response = client.get(f"{DATA}/query", q=soql)
    assert error_code(response) == (400, "INVALID_FIELD")
    message = response.json()[0]["message"]
    assert message.startswith(f"\n{soql}\n           ^\nERROR at Row:1:Column:12\n")
    assert "No such column 'External_ID__c' on entity 'User'" in message
    simulator.org.show_field("External_ID__c")
    assert "External_ID__c" in described()
    assert client.get(f"{DATA}/query", q=soql).status_code == 200


def test_every_answer_carries_the_headers_of_salesforce(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.clock.shift(timedelta(hours=-1))
    response = client.get(f"{DATA}/limits/")
    assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert response.headers["Server"] == "sfdcedge"
    assert response.headers["X-SFDC-Request-Id"]
    assert "no-cache" in response.headers["Cache-Control"]
    assert "Retry-After" not in response.headers
    assert response.raw.headers.getlist("Date") == [response.headers["Date"]]
    assert parsedate_to_datetime(response.headers["Date"]) == NOW - timedelta(hours=1)


def test_large_answers_are_compressed_for_those_who_accept_it(client: Client) -> None:
    assert client.get(f"{DATA}/query", q=IN_ORDER).headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in client.get(f"{DATA}/query", q="SELECT COUNT() FROM User").headers
    client.session.headers["Accept-Encoding"] = "identity"
    plain = client.get(f"{DATA}/query", q=IN_ORDER)
    assert "Content-Encoding" not in plain.headers
    assert len(plain.json()["records"]) == USERS


# -- The journal ------------------------------------------------------------------------------------------------


def test_reading_leaves_no_violations_and_no_secrets_in_the_journal(
    simulator: SalesforceSimulator, client: Client
) -> None:
    token = client.carry_token()
    list(client.pages(IN_ORDER, page_size=200))
    assert simulator.journal.violations == []
    page = simulator.journal.exchanges[-1]
    assert (page.method, page.status, page.headers["sforce-query-options"]) == ("GET", 200, "batchSize=200")
    first = next(each for each in simulator.journal.exchanges if each.path == f"{DATA}/query")
    assert first.query == f"q={IN_ORDER}"
    written = repr(simulator.journal.exchanges)
    assert token not in written
    assert client.settings["SALESFORCE_CLIENT_SECRET"] not in written
    simulator.journal.clear()
    assert simulator.journal.exchanges == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", f"{DATA}/query", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", f"{DATA}/sobjects/User/describe", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/services/oauth2/token", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", f"{DATA}/sobjects/User/0055g0000010wBVAAY", 404, "NOT_FOUND"),
        ("POST", f"{DATA}/sobjects/User", 404, "NOT_FOUND"),
        ("GET", f"{DATA}/sobjects/Account/describe", 404, "NOT_FOUND"),
        ("GET", "/", 404, "NOT_FOUND"),
    ],
)
def test_what_a_reader_has_no_reason_to_send_is_refused_and_written_down(
    simulator: SalesforceSimulator,
    client: Client,
    violations: list[str],
    method: str,
    path: str,
    status: int,
    code: str,
) -> None:
    response = client.session.request(method, simulator.url + path, json={"Title": "x"}, timeout=60)
    assert error_code(response) == (status, code)
    [violation] = simulator.journal.violations
    assert (violation.method, violation.path, violation.status) == (method, path, status)
    assert violations.pop().endswith(f"{method} {path}")


# -- simple-salesforce ------------------------------------------------------------------------------------------


@pytest.fixture
def salesforce_client(client: Client) -> Salesforce:
    token = client.carry_token()
    del client.session.headers["Authorization"]
    return Salesforce(instance_url=client.simulator.url, session_id=token, version=VERSION, session=client.session)


def test_simple_salesforce_pages_through_all_users(client: Client, salesforce_client: Salesforce) -> None:
    client.session.headers["Sforce-Query-Options"] = "batchSize=200"
    page = cast(Any, salesforce_client.query(IN_ORDER))
    ids = [record["Id"] for record in page["records"]]
    while not page["done"]:
        page = cast(Any, salesforce_client.query_more(page["nextRecordsUrl"], identifier_is_url=True))
        ids += [record["Id"] for record in page["records"]]
    assert len(set(ids)) == len(ids) == USERS
    assert [record["Id"] for record in salesforce_client.query_all_iter(IN_ORDER)] == ids
    assert salesforce_client.api_usage["api-usage"].used == 6


def test_simple_salesforce_reads_describe_limits_and_updated(salesforce_client: Salesforce) -> None:
    get = cast(Callable[..., Any], salesforce_client.restful)
    assert get("sobjects/User/describe")["name"] == "User"
    assert get("limits/")["DailyApiRequests"]["Max"] == 100_000
    span = {"start": "2026-06-01T00:00:00Z", "end": "2026-06-02T00:00:00Z"}
    assert get("sobjects/User/updated/", params=span)["ids"] == []


@pytest.mark.parametrize(
    ("provoke", "error", "beyond_reading"),
    [
        (lambda sf: sf.query("SELECT Shoe_Size__c FROM User"), SalesforceMalformedRequest, 0),
        (lambda sf: sf.restful("sobjects/Nothing/describe"), SalesforceResourceNotFound, 1),
    ],
)
def test_simple_salesforce_recognises_the_failures(
    salesforce_client: Salesforce,
    violations: list[str],
    provoke: Callable[[Salesforce], object],
    error: type[Exception],
    beyond_reading: int,
) -> None:
    with pytest.raises(error):
        provoke(salesforce_client)
    assert len(violations) == beyond_reading
    violations.clear()


def test_simple_salesforce_recognises_an_expired_session(
    simulator: SalesforceSimulator, salesforce_client: Salesforce
) -> None:
    simulator.clock.advance(timedelta(hours=3))
    with pytest.raises(SalesforceExpiredSession):
        salesforce_client.query(IN_ORDER)


@pytest.mark.parametrize(
    ("short_id", "suffix"), [("0055g000001AbCd", "AAK"), ("500D0000006Wmju", "IAC"), ("ABCDEABCDEABCDE", "555")]
)
def test_ids_have_the_check_characters_that_salesforce_gives_them(short_id: str, suffix: str) -> None:
    assert with_check_characters(short_id) == short_id + suffix
