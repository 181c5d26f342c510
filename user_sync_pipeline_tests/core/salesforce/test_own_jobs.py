"""Bulk query jobs are off; for a client that asks for them, its own jobs and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.own_jobs import OwnJobs
from user_sync_pipeline.core.salesforce.read_only import READING
from user_sync_pipeline.core.salesforce.transport import CSV
from user_sync_pipeline_tests.core.salesforce.scripted_server import Answer, Client, answered, refused

JOBS = "/services/data/v66.0/jobs/query"
OURS, THEIRS = "7505g0000SimJobAQE", "7505g0000SimOwnAQE"
QUERY = {"operation": "query", "query": "SELECT Id FROM User"}
ABORT = {"state": "Aborted"}

Send = Callable[..., requests.Response]


@pytest.fixture
def jobs() -> OwnJobs:
    return OwnJobs()


@pytest.fixture
def send(client: Client, jobs: OwnJobs) -> Send:
    def send(method: str, path: str, **options: Any) -> requests.Response:
        with client.session(allowed=READING + jobs.allowed) as session:
            return session.request(method, client.server.url + path, **options)

    return send


@pytest.fixture
def created(client: Client, send: Send) -> Client:
    """A client that has created one job."""
    client.server.script = [answered({"id": OURS, "object": "User", "state": "UploadComplete"})]
    send("POST", JOBS, json=QUERY)
    client.server.asked.clear()
    return client


def test_a_job_is_created_watched_read_aborted_and_deleted(created: Client, send: Send, jobs: OwnJobs) -> None:
    assert jobs.ids == {OURS}
    created.server.script = [
        answered({"state": "InProgress"}),
        Answer(body=b'"Id"\n"0055g000001AbCdAAK"\n', headers={"Content-Type": "text/csv"}),
        Answer(body=b'"Id"\n', headers={"Content-Type": "text/csv;charset=UTF-8"}),
        answered({"resultPages": [], "done": True}),
        answered({"state": "Aborted"}),
        Answer(204, b""),
    ]
    csv = {"Accept": CSV}
    assert send("GET", f"{JOBS}/{OURS}").json() == {"state": "InProgress"}
    assert send("GET", f"{JOBS}/{OURS}/results?maxRecords=50000", headers=csv).content.startswith(b'"Id"')
    assert send("GET", f"{JOBS}/{OURS}/results?locator=MTAwMDA%3D&maxRecords=50000", headers=csv).ok
    assert send("GET", f"{JOBS}/{OURS}/resultPages").json()["done"] is True
    assert send("PATCH", f"{JOBS}/{OURS}", json=ABORT).ok
    assert send("DELETE", f"{JOBS}/{OURS}").status_code == 204
    assert created.pauses == []
    assert [request.method for request in created.server.asked] == ["GET"] * 4 + ["PATCH", "DELETE"]


def test_sessions_of_one_client_share_its_jobs_and_those_of_another_do_not(created: Client, jobs: OwnJobs) -> None:
    with created.session(allowed=jobs.allowed) as session:
        assert session.get(f"{created.server.url}{JOBS}/{OURS}").ok
    with created.session(allowed=OwnJobs().allowed) as session, pytest.raises(NotReadOnlyError):
        session.get(f"{created.server.url}{JOBS}/{OURS}")


@pytest.mark.parametrize(
    "body",
    [
        QUERY | {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"},
        QUERY | {"query": "SELECT Id FROM User WHERE Name = 'for view'"},
    ],
)
def test_a_plain_query_makes_a_job(client: Client, send: Send, body: dict[str, str]) -> None:
    send("POST", JOBS, json=body)
    assert len(client.server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"\xff",
        json.dumps(QUERY | {"operation": "queryAll"}).encode(),
        json.dumps(QUERY | {"operation": "insert"}).encode(),
        json.dumps(QUERY | {"operation": "hardDelete", "object": "User"}).encode(),
        json.dumps(QUERY | {"object": "Account"}).encode(),
        json.dumps(QUERY | {"contentType": "JSON"}).encode(),
        json.dumps(QUERY | {"contentType": ["CSV"]}).encode(),
        json.dumps({"operation": "query"}).encode(),
        json.dumps(QUERY | {"query": ["SELECT Id FROM User"]}).encode(),
        json.dumps(QUERY | {"query": "SELECT Id FROM User FOR VIEW"}).encode(),
        json.dumps(QUERY | {"query": "SELECT Id FROM Account"}).encode(),
        b'{"operation": "query", "query": "SELECT Id FROM User FOR VIEW", "query": "SELECT Id FROM User"}',
        json.dumps(QUERY).encode("utf-16"),
        json.dumps(QUERY).encode() + b"{}",
    ],
)
def test_nothing_but_a_plain_query_makes_a_job(client: Client, send: Send, body: bytes) -> None:
    with pytest.raises(NotReadOnlyError):
        send("POST", JOBS, data=body)
    assert client.server.asked == []


@pytest.mark.parametrize("job", [THEIRS, OURS[:15], OURS.lower(), "7505g0000SimJobAQEx", "750", "..", "%2e%2e"])
def test_jobs_of_others_are_left_alone(created: Client, send: Send, job: str) -> None:
    for method, path, body in (
        ("GET", f"{JOBS}/{job}", None),
        ("GET", f"{JOBS}/{job}/results", None),
        ("GET", f"{JOBS}/{job}/resultPages", None),
        ("PATCH", f"{JOBS}/{job}", ABORT),
        ("DELETE", f"{JOBS}/{job}", None),
    ):
        with pytest.raises(NotReadOnlyError):
            send(method, path, json=body)
    assert created.server.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", JOBS, None),
        ("PUT", f"{JOBS}/{OURS}", ABORT),
        ("POST", f"{JOBS}/{OURS}", ABORT),
        ("PATCH", f"{JOBS}/{OURS}", None),
        ("PATCH", f"{JOBS}/{OURS}", {"state": "UploadComplete"}),
        ("PATCH", f"{JOBS}/{OURS}", ABORT | {"concurrencyMode": "Serial"}),
        ("PATCH", f"{JOBS}/{OURS}?_HttpMethod=DELETE", ABORT),
        ("DELETE", f"{JOBS}/{OURS}", ABORT),
        ("DELETE", f"{JOBS}/{OURS}/results", None),
        ("DELETE", f"{JOBS}/{OURS}?force=true", None),
        ("GET", f"{JOBS}/{OURS}/results?maxRecords=-1", None),
        ("GET", f"{JOBS}/{OURS}/results?maxRecords=1&maxRecords=2", None),
        ("GET", f"{JOBS}/{OURS}/results?q=SELECT", None),
        ("GET", f"{JOBS}/{OURS}/results?locator=%2e%2e%2f%0a", None),
        ("GET", f"{JOBS}/{OURS}/failedResults", None),
        ("POST", "/services/data/v66.0/jobs/ingest", QUERY),
        ("POST", f"{JOBS}?_HttpMethod=DELETE", QUERY),
        ("POST", "/services/async/66.0/job", QUERY),
    ],
)
def test_nothing_else_is_done_with_our_own_job(
    created: Client, send: Send, method: str, path: str, body: dict[str, str] | None
) -> None:
    with pytest.raises(NotReadOnlyError):
        send(method, path, json=body)
    assert created.server.asked == []


def test_a_refused_job_is_nobodys(client: Client, send: Send, jobs: OwnJobs) -> None:
    client.server.script = [refused(400, "API_ERROR"), Answer(body=b'{"state": "x"}'), Answer(body=b'{"id": 7}')]
    with pytest.raises(Exception, match="API_ERROR"):
        send("POST", JOBS, json=QUERY)
    send("POST", JOBS, json=QUERY)
    send("POST", JOBS, json=QUERY)
    assert jobs.ids == frozenset()


def test_a_page_in_place_of_records_is_tried_again(created: Client, send: Send) -> None:
    page = Answer(body=b"<html>One moment</html>", headers={"Content-Type": "text/html"})
    created.server.script = [page, Answer(body=b'"Id"\n', headers={"Content-Type": "text/csv"})]
    assert send("GET", f"{JOBS}/{OURS}/results", headers={"Accept": CSV}).content == b'"Id"\n'
    assert len(created.pauses) == 1
    created.server.script = [page] * 9
    with pytest.raises(UnreachableError):
        send("GET", f"{JOBS}/{OURS}/results", headers={"Accept": CSV})
