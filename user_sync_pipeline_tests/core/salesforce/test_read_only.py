"""Whatever is tried, nothing leaves a session but the few requests that read users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.errors import UserSyncError
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.read_only import READING, SIGNING_IN, ReadOnlyAdapter
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline_tests.core.salesforce.scripted_server import LIMITS, Answer, Client, ScriptedServer

V = "/services/data/v66.0"
SELECT = quote_plus("SELECT Id FROM User")


@pytest.mark.parametrize(
    "path",
    [
        "/services/data/",
        f"{V}/limits/",
        f"{V}/sobjects/User/describe",
        f"{V}/sobjects/User/updated/?start=2026-01-01T00%3A00%3A00Z&end=2026-01-01T02%3A00%3A00Z",
        f"{V}/query/?q={SELECT}",
        f"{V}/query?q={SELECT}",
        f"{V}/query/0r85g0000SimCurAQE-2000",
    ],
)
def test_reading_is_sent(client: Client, path: str) -> None:
    client.get(path)
    assert client.server.asked[0].path == path


FORBIDDEN = [
    *((method, f"{V}/sobjects/User/0055g000001AbCdAAK") for method in ("PATCH", "DELETE", "POST", "PUT", "GET")),
    *((method, f"{V}/query/?q={SELECT}") for method in ("POST", "PATCH", "DELETE", "PUT", "HEAD", "get ", "BREW")),
    ("POST", "/services/oauth2/token"),
    ("POST", "/services/oauth2/revoke"),
    ("POST", f"{V}/sobjects/User"),
    ("POST", f"{V}/composite"),
    ("POST", f"{V}/jobs/query"),
    ("POST", f"{V}/sobjects/User/0055g000001AbCdAAK/password"),
    ("GET", f"{V}/queryAll/?q={SELECT}"),
    ("GET", f"{V}/query/?q={SELECT}&q={SELECT}"),
    ("GET", f"{V}/query/?q={SELECT}&explain={SELECT}"),
    ("GET", f"{V}/query/?q={SELECT}&_HttpMethod=DELETE"),
    ("GET", f"{V}/query/?q={SELECT}%20FOR%20VIEW"),
    ("GET", f"{V}/query/?q={SELECT}+FOR+VIEW"),
    ("GET", f"{V}/query/?Q={SELECT}"),
    ("GET", f"{V}/query/?explain={SELECT}"),
    ("GET", f"{V}/query/"),
    ("GET", f"{V}/query/?q={SELECT};x=1"),
    ("GET", f"{V}/query/?q={SELECT}#FOR+VIEW"),
    ("GET", f"{V}/search/?q=FIND+%7Bann%7D"),
    ("GET", f"{V}/parameterizedSearch/?q=ann"),
    ("GET", f"{V}/query/../sobjects/User/0055g000001AbCdAAK"),
    ("GET", f"{V}/query/%2e%2e/recent"),
    ("GET", f"{V}/query/0r85g0000SimCurAQE-2000?q={SELECT}"),
    ("GET", f"{V}/query/0r85g0000SimCurAQE-2000/../../recent"),
    ("GET", f"{V}//query/?q={SELECT}"),
    ("GET", f"{V}/sobjects/Account/describe"),
    ("GET", f"{V}/sobjects/User/deleted/?start=2026-01-01T00%3A00%3A00Z&end=2026-01-01T02%3A00%3A00Z"),
    ("GET", f"{V}/sobjects/User/updated/?start=x&end=y"),
    ("GET", f"{V}/tooling/executeAnonymous/?anonymousBody=delete"),
    ("GET", "/services/apexrest/x"),
    ("GET", "/"),
]


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_nothing_else_is_sent_however_it_is_made(client: Client, method: str, path: str) -> None:
    url = client.server.url + path
    with client.session() as session:
        bare = requests.Request(method, url).prepare()
        ways: list[Callable[[], object]] = [
            lambda: session.request(method, url),
            lambda: session.send(bare),
            lambda: session.get_adapter(url).send(bare),
        ]
        for send in ways:
            with pytest.raises(NotReadOnlyError, match="not sent"):
                send()
    assert client.server.asked == []


def test_reading_carries_no_body(client: Client) -> None:
    with client.session() as session, pytest.raises(NotReadOnlyError):
        session.get(client.server.url + LIMITS, data="x")
    assert client.server.asked == []


def test_the_token_goes_to_one_host_only(client: Client, authority: CertificateAuthority) -> None:
    host = client.server.url.removeprefix("https://")
    with ScriptedServer(authority) as elsewhere, client.session() as session:
        elsewhere_host = elsewhere.url.removeprefix("https://")
        for url in (
            f"https://{elsewhere_host}{LIMITS}",
            f"https://{host}@{elsewhere_host}{LIMITS}",
            f"https://someone@{host}{LIMITS}",
            f"https://{host.replace('localhost', '127.0.0.1')}{LIMITS}",
        ):
            with pytest.raises(NotReadOnlyError, match="elsewhere"):
                session.get(url)
        with pytest.raises(UserSyncError):
            session.get(f"http://{host}{LIMITS}")
        assert elsewhere.asked == []
    assert client.server.asked == []


def test_a_session_for_signing_in_reads_nothing(client: Client) -> None:
    with client.session(allowed=SIGNING_IN) as session:
        with pytest.raises(NotReadOnlyError):
            session.get(client.server.url + LIMITS)
        session.post(client.server.url + "/services/oauth2/token", data={"grant_type": "client_credentials"})
    assert [request.method for request in client.server.asked] == ["POST"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        "grant_type=password&username=ann&password=x",
        "grant_type=refresh_token&refresh_token=x",
        "grant_type=client_credentials&grant_type=password",
        "grant_type=client_credentials&client_secret=x",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a&token=b",
        b"\xff\xfe",
        iter([b"grant_type=client_credentials"]),
    ],
)
def test_a_sign_in_says_nothing_but_its_flow(client: Client, body: Any) -> None:
    with client.session(allowed=SIGNING_IN) as session, pytest.raises(NotReadOnlyError):
        session.post(client.server.url + "/services/oauth2/token", data=body)
    assert client.server.asked == []


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "Cookie", "Sforce-Auto-Assign"])
def test_no_header_is_sent_that_is_not_needed(client: Client, header: str) -> None:
    with client.session() as session, pytest.raises(NotReadOnlyError):
        session.get(client.server.url + LIMITS, headers={header: "DELETE"})
    assert client.server.asked == []


def test_cookies_are_not_kept(client: Client) -> None:
    client.server.script = [Answer(headers={"Set-Cookie": "BrowserId=x; Path=/; Secure"})]
    with client.session() as session:
        session.get(client.server.url + LIMITS)
        session.get(client.server.url + LIMITS)
    assert [request.headers.get("Cookie") for request in client.server.asked] == [None, None]


@pytest.mark.slow
@given(method=st.sampled_from(["GET", "POST", "PATCH", "DELETE"]), path=st.text(max_size=60))
def test_no_made_up_address_passes(method: str, path: str) -> None:
    adapter = ReadOnlyAdapter("https://example.my.salesforce.com", READING, ApiUsage())
    request = requests.Request(method, f"https://example.my.salesforce.com{V}/query/{path}").prepare()
    with pytest.raises(NotReadOnlyError):
        adapter.send(request)
