"""Users whom Bulk 2.0 does not give come over REST, with a sentence that says why."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.salesforce.bulk import Patience
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.core.bulk.harness import (
    WINDOW,
    reads_over_rest,
    sync,
    warnings,
    writes,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(on="job", method="POST", error="INSUFFICIENT_ACCESS"), "INSUFFICIENT_ACCESS"),
        (Fault(on="job", method="POST", status=403, body="empty"), "without a code"),
        (Fault(on="job", method="POST", status=400, error="LIMIT_EXCEEDED"), "LIMIT_EXCEEDED"),
        (Fault(on="job", method="POST", status=400, error="INVALIDENTITY"), "INVALIDENTITY"),
        (Fault(on="job", method="POST", error="QUERY_TIMEOUT"), "QUERY_TIMEOUT"),
        (Fault(on="job", method="POST", status=503), "lost"),
        (Fault(on="job", method="GET", error="NOT_FOUND"), "NOT_FOUND"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_bulk_refuses_is_read_over_rest(org: SalesforceSimulator, engine: Engine, fault: Fault, said: str) -> None:
    [warning] = warnings(reads_over_rest(org, engine, fault))
    assert said in warning


@pytest.mark.slow
def test_bulk_that_is_not_permitted_or_used_up_is_read_over_rest(org: SalesforceSimulator, engine: Engine) -> None:
    org.org.permissions.bulk = False
    reads_over_rest(org, engine)
    org.org.permissions.bulk = True
    org.org.jobs.settings.storage_left = False
    reads_over_rest(org, engine)


@pytest.mark.slow
def test_a_job_whose_creation_is_in_doubt_is_not_created_again(org: SalesforceSimulator, engine: Engine) -> None:
    org.faults.add(Fault(on="job", method="POST", connection="drop_after"))
    result = sync(org, engine)
    assert result.landing.transport == "rest"
    assert "lost" in warnings(result)[0]
    assert [method for method, _ in writes(org)] == ["POST"]


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["Street", "Latitude"])
def test_an_address_that_cannot_be_rebuilt_is_read_over_rest(
    org: SalesforceSimulator, engine: Engine, hidden: str
) -> None:
    org.org.hide_field(hidden)
    [warning] = warnings(reads_over_rest(org, engine))
    assert "address" in warning
    assert writes(org) == []


def test_a_state_that_is_not_known_is_an_error(org: SalesforceSimulator, engine: Engine) -> None:
    org.faults.add(Fault(on="job", method="GET", text='{"id": "7505g0000SimJobAQE", "state": "Resting"}', status=200))
    with pytest.raises(ConfigurationError, match="SALESFORCE_TRANSPORT=rest"):
        sync(org, engine)
    assert [method for method, _ in writes(org)] == ["POST", "PATCH", "DELETE"]


@pytest.mark.slow
def test_a_page_that_was_cut_is_asked_for_again(org: SalesforceSimulator, engine: Engine) -> None:
    org.faults.add(Fault(on="result", path="*/results", times=2, body="cut"))
    read = SalesforceSettings.from_environment(org.environment() | {"SALESFORCE_TRANSPORT": "bulk"})
    patience = Patience(sleep=lambda _: None)
    retry = RetryPolicy(tries=5, sleep=lambda _: None)
    with RestUserService(read, retry=retry, patience=patience) as rest:
        result = UserSyncService(engine, rest).sync_users(window=WINDOW)
    assert (result.landing.transport, result.complete) == ("bulk", True)
