"""A run stays within its budget and leaves the organisation its reserve, whoever sends how many requests at once."""

from __future__ import annotations

import threading

import pytest

from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.salesforce.budget import ApiBudget
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline_tests.core.salesforce.scripted_server import Answer, Client

SECRET = {"SALESFORCE_CLIENT_ID": "id", "SALESFORCE_CLIENT_SECRET": "secret"}


def quota(used: int, limit: int) -> dict[str, str]:
    return {"Sforce-Limit-Info": f"api-usage={used}/{limit}"}


def test_retry_row_9_a_run_pauses_before_the_request_that_is_one_too_many(client: Client) -> None:
    for _ in range(3):
        client.get(budget=ApiBudget(per_run=3))
    with pytest.raises(PausedError, match="3 API requests that SALESFORCE_API_BUDGET_PER_RUN allows"):
        client.get(budget=ApiBudget(per_run=3))
    assert len(client.server.asked) == client.usage.calls == 3


def test_every_try_is_paid_for(client: Client) -> None:
    client.server.script = [Answer(503)] * 9
    with pytest.raises(PausedError, match="SALESFORCE_API_BUDGET_PER_RUN"):
        client.get(budget=ApiBudget(per_run=2))
    assert len(client.server.asked) == 2


def test_the_clock_costs_nothing(client: Client) -> None:
    for _ in range(3):
        client.get("/services/data/", budget=ApiBudget(per_run=1))
    client.get(budget=ApiBudget(per_run=1))


@pytest.mark.parametrize(
    ("percent", "used", "pauses"),
    [
        (10, 899, False),
        (10, 900, True),
        (10, 5000, True),
        (0, 999, False),
        (0, 1000, False),
        (99, 9, False),
        (99, 10, True),
    ],
)
def test_the_reserve_of_the_organisation_is_left_to_others(
    client: Client, percent: int, used: int, pauses: bool
) -> None:
    client.server.script = [Answer(headers=quota(used, 1000))]
    client.get(budget=ApiBudget(reserve_percent=percent))
    if pauses:
        with pytest.raises(PausedError, match=rf"{used:,} of its 1,000.* SALESFORCE_API_RESERVE_PERCENT"):
            client.get(budget=ApiBudget(reserve_percent=percent))
    else:
        client.get(budget=ApiBudget(reserve_percent=percent))
    assert len(client.server.asked) == 2 - pauses


def test_an_organisation_that_tells_no_quota_holds_nothing_back(client: Client) -> None:
    client.server.script = [Answer(), Answer(headers=quota(0, 0)), Answer()]
    for _ in range(3):
        client.get(budget=ApiBudget(reserve_percent=99))


def test_threads_together_stay_within_the_budget() -> None:
    usage, budget, sent = ApiUsage(), ApiBudget(per_run=100), []
    start = threading.Barrier(8)

    def spend() -> None:
        start.wait()
        try:
            while True:
                budget.spend(usage)
                sent.append(1)
        except PausedError:
            pass

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == usage.calls == 100


def test_the_settings_are_the_bounds() -> None:
    told = {"SALESFORCE_API_BUDGET_PER_RUN": "500", "SALESFORCE_API_RESERVE_PERCENT": "25"}
    assert ApiBudget.from_settings(SalesforceSettings.from_environment(SECRET | told)) == ApiBudget(500, 25)
    assert ApiBudget.from_settings(SalesforceSettings.from_environment(SECRET)) == ApiBudget(None, 10)
