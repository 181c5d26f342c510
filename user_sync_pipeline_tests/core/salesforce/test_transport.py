"""Each answer of Salesforce, and each way of not answering, leads to the decision of the table."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, server_time
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline_tests.core.salesforce.scripted_server import LIMITS, Answer, Client, ScriptedServer, refused

CONCURRENT = refused(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.")
DAILY = refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
HTML = b"<html><body>One moment, please</body></html>"


# The table ------------------------------------------------------------------------------------------------------

PASSING = {
    "status 406": Answer(406, b""),
    "status 420": Answer(420, HTML),
    "status 429": Answer(429),
    "status 500": refused(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred."),
    "status 502": Answer(502, HTML),
    "status 503": refused(503, "SERVER_UNAVAILABLE"),
    "status 504": Answer(504, b""),
    "a reset before the answer": Answer(broken="reset"),
    "a body that was cut": Answer(body=b'{"totalSize": 1, "done": true}', broken="cut"),
    "a compressed body that was cut": Answer(
        body=gzip.compress(b'{"a": "' + bytes(range(97, 120)) * 9 + b'"}')[:-20], headers={"Content-Encoding": "gzip"}
    ),
    "a body that is no gzip": Answer(body=b"{}", headers={"Content-Encoding": "gzip"}),
    "HTML with status 200": Answer(body=HTML, headers={"Content-Type": "text/html"}),
    "an empty body with status 200": Answer(body=b""),
    "half a JSON text with status 200": Answer(body=b'{"records": [{"Id": "005'),
    "half a page with status 200": Answer(body=b'{"totalSize":2,"done":true,"records":[{"Id":"005"}'),
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING)
def test_retry_row_1_what_passes_by_itself_is_tried_again(client: Client, answer: Answer) -> None:
    client.server.script = [answer, answer, Answer(body=b'{"fine": true}')]
    assert client.get().json() == {"fine": True}
    assert client.pauses == [0.25, 0.5]


@pytest.mark.slow
def test_retry_row_1_silence_is_tried_again(client: Client) -> None:
    client.server.script = [Answer(broken="silence"), Answer(body=b'{"fine": true}')]
    assert client.get(timeouts=(5.0, 0.2)).json() == {"fine": True}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING)
def test_retry_row_1_the_number_of_tries_is_bounded(client: Client, answer: Answer) -> None:
    client.server.script = [answer] * 10
    with pytest.raises(UnreachableError, match="run again later"):
        client.get(retry={"tries": 3})
    assert len(client.server.asked) == 3


def test_retry_row_1_no_try_begins_after_the_deadline(client: Client) -> None:
    client.server.script = [Answer(503)] * 10
    with pytest.raises(UnreachableError, match="HTTP status 503"):
        client.get(retry={"tries": 10, "deadline": 3.0})
    assert client.pauses == [0.25, 0.5, 1.0, 2.0]


FINAL = {
    "MALFORMED_QUERY": refused(400, "MALFORMED_QUERY"),
    "INVALID_TYPE": refused(400, "INVALID_TYPE"),
    "status 301": Answer(301, b"", {"Location": "https://elsewhere.example/"}),
    "status 304": Answer(304, b""),
    "status 403": refused(403, "INSUFFICIENT_ACCESS"),
    "status 403, HTML": Answer(403, HTML),
    "status 404": refused(404, "NOT_FOUND"),
    "status 405": refused(405, "METHOD_NOT_ALLOWED"),
    "status 410": refused(410, "GONE"),
    "status 414": Answer(414, HTML),
    "status 431": Answer(431, b""),
}


@pytest.mark.parametrize("answer", FINAL.values(), ids=FINAL)
def test_retry_row_8_what_must_be_changed_first_is_not_tried_again(client: Client, answer: Answer) -> None:
    client.server.script = [answer]
    with pytest.raises(ConfigurationError):
        client.get()
    assert len(client.server.asked) == 1


FOR_THE_CALLER = {
    "QUERY_TIMEOUT": Decision.HALVE,
    "EXCEEDED_ID_LIMIT": Decision.HALVE,
    "QUERY_TOO_COMPLICATED": Decision.HALVE,
    "OPERATION_TOO_LARGE": Decision.HALVE,
    "INVALID_QUERY_LOCATOR": Decision.KEYSET,
    "INVALID_FIELD": Decision.REDESCRIBE,
}


@pytest.mark.parametrize(("code", "decision"), FOR_THE_CALLER.items(), ids=FOR_THE_CALLER)
def test_what_calls_for_another_request_is_left_to_the_caller(client: Client, code: str, decision: Decision) -> None:
    client.server.script = [refused(400, code)]
    with pytest.raises(RefusedError) as caught:
        client.get()
    assert (caught.value.code, caught.value.decision) == (code, decision)
    assert len(client.server.asked) == 1


def test_retry_row_3_the_daily_limit_pauses_at_once(client: Client) -> None:
    client.server.script = [DAILY]
    with pytest.raises(PausedError, match="24 hours"):
        client.get()
    assert len(client.server.asked) == 1


def test_retry_row_4_the_concurrent_limit_and_a_locked_row_are_waited_for(client: Client) -> None:
    client.server.script = [CONCURRENT, CONCURRENT, refused(400, "UNABLE_TO_LOCK_ROW"), Answer()]
    client.get()
    assert client.pauses == [2.5, 5.0, 10.0]


def test_a_concurrent_limit_without_end_pauses_the_run(client: Client) -> None:
    client.server.script = [CONCURRENT] * 10
    with pytest.raises(PausedError, match="concurrent"):
        client.get()


@given(attempt=st.integers(1, 40), chance=st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_the_longest(attempt: int, chance: float) -> None:
    policy = RetryPolicy(random=lambda: chance)
    for decision in (Decision.RETRY, Decision.BACK_OFF):
        assert 0 < policy.seconds(decision, attempt) <= policy.longest_pause


UNAUTHORIZED = {
    "INVALID_SESSION_ID": refused(401, "INVALID_SESSION_ID", "Session expired or invalid"),
    "INVALID_AUTH_HEADER": refused(401, "INVALID_AUTH_HEADER", "INVALID_JWT_FORMAT"),
    "HTML": Answer(401, HTML),
    "nothing": Answer(401, b""),
}


@pytest.mark.parametrize("answer", UNAUTHORIZED.values(), ids=UNAUTHORIZED)
def test_retry_row_2_any_401_brings_a_new_token_once(client: Client, answer: Answer) -> None:
    client.server.script = [answer, Answer(body=b'{"fine": true}')]
    assert client.get().json() == {"fine": True}
    assert client.sent() == ["token-1", "token-2"]
    assert client.pauses == []


@pytest.mark.parametrize("answer", UNAUTHORIZED.values(), ids=UNAUTHORIZED)
def test_retry_row_2_a_second_401_is_final(client: Client, answer: Answer) -> None:
    client.server.script = [answer, answer]
    with pytest.raises(ConfigurationError, match="not even a new one"):
        client.get()
    assert client.sent() == ["token-1", "token-2"]


def test_a_token_is_taken_for_each_try(client: Client) -> None:
    client.server.script = [Answer(503), refused(401, "INVALID_SESSION_ID"), Answer(503), Answer()]
    client.get()
    assert client.sent() == ["token-1", "token-1", "token-2", "token-2"]


def test_broken_characters_in_a_page_are_no_reason_to_try_again(client: Client) -> None:
    client.server.script = [Answer(body=b'{"Title": "\\ud800 and \\u0000 and \xff"}')]
    client.get()
    assert client.pauses == []


# What is sent ---------------------------------------------------------------------------------------------------


def test_headers_are_right_on_every_try(client: Client) -> None:
    client.server.script = [Answer(503), refused(401, "INVALID_SESSION_ID"), Answer()]
    with client.session() as session:
        session.get(client.server.url + LIMITS, headers={"X-PrettyPrint": "1", "Authorization": "Bearer other"})
    assert len(client.server.asked) == 3
    for request in client.server.asked:
        assert request.headers["Sforce-Query-Options"] == "batchSize=200"
        assert request.headers["Accept-Encoding"] == "gzip"
        assert "X-PrettyPrint" not in request.headers
        assert request.headers["Authorization"].startswith("Bearer token-")


def test_nothing_is_taken_from_netrc_or_the_environment(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(netrc))
    client.get()
    assert client.sent() == ["token-1"]


def test_redirects_are_not_followed_whoever_asks(client: Client, authority: CertificateAuthority) -> None:
    with ScriptedServer(authority) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            client.server.script = [Answer(status, b"", {"Location": f"{elsewhere.url}{LIMITS}"})]
            with client.session() as session, pytest.raises(ConfigurationError, match="another address"):
                session.get(client.server.url + LIMITS, allow_redirects=True)
            client.server.script = [Answer(status, b"", {"Location": f"{elsewhere.url}{LIMITS}"})]
            with client.session() as session:
                answer = session.send(requests.Request("GET", client.server.url + LIMITS).prepare())
                assert (answer.status_code, answer.history) == (status, [])
        assert elsewhere.asked == []


def test_the_proxy_of_the_settings_is_used(client: Client) -> None:
    with pytest.raises(UnreachableError, match="SALESFORCE_PROXY") as caught:
        client.get(settings={"proxy": "http://someone:pa55word@127.0.0.1:9"}, retry={"tries": 2})
    assert "pa55word" not in str(caught.value)
    assert client.server.asked == []


def test_an_untrusted_certificate_is_a_matter_of_settings(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="SALESFORCE_CA_BUNDLE"):
        client.get(settings={"ca_bundle": None})
    assert client.pauses == []


def test_a_file_that_holds_no_certificate_is_named(client: Client, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for file in (junk, tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match="SALESFORCE_CA_BUNDLE"):
            client.get(settings={"ca_bundle": str(file)})


def test_a_server_that_is_not_there_is_unreachable(client: Client, authority: CertificateAuthority) -> None:
    with ScriptedServer(authority) as gone:
        client.server = gone
    with pytest.raises(UnreachableError, match="SALESFORCE_INSTANCE_URL"):
        client.get(retry={"tries": 2})


@pytest.mark.slow
def test_closing_ends_a_pause(client: Client) -> None:
    client.server.script = [Answer(503)] * 5
    session = client.session(retry={"sleep": None, "pause": 60.0})
    threading.Timer(0.2, session.close).start()
    with pytest.raises(UnreachableError, match="closed"):
        session.get(client.server.url + LIMITS)


# Quota and clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "used", "limit"),
    [
        ("api-usage=18/5000", 18, 5000),
        ("api-usage=25/5000; per-app-api-usage=17/250(appName=sample-connected-app)", 25, 5000),
        ("api-usage=10018/100000; api-bursts=1/750", 10018, 100000),
        ("api-bursts=1/750; per-app-api-usage=17/250(appName=api-usage); api-usage=3/4", 3, 4),
    ],
)
def test_the_quota_is_read_in_each_form(client: Client, header: str, used: int, limit: int) -> None:
    client.server.script = [Answer(headers={"Sforce-Limit-Info": header})]
    client.get()
    assert (client.usage.used, client.usage.limit) == (used, limit)
    assert client.usage.share == used / limit


@pytest.mark.parametrize("header", ["", "per-app-api-usage=17/250(appName=x)", "api-bursts=1/750", "api-usage=?"])
def test_a_header_without_the_quota_changes_nothing(client: Client, header: str) -> None:
    limit_info = {"Sforce-Limit-Info": "api-usage=18/5000"}
    client.server.script = [Answer(headers=limit_info), Answer(headers={"Sforce-Limit-Info": header}), Answer()]
    for _ in range(3):
        client.get()
    assert (client.usage.used, client.usage.limit) == (18, 5000)


def test_the_quota_is_read_on_error_answers_too(client: Client) -> None:
    client.server.script = [Answer(404, b"", {"Sforce-Limit-Info": "api-usage=18/5000"})]
    with pytest.raises(ConfigurationError):
        client.get()
    assert client.usage.used == 18


def test_every_try_counts_and_the_list_of_versions_does_not(client: Client) -> None:
    assert client.usage.share is None
    client.server.script = [Answer(503), Answer(), Answer()]
    client.get()
    client.get("/services/data/")
    assert client.usage.calls == 2


def test_the_clock_is_that_of_the_server(client: Client) -> None:
    response = client.get()
    response.headers["Date"] = "Thu, 29 Feb 2024 23:59:59 GMT"
    assert server_time(response) == datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("change", [lambda headers: headers.pop("Date"), lambda headers: headers.update(Date="soon")])
def test_an_answer_without_date_is_explained(client: Client, change: Callable[[Any], None]) -> None:
    response = client.get()
    change(response.headers)
    with pytest.raises(ConfigurationError, match="Date"):
        server_time(response)
