"""A Bulk run that breaks off anywhere is finished by the next one, and nobody is lost, doubled or told twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.user_sync import Progress
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.core.bulk.harness import (
    BULK_PAGE,
    MANY,
    WINDOW,
    forget_everything,
    make_nasty,
    notes,
    rows,
    service,
    sync,
    users_stored,
)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("after_pages", [1, 3, 5])
@pytest.mark.parametrize("then", ["bulk", "rest"])
def test_a_bulk_run_that_is_killed_begins_its_slice_anew(
    org: SalesforceSimulator, engine: Engine, after_pages: int, then: str
) -> None:
    make_nasty(org)
    org.clock.advance(timedelta(hours=1))
    undisturbed = sync(org, engine)
    expected = users_stored(engine)
    forget_everything(engine)

    def kill(progress: Progress) -> None:
        if progress.pages == after_pages:
            raise Killed

    with service(org, engine) as users, pytest.raises(Killed):
        users.land(WINDOW, mode="full", progress=kill)
    assert rows(engine, "SELECT count(*) > 0 FROM user_sync.salesforce_users_raw") == [(True,)]

    result = sync(org, engine, transport=then)

    assert result.landing.resumed
    assert result.landing.transport == then
    assert result.landing.fetched == undisturbed.landing.fetched == MANY
    assert users_stored(engine) == expected
    assert notes(result) == notes(undisturbed)
    assert len(result.landing.rejected) == len(undisturbed.landing.rejected)
    stored = rows(engine, "SELECT count(*), count(DISTINCT id) FROM user_sync.salesforce_users_raw")
    assert stored == [(len(expected), len(expected))]
    assert rows(engine, "SELECT outcome, resumed FROM user_sync.sync_runs") == [("complete", 1)]
    assert org.org.jobs.all() == []


@pytest.mark.slow
def test_bulk_goes_on_behind_what_rest_had_read(org: SalesforceSimulator, engine: Engine) -> None:
    org.org.largest_page = 20

    def pause(progress: Progress) -> None:
        if progress.pages == 2:
            raise PausedError("enough")

    with service(org, engine, transport="rest") as users, pytest.raises(PausedError):
        users.land(WINDOW, mode="full", progress=pause)
    org.journal.clear()

    result = sync(org, engine)

    assert (result.landing.resumed, result.landing.transport, result.landing.fetched) == (True, "bulk", MANY)
    assert rows(engine, "SELECT count(*), count(DISTINCT id) FROM user_sync.salesforce_users_raw") == [(MANY, MANY)]
    results = [exchange for exchange in org.journal.exchanges if exchange.path.endswith("/results")]
    assert len(results) == -(-(MANY - 2 * 20) // BULK_PAGE)


@pytest.mark.slow
def test_a_bulk_run_that_is_paused_after_any_request_is_finished_by_the_next(
    org: SalesforceSimulator, engine: Engine
) -> None:
    undisturbed = sync(org, engine)
    expected = users_stored(engine)
    for calls in range(1, undisturbed.landing.usage.calls - 1):
        forget_everything(engine)
        with pytest.raises(PausedError, match="SALESFORCE_API_BUDGET_PER_RUN"):
            sync(org, engine, api_budget_per_run=calls)
        assert {outcome for (outcome,) in rows(engine, "SELECT outcome FROM user_sync.sync_runs")} <= {"paused"}
        result = sync(org, engine)
        assert (result.landing.fetched, result.complete) == (MANY, True)
        assert users_stored(engine) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [{"on": "job", "method": "POST"}, {"on": "job", "method": "GET"}, {"on": "result"}, {"on": "result", "first": 4}],
    ids=["at the creation", "at a look", "at the list of pages", "at a page"],
)
def test_the_daily_limit_pauses_bulk_and_is_no_reason_for_rest(
    org: SalesforceSimulator, engine: Engine, fault: dict[str, Any]
) -> None:
    org.faults.add(Fault(error="REQUEST_LIMIT_EXCEEDED", **fault))
    with pytest.raises(PausedError):
        sync(org, engine)
    assert rows(engine, "SELECT outcome FROM user_sync.sync_runs") == [("paused",)]
    org.faults.clear()
    assert sync(org, engine).complete
