"""What befalls a Bulk job, each mishap by itself: the users are stored nevertheless, or it is an error."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce import bulk_results
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.bulk import Outcome
from user_sync_pipeline_tests.core.bulk.harness import (
    JOBS,
    MANY,
    fails_and_leaves_no_job,
    notes,
    reads_over_rest,
    sync,
    warnings,
    writes,
)


def test_scenario_14_compound_refused(org: SalesforceSimulator, engine: Engine) -> None:
    """As Salesforce would answer to Address, which we never ask of Bulk."""
    compound = Fault(
        on="job", method="POST", error="API_ERROR", message="Selecting compound data not supported in Bulk Query"
    )
    reads_over_rest(org, engine, compound)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["InternalServerError: too bad, ann@example.com", None])
def test_scenario_14_failed(org: SalesforceSimulator, engine: Engine, failure: str | None) -> None:
    org.org.jobs.settings.outcome, org.org.jobs.settings.failure = Outcome.FAIL, failure
    [warning] = warnings(reads_over_rest(org, engine))
    assert "its job failed" in warning
    assert "@" not in warning


@pytest.mark.slow
def test_scenario_14_aborted(org: SalesforceSimulator, engine: Engine) -> None:
    org.org.jobs.settings.outcome = Outcome.ABORT
    [warning] = warnings(reads_over_rest(org, engine))
    assert "aborted" in warning


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["queue_time", "work_time"])
def test_scenario_14_stuck(org: SalesforceSimulator, engine: Engine, setting: str) -> None:
    setattr(org.org.jobs.settings, setting, timedelta(hours=5))
    [warning] = warnings(reads_over_rest(org, engine))
    assert "not done after 10 minutes" in warning
    assert [method for method, _ in writes(org)] == ["POST", "PATCH", "DELETE"]
    looks = [exchange for exchange in org.journal.exchanges if exchange.path.startswith(f"{JOBS}/750")]
    assert len(looks) < 30, "the pauses grow"


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_scenario_14_locator_header_missing(
    org: SalesforceSimulator, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that does not tell the next one is taken for the last, so that records are missing."""
    org.org.jobs.settings.locator_header = False
    fails_and_leaves_no_job(org, engine)
    monkeypatch.setattr(bulk_results, "PAGE_RECORDS", MANY)
    assert sync(org, engine).landing.transport == "bulk"


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["page_count_error", "job_count_error"])
@pytest.mark.parametrize("error", [-1, 1])
def test_scenario_14_count_wrong(org: SalesforceSimulator, engine: Engine, setting: str, error: int) -> None:
    setattr(org.org.jobs.settings, setting, error)
    fails_and_leaves_no_job(org, engine)
    setattr(org.org.jobs.settings, setting, 0)
    assert sync(org, engine).complete


@pytest.mark.slow
@pytest.mark.parametrize("names", [("resultUrl", "nextRecordsUrl"), ("resultLink", "nextRecordUrl")])
@pytest.mark.parametrize("parallel", [1, 4])
def test_scenario_14_several_pages(
    org: SalesforceSimulator, engine: Engine, names: tuple[str, str], parallel: int
) -> None:
    org.org.jobs.settings.page_rows, org.org.jobs.settings.link_names = 7, names
    result = sync(org, engine, parallel_requests=parallel)
    assert (result.landing.transport, result.landing.fetched, result.complete) == ("bulk", MANY, True)
    lists = [exchange for exchange in org.journal.exchanges if exchange.path.endswith("/resultPages")]
    assert len(lists) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("pages", [1, 2, 3])
def test_scenario_14_pages_in_turn(
    org: SalesforceSimulator, engine: Engine, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(bulk_results, "PAGE_RECORDS", MANY // pages)
    result = sync(org, engine)
    assert (result.landing.transport, result.landing.fetched, result.complete) == ("bulk", MANY, True)
    asked = [exchange.query for exchange in org.journal.exchanges if exchange.path.endswith("/results")]
    assert len(asked) == pages
    assert all(f"maxRecords={MANY // pages}" in query for query in asked)


@pytest.mark.usefixtures("in_turn")
def test_scenario_14_locator_that_leads_back(org: SalesforceSimulator, engine: Engine) -> None:
    org.faults.add(Fault(on="result", headers={"Sforce-Locator": "MjA="}))
    fails_and_leaves_no_job(org, engine)


def test_scenario_14_list_of_pages_that_leads_back(org: SalesforceSimulator, engine: Engine) -> None:
    page = f"{JOBS}/7505g0000SimJobAQE/results?locator=MA"
    answer = {"resultPages": [{"resultUrl": page}], "nextRecordsUrl": f"{page}&more", "done": False}
    org.faults.add(Fault(on="result", path="*/resultPages", status=200, text=json.dumps(answer)))
    fails_and_leaves_no_job(org, engine)


@pytest.mark.slow
def test_scenario_14_other_version(org: SalesforceSimulator, engine: Engine) -> None:
    reads_over_rest(org, engine, Fault(on="result", status=409, body="empty"))


@pytest.mark.slow
def test_scenario_14_refused_in_the_middle(org: SalesforceSimulator, engine: Engine) -> None:
    """Some pages have landed by then; they go, and nobody is stored or told twice."""
    user = org.org.users.ordered[0].id
    org.org.update_user(user, Title="x" * 200, Username="left.out@example.com")
    org.org.update_user(org.org.users.ordered[0].id, Title="a\0b")
    org.clock.advance(timedelta(hours=1))
    result = reads_over_rest(org, engine, Fault(on="result", first=4, path="*/results", status=404))
    assert len(notes(result)) == len(result.landing.rejected) == 2


@pytest.mark.slow
def test_scenario_14_delete_too_early(org: SalesforceSimulator, engine: Engine) -> None:
    """The job is not terminated, as far as Salesforce knows; that hides nothing and spoils nothing."""
    org.faults.add(Fault(on="job", method="DELETE", error="API_ERROR", message="the job is not terminated"))
    result = sync(org, engine)
    assert (result.landing.transport, result.complete) == ("bulk", True)
    org.faults.add(Fault(on="job", method="PATCH", status=400))
    org.org.jobs.settings.page_count_error = 1
    with pytest.raises(UnreachableError, match="than it counted"):
        sync(org, engine)
