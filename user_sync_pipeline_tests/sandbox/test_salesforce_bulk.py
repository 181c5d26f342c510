"""Bulk 2.0 query jobs of the Salesforce simulator, over TLS."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
import requests

from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.bulk import Outcome
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, USERS, VERSION, Client, Json, error_code

JOBS = f"{DATA}/jobs/query"
ALL = "SELECT Id, Username FROM User"


class BulkClient:
    """Sends what a Bulk client sends."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def send(self, method: str, path: str, content: object = None, **parameters: str) -> requests.Response:
        url = self.client.simulator.url + path
        return self.client.session.request(method, url, json=content, params=parameters, timeout=60)

    def create(self, soql: str = ALL, **options: str) -> requests.Response:
        return self.send("POST", JOBS, {"operation": "query", "query": soql} | options)

    def start(self, soql: str = ALL, **options: str) -> str:
        response = self.create(soql, **options)
        assert response.status_code == 200, response.text
        return f"{JOBS}/{response.json()['id']}"

    def look(self, job: str) -> Json:
        return self.send("GET", job).json()

    def results(self, job: str, **parameters: str) -> requests.Response:
        return self.send("GET", f"{job}/results", **parameters)

    def rows(self, soql: str) -> list[dict[str, str]]:
        return parsed(self.results(self.start(soql)))


@pytest.fixture
def bulk(client: Client) -> BulkClient:
    return BulkClient(client)


def parsed(response: requests.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline=""), strict=True))


# -- Jobs -------------------------------------------------------------------------------------------------------


def test_a_job_runs_from_creation_to_its_results_and_away(
    simulator: SalesforceSimulator, client: Client, bulk: BulkClient
) -> None:
    created = bulk.create().json()
    assert created == {
        "id": created["id"], "operation": "query", "object": "User", "createdById": simulator.org.api_user_id,
        "createdDate": "2026-06-02T10:30:00.000+0000", "systemModstamp": "2026-06-02T10:30:00.000+0000",
        "state": "UploadComplete", "concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": 66.0,
        "lineEnding": "LF", "columnDelimiter": "COMMA",
    }  # fmt: skip
    assert (created["id"][:3], len(created["id"])) == ("750", 18)
    job = f"{JOBS}/{created['id']}"
    details = bulk.look(job)
    assert details == created | {
        "state": "JobComplete", "jobType": "V2Query", "numberRecordsProcessed": USERS, "retries": 0,
        "totalProcessingTime": 0, "isPkChunkingSupported": True,
    }  # fmt: skip
    response = bulk.results(job)
    assert response.headers["Content-Type"] == "text/csv"
    assert response.headers["Sforce-NumberOfRecords"] == str(USERS)
    assert response.headers["Sforce-Locator"] == "null"
    expected = {(user["Id"], user["Username"]) for user in client.query(ALL)["records"]}
    assert {(row["Id"], row["Username"]) for row in parsed(response)} == expected
    deleted = bulk.send("DELETE", job)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert error_code(bulk.send("GET", job)) == (404, "NOT_FOUND")
    assert simulator.journal.violations == []


def test_a_job_gets_on_by_the_clock_of_the_organisation(simulator: SalesforceSimulator, bulk: BulkClient) -> None:
    settings = simulator.org.jobs.settings
    settings.queue_time, settings.work_time = timedelta(seconds=10), timedelta(minutes=1)
    job = bulk.start()
    seen = []
    for seconds in (0, 10, 59, 1):
        simulator.clock.advance(timedelta(seconds=seconds))
        details = bulk.look(job)
        seen.append((details["state"], details["numberRecordsProcessed"], details["systemModstamp"][11:19]))
    assert seen == [
        ("UploadComplete", 0, "10:30:00"),
        ("InProgress", 0, "10:30:10"),
        ("InProgress", 0, "10:30:10"),
        ("JobComplete", USERS, "10:31:10"),
    ]
    assert bulk.look(job)["totalProcessingTime"] == 60_000


def test_a_job_has_no_results_before_it_is_complete_and_is_deleted_only_after_its_end(
    simulator: SalesforceSimulator, bulk: BulkClient
) -> None:
    simulator.org.jobs.settings.outcome = Outcome.STAY_IN_PROGRESS
    job = bulk.start()
    simulator.clock.advance(timedelta(hours=1))
    assert bulk.look(job)["state"] == "InProgress"
    assert bulk.results(job).status_code == 400
    refused = bulk.send("DELETE", job)
    assert error_code(refused) == (400, "API_ERROR")
    assert "the job is not terminated" in refused.json()[0]["message"]
    aborted = bulk.send("PATCH", job, {"state": "Aborted"})
    assert (aborted.status_code, aborted.json()["state"]) == (200, "Aborted")
    assert bulk.send("PATCH", job, {"state": "Aborted"}).status_code == 400
    assert bulk.results(job).status_code == 400
    assert bulk.send("DELETE", job).status_code == 204


@pytest.mark.parametrize("failure", ["InternalServerError: too bad", None])
def test_a_failed_job_may_or_may_not_say_why(
    simulator: SalesforceSimulator, bulk: BulkClient, failure: str | None
) -> None:
    simulator.org.jobs.settings.outcome, simulator.org.jobs.settings.failure = Outcome.FAIL, failure
    details = bulk.look(bulk.start())
    assert (details["state"], details["numberRecordsProcessed"]) == ("Failed", 0)
    assert details.get("errorMessage", None) == failure
    assert ("errorMessage" in details) == (failure is not None)


def test_an_administrator_can_abort_a_job(simulator: SalesforceSimulator, bulk: BulkClient) -> None:
    simulator.org.jobs.settings.outcome = Outcome.ABORT
    job = bulk.start()
    assert bulk.look(job)["state"] == "Aborted"
    assert bulk.send("PATCH", job, {"state": "Aborted"}).status_code == 400


def test_jobs_are_listed_by_kind_and_gone_after_seven_days(simulator: SalesforceSimulator, bulk: BulkClient) -> None:
    jobs = {bulk.start()[-18:], bulk.start(f"{ALL} ORDER BY Id")[-18:]}
    listed = bulk.send("GET", JOBS, jobType="V2Query").json()
    assert {job["id"] for job in listed["records"]} == jobs
    assert (listed["done"], listed["nextRecordsUrl"]) == (True, None)
    assert len(bulk.send("GET", JOBS, isPkChunkingEnabled="true").json()["records"]) == 1
    assert bulk.send("GET", JOBS, jobType="Classic").json()["records"] == []
    simulator.clock.advance(timedelta(days=7, seconds=1))
    bulk.client.carry_token()
    assert bulk.send("GET", JOBS).json()["records"] == []
    assert bulk.send("GET", f"{JOBS}/{jobs.pop()}").status_code == 404


# -- Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("soql", "code", "said"),
    [
        ("SELECT Id, Address FROM User", "API_ERROR", "Selecting compound data not supported in Bulk Query"),
        ("SELECT FIELDS(ALL) FROM User", "API_ERROR", "Selecting compound data not supported in Bulk Query"),
        ("SELECT COUNT() FROM User", "API_ERROR", "not supported in Bulk Query"),
        ("SELECT Id FROM User LIMIT 5 OFFSET 5", "API_ERROR", "Implementation restriction"),
        ("SELECT COUNT(Id) FROM User GROUP BY UserType", "MALFORMED_QUERY", "unexpected token"),
        ("SELECT Id FROM Organization", "INVALIDENTITY", "Entity 'Organization' is not supported by the Bulk API."),
        ("SELECT Id, Shoe_Size__c FROM User", "INVALID_FIELD", "No such column"),
        ("SELECT", "MALFORMED_QUERY", "unexpected token"),
    ],
)
def test_what_bulk_cannot_do_is_refused_at_creation(bulk: BulkClient, soql: str, code: str, said: str) -> None:
    response = bulk.create(soql)
    assert error_code(response) == (400, code)
    assert said in response.json()[0]["message"]


@pytest.mark.parametrize(
    "content",
    [{}, {"operation": "insert", "query": ALL}, {"operation": "query", "query": ALL, "columnDelimiter": "SPACE"}],
)
def test_a_job_that_makes_no_sense_is_refused(bulk: BulkClient, content: dict[str, str]) -> None:
    assert bulk.send("POST", JOBS, content).status_code == 400


def test_jobs_are_refused_over_the_daily_limits_and_without_permission(
    simulator: SalesforceSimulator, client: Client, bulk: BulkClient
) -> None:
    settings = simulator.org.jobs.settings
    settings.daily_jobs = 1
    bulk.start()
    assert client.get(f"{DATA}/limits").json()["DailyBulkV2QueryJobs"] == {"Max": 1, "Remaining": 0}
    response = bulk.create()
    assert error_code(response) == (400, "LIMIT_EXCEEDED")
    assert response.json()[0]["message"] == "Max bulk v2 query jobs (1) per 24 hrs has been reached (1)"
    simulator.clock.advance(timedelta(hours=24))
    client.carry_token()
    bulk.start()
    settings.daily_jobs, settings.storage_left = 10, False
    assert error_code(bulk.create()) == (400, "LIMIT_EXCEEDED")
    settings.storage_left, simulator.org.permissions.bulk = True, False
    assert error_code(bulk.create())[0] == 403


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", JOBS), ("DELETE", JOBS), ("POST", f"{JOBS}/750"), ("POST", f"{DATA}/jobs/ingest")]
)
def test_any_other_method_or_path_is_a_violation(
    simulator: SalesforceSimulator, bulk: BulkClient, violations: list[str], method: str, path: str
) -> None:
    assert bulk.send(method, path, {}).status_code in (404, 405)
    assert len(simulator.journal.violations) == 1
    assert violations.pop().endswith(f"{method} {path}")


# -- Results ----------------------------------------------------------------------------------------------------


def test_results_are_quoted_and_typed_as_csv_can(simulator: SalesforceSimulator, bulk: BulkClient) -> None:
    user = simulator.org.users.ordered[0].id
    simulator.org.update_user(
        user, Street='1 rue "A"\r\nBât. B, 🏠', Title="null", City="", State=None, Phone="a\0b", Grade__c=2.5
    )
    soql = (
        "SELECT Id, Street, Title, City, State, Phone, Grade__c, IsActive, SystemModstamp, Start_Date__c, "
        f"Profile.Name FROM User WHERE Id = '{user}'"
    )
    content = bulk.results(bulk.start(soql)).content
    assert content.startswith(b'"Id","Street","Title","City","State","Phone","Grade__c","IsActive","SystemModstamp"')
    assert b'"1 rue ""A""\r\nB\xc3\xa2t. B, \xf0\x9f\x8f\xa0","null","","","a\x00b","2.5","' in content
    [row] = bulk.rows(soql)
    assert row["IsActive"] in ("true", "false")
    assert row["SystemModstamp"] == "2026-06-02T10:30:00.000Z"
    assert row["Profile.Name"]
    assert set(bulk.rows("SELECT Latitude FROM User")[0]) == {"Latitude"}


def test_both_ways_of_reading_show_the_same_values(
    simulator: SalesforceSimulator, client: Client, bulk: BulkClient
) -> None:
    simulator.org.update_user(simulator.org.users.ordered[7].id, FirstName="Zoë", PostalCode="0042")
    simulator.org.retype_field("Grade__c", "string")
    names = "Id, Name, Email, IsActive, PostalCode, Latitude, Grade__c, LastLoginDate, Start_Date__c, ManagerId"
    by_rest = {record["Id"]: record for record in client.query(f"SELECT {names} FROM User")["records"]}
    rows = bulk.rows(f"SELECT {names} FROM User")
    assert len(rows) == len(by_rest)
    for row in rows:
        expected = {name: value for name, value in by_rest[row["Id"]].items() if name != "attributes"}
        expected = {name: "" if value is None else value for name, value in expected.items()}
        expected |= {
            "IsActive": str(expected["IsActive"]).lower(),
            "Latitude": str(expected["Latitude"]),
            "LastLoginDate": expected["LastLoginDate"].replace("+0000", "Z"),
        }
        assert row == expected


def test_the_columns_can_be_divided_and_the_lines_ended_in_other_ways(bulk: BulkClient) -> None:
    job = bulk.start(f"{ALL} LIMIT 2", columnDelimiter="PIPE", lineEnding="CRLF")
    lines = bulk.results(job).content.split(b"\r\n")
    assert lines[0] == b'"Id"|"Username"'
    assert len(lines) == 4


def test_an_empty_result_is_a_header_line(bulk: BulkClient) -> None:
    job = bulk.start(f"{ALL} WHERE Username = 'nobody'")
    response = bulk.results(job)
    assert (response.content, response.headers["Sforce-NumberOfRecords"]) == (b'"Id","Username"\n', "0")
    assert response.headers["Sforce-Locator"] == "null"
    assert len(bulk.send("GET", f"{job}/resultPages").json()["resultPages"]) == 1


def test_results_come_in_pages_whose_locators_can_be_used_again(
    simulator: SalesforceSimulator, bulk: BulkClient
) -> None:
    job = bulk.start()
    pages, locator = [], ""
    while locator != "null":
        parameters = {"maxRecords": "200"} | ({"locator": locator} if locator else {})
        response = bulk.results(job, **parameters)
        simulator.org.update_user(simulator.org.users.ordered[0].id, Username="changed@example.com")
        assert bulk.results(job, **parameters).content == response.content
        locator = response.headers["Sforce-Locator"]
        pages.append(parsed(response))
    assert [len(page) for page in pages] == [200, 200, 50]
    assert len({row["Id"] for page in pages for row in page}) == USERS
    for wrong in ({"locator": "nonsense"}, {"locator": "OTk5OTk5"}, {"maxRecords": "0"}, {"maxRecords": "many"}):
        assert bulk.results(job, **wrong).status_code == 400


def test_without_order_rows_come_in_no_order_and_the_job_may_be_chunked(bulk: BulkClient) -> None:
    ids = [row["Id"] for row in bulk.rows(ALL)]
    assert ids != sorted(ids)
    in_order = [row["Id"] for row in bulk.rows(f"{ALL} ORDER BY Id")]
    assert in_order == sorted(ids)
    assert not bulk.look(bulk.start(f"{ALL} LIMIT 1"))["isPkChunkingSupported"]


@pytest.mark.parametrize("names", [("resultUrl", "nextRecordsUrl"), ("resultLink", "nextRecordUrl")])
def test_pages_for_parallel_reading_come_five_at_a_time(
    simulator: SalesforceSimulator, bulk: BulkClient, names: tuple[str, str]
) -> None:
    settings = simulator.org.jobs.settings
    settings.page_rows, settings.link_names = 60, names
    job = bulk.start()
    answer = bulk.send("GET", f"{job}/resultPages").json()
    urls = [page[names[0]] for page in answer["resultPages"]]
    assert (len(urls), answer["done"]) == (5, False)
    rest = bulk.send("GET", answer[names[1]]).json()
    urls += [page[names[0]] for page in rest["resultPages"]]
    assert (len(urls), rest["done"], rest[names[1]]) == (8, True, None)
    rows = [row["Id"] for url in urls for row in parsed(bulk.send("GET", url))]
    assert len(set(rows)) == len(rows) == USERS
    older = job.replace(VERSION, "57.0")
    assert bulk.send("GET", f"{older}/resultPages").status_code == 404


def test_results_belong_to_the_version_of_the_job(bulk: BulkClient) -> None:
    job = bulk.start().replace(VERSION, "65.0")
    assert bulk.results(job).status_code == 409
    assert bulk.look(job)["apiVersion"] == 66.0


def test_the_locator_header_can_be_missing_and_the_counts_wrong(
    simulator: SalesforceSimulator, bulk: BulkClient
) -> None:
    settings = simulator.org.jobs.settings
    settings.locator_header, settings.page_count_error, settings.job_count_error = False, -1, 2
    job = bulk.start()
    response = bulk.results(job, maxRecords="200")
    assert "Sforce-Locator" not in response.headers
    assert response.headers["Sforce-NumberOfRecords"] == "199"
    assert bulk.look(job)["numberRecordsProcessed"] == USERS + 2


def test_results_are_compressed_for_those_who_accept_it(bulk: BulkClient) -> None:
    assert bulk.results(bulk.start()).headers["Content-Encoding"] == "gzip"


def test_faults_befall_jobs_and_results_too(simulator: SalesforceSimulator, bulk: BulkClient) -> None:
    rules: list[dict[str, Any]] = [{"on": "job", "method": "POST"}, {"on": "result"}]
    simulator.faults.add(*(Fault(times=1, status=420, **rule) for rule in rules))
    assert bulk.create().status_code == 420
    job = bulk.start()
    assert [bulk.results(job).status_code for _ in range(2)] == [420, 200]
