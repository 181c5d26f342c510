"""The fault script: which requests it befalls and what becomes of their answers, over TLS."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.sandbox.salesforce import Fault, FaultScript, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.errors import USUAL
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, IN_ORDER, USERS, Client, error_code

COUNT = "SELECT COUNT() FROM User"


def statuses(client: Client, times: int) -> list[int]:
    return [client.get(f"{DATA}/query", q=COUNT).status_code for _ in range(times)]


def ask(client: Client) -> requests.Response:
    return client.get(f"{DATA}/query", q=IN_ORDER)


# -- Which requests ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"times": 2}, [503, 503, 200, 200, 200, 200]),
        ({"first": 3, "times": 1}, [200, 200, 503, 200, 200, 200]),
        ({"first": 2, "every": 2}, [200, 503, 200, 503, 200, 503]),
        ({"first": 2, "every": 2, "times": 2}, [200, 503, 200, 503, 200, 200]),
        ({"on": "page"}, [200] * 6),
        ({"on": "count", "times": 1}, [503, 200, 200, 200, 200, 200]),
        ({"method": "POST"}, [200] * 6),
        ({"path": "*/query", "query": "*COUNT()*", "first": 5}, [200, 200, 200, 200, 503, 503]),
    ],
)
def test_a_fault_strikes_the_requests_whose_turn_it_is(
    simulator: SalesforceSimulator, client: Client, rule: dict[str, Any], expected: list[int]
) -> None:
    simulator.faults.add(Fault(status=503, **rule))
    assert statuses(client, 6) == expected
    assert [exchange.status for exchange in simulator.journal.exchanges[1:]] == expected
    assert simulator.journal.violations == []


def test_the_third_page_of_a_query_is_the_second_after_the_first(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(Fault(on="page", first=3, times=1, error="UNKNOWN_EXCEPTION"))
    client.query(COUNT)
    first = client.query(IN_ORDER, page_size=200)
    second = client.get(first["nextRecordsUrl"], page_size=200).json()
    assert error_code(client.get(second["nextRecordsUrl"], page_size=200)) == (500, "UNKNOWN_EXCEPTION")
    assert len(client.get(second["nextRecordsUrl"], page_size=200).json()["records"]) == USERS - 400


def test_a_fault_lasts_as_long_as_it_says_by_the_clock_of_the_organisation(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(
        Fault(first=2, seconds=30, error="REQUEST_LIMIT_EXCEEDED", message="ConcurrentRequests Limit exceeded.")
    )
    assert statuses(client, 3) == [200, 403, 403]
    simulator.clock.advance(timedelta(seconds=29))
    assert statuses(client, 1) == [403]
    simulator.clock.advance(timedelta(seconds=1))
    assert statuses(client, 2) == [200, 200]


def test_of_two_faults_the_one_that_is_written_first_strikes(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(Fault(times=1, status=500), Fault(times=2, status=502))
    assert statuses(client, 4) == [500, 502, 502, 200]
    simulator.faults.add(Fault(status=504))
    simulator.faults.clear()
    assert statuses(client, 1) == [200]


def test_a_query_that_matches_too_many_users_or_spans_too_many_days_times_out(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(
        Fault(on="query", rows_above=300, error="QUERY_TIMEOUT"),
        Fault(on="query", days_above=30, error="QUERY_TIMEOUT"),
    )

    def window(since: str, until: str = "") -> tuple[int, str | None]:
        end = f" AND SystemModstamp < {until}" if until else ""
        soql = f"SELECT Id FROM User WHERE SystemModstamp >= {since}{end} AND IsActive = true"
        response = client.get(f"{DATA}/query", q=soql)
        return response.status_code, response.json()[0]["errorCode"] if response.status_code != 200 else None

    assert window("2026-05-20T00:00:00Z") == (200, None)
    assert window("2026-05-01T00:00:00Z", "2026-05-31T00:00:00Z") == (200, None)
    assert window("2026-05-01T00:00:00Z", "2026-05-31T00:00:01Z") == (400, "QUERY_TIMEOUT")
    assert error_code(ask(client)) == (400, "QUERY_TIMEOUT")
    assert client.query(COUNT)["totalSize"] == USERS
    assert error_code(client.get(f"{DATA}/query", q="SELECT")) == (400, "MALFORMED_QUERY")


# -- What befalls them ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(USUAL))
def test_an_error_has_its_usual_status_and_text(simulator: SalesforceSimulator, client: Client, code: str) -> None:
    simulator.faults.add(Fault(error=code))
    response = ask(client)
    assert error_code(response) == (USUAL[code].status, code)
    assert response.json()[0]["message"] == USUAL[code].message
    assert ("WWW-Authenticate" in response.headers) == (response.status_code == 401)


@pytest.mark.slow
@pytest.mark.parametrize("status", [406, 420, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", ["html", None])
def test_a_bare_status_comes_with_an_empty_body_or_with_a_page(
    simulator: SalesforceSimulator, client: Client, status: int, body: Any
) -> None:
    simulator.faults.add(Fault(status=status, body=body))
    response = ask(client)
    assert response.status_code == status
    assert response.text.startswith("<html>") if body else response.content == b""
    assert response.headers["Content-Type"].startswith("text/html" if body else "application/json")


def test_a_sign_in_is_refused_in_its_own_form(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(
        Fault(on="token", error="invalid_grant", message="no client credentials user enabled", times=1),
        Fault(on="token", status=503, times=1),
        Fault(on="token", text='{"access_token": "x"}', times=1),
    )
    refused = client.sign_in()
    assert refused.status_code == 400
    assert refused.json() == {
        "error": "invalid_grant", "error_description": "no client credentials user enabled",
    }  # fmt: skip
    assert client.sign_in().status_code == 503
    assert client.sign_in().json() == {"access_token": "x"}
    assert len(client.sign_in().json()) == 7


def test_a_good_status_can_come_with_a_page_an_empty_body_or_another_content_type(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(
        Fault(body="html", times=1), Fault(body="empty", times=1), Fault(content_type="text/plain", times=1)
    )
    page, empty, plain = ask(client), ask(client), ask(client)
    assert (page.status_code, page.text[:6]) == (200, "<html>")
    assert (empty.status_code, empty.content) == (200, b"")
    assert plain.headers["Content-Type"] == "text/plain"
    assert len(plain.json()["records"]) == USERS


@pytest.mark.parametrize(("body", "encoding"), [("cut", "identity"), ("cut", "gzip"), ("cut_gzip", "gzip")])
def test_a_body_can_be_cut_off_although_its_length_is_right(
    simulator: SalesforceSimulator, client: Client, body: Any, encoding: str
) -> None:
    client.session.headers["Accept-Encoding"] = encoding
    whole = ask(client)
    simulator.faults.add(Fault(body=body))
    response = ask(client)
    assert response.status_code == 200
    assert response.headers.get("Content-Encoding", "identity") == encoding
    assert len(response.content) < len(whole.content)
    with pytest.raises(requests.exceptions.JSONDecodeError):
        response.json()


@pytest.mark.slow
def test_an_answer_can_be_late_or_drip(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(Fault(delay=0.2, times=1), Fault(drip=0.2, times=1))
    for _ in range(2):
        started = time.monotonic()
        assert len(ask(client).json()["records"]) == USERS
        assert time.monotonic() - started >= 0.19
    simulator.faults.add(Fault(delay=2, times=1))
    with pytest.raises(requests.ReadTimeout):
        client.session.get(simulator.url + f"{DATA}/limits/", timeout=0.1)


@pytest.mark.parametrize(("connection", "counted"), [("drop_before", 0), ("drop_after", 1), ("drop_during", 1)])
def test_a_connection_can_be_lost_before_after_and_during_the_answer(
    simulator: SalesforceSimulator, client: Client, connection: Any, counted: int
) -> None:
    simulator.faults.add(Fault(connection=connection, times=1))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        ask(client)
    assert simulator.org.quota.used == counted
    assert simulator.journal.exchanges[-1].status == (200 if connection == "drop_during" else 0)
    assert len(ask(client).json()["records"]) == USERS


def test_an_answer_can_lead_to_another_host(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(Fault(redirect="https://elsewhere.example.com/x", status=301, times=1), Fault(redirect="/y"))
    for status, place in ((301, "https://elsewhere.example.com/x"), (302, "/y")):
        response = client.session.get(simulator.url + f"{DATA}/limits/", allow_redirects=False, timeout=60)
        assert (response.status_code, response.headers["Location"]) == (status, place)


def test_headers_can_be_other_ones_or_absent(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.faults.add(Fault(headers={"sforce-limit-info": None, "date": "yesterday", "Retry-After": "5"}))
    headers = ask(client).headers
    assert "Sforce-Limit-Info" not in headers
    assert (headers["Date"], headers["Retry-After"]) == ("yesterday", "5")


def test_a_request_without_a_token_is_refused_whatever_the_script_says(
    simulator: SalesforceSimulator, client: Client
) -> None:
    simulator.faults.add(Fault(error="UNKNOWN_EXCEPTION"))
    simulator.tokens.revoke_tokens()
    assert error_code(ask(client)) == (401, "INVALID_SESSION_ID")


# -- Scripts in files -------------------------------------------------------------------------------------------


def test_a_script_is_read_from_a_file(tmp_path: Path, simulator: SalesforceSimulator, client: Client) -> None:
    file = tmp_path / "faults.json"
    file.write_text('[{"on": "count", "first": 2, "times": 1, "error": "SERVER_UNAVAILABLE"}, {"headers": {"X": "y"}}]')
    script = FaultScript.from_file(file)
    simulator.faults.add(*script.faults)
    assert statuses(client, 3) == [200, 503, 200]
    assert client.get(f"{DATA}/limits/").headers["X"] == "y"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("{", "not valid"),
        ("{}", "array"),
        ('[{"on": "pages", "status": 500}]', "pages.*`on` of fault 1; give one of any, page, token"),
        ('[{"on": "page", "status": 500}, {"onn": "page"}]', "onn.*fault 2"),
        ('[{"status": 99}]', "status"),
        ('[{"status": 500, "first": 0}]', "first"),
        ('[{"delay": -1}]', "delay"),
        ('[{"error": "X", "text": "y"}]', "exclude"),
        ('[{"on": "page"}]', "does nothing"),
        ("[]\xff", "not valid"),
    ],
)
def test_a_file_that_is_no_script_is_refused_with_the_place(tmp_path: Path, content: str, place: str) -> None:
    file = tmp_path / "faults.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=place) as caught:
        FaultScript.from_file(file)
    assert "faults.json" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.json cannot be read"):
        FaultScript.from_file(tmp_path / "nowhere.json")


def test_the_example_in_the_documentation_is_a_script(tmp_path: Path) -> None:
    from user_sync_pipeline.sandbox.salesforce import faults

    text = faults.__doc__ or ""
    file = tmp_path / "example.json"
    file.write_text(text[text.index("    [") : text.index("]\n") + 1])
    assert len(FaultScript.from_file(file).faults) == 5
    assert msgspec.json.decode(msgspec.json.encode(FaultScript.from_file(file).faults), type=list[Fault])
