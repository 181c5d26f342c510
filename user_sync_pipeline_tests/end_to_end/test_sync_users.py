"""`sync-users` as a person runs it every day: what it says while it runs and at its end, and with which exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.cli import output
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.conftest import FEW_PEOPLE
from user_sync_pipeline_tests.end_to_end.commands import count, run, run_json

FULL = ("sync-users", "--mode", "full")
PAGE = 10
PAGES = FEW_PEOPLE // PAGE
# Describe, `updated`, count, the pages, the closing count.
CALLS = 3 + PAGES + 1


@pytest.fixture(autouse=True)
def _in_small_pages(salesforce: SalesforceSimulator) -> Iterator[None]:
    salesforce.org.largest_page = PAGE
    yield
    assert salesforce.journal.violations == []


def transaction_half_an_hour_ago(salesforce: SalesforceSimulator) -> Callable[[], None]:
    """Add somebody in a transaction that is still open; returns what commits it."""
    salesforce.clock.shift(-timedelta(minutes=30))
    transaction = salesforce.org.begin()
    transaction.add_user(Username="late@example.com", LastName="Late", Alias="late")
    salesforce.clock.shift(timedelta(minutes=30))
    return transaction.commit


def before_the_closing_count(
    salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]
) -> None:
    """Let something happen behind the back of a run that has read its last page."""
    true_count, counts = salesforce.org.count, 0

    def count_users(query: Any) -> int:
        nonlocal counts
        counts += 1
        if counts == 2:
            happens()
        return true_count(query)

    monkeypatch.setattr(salesforce.org, "count", count_users)


# Paused, and going on -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_budget_is_paused_at_until_enough_runs_have_read_everything(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALESFORCE_API_BUDGET_PER_RUN", "5")
    landed = 0
    while (result := run(*FULL, "--json", exit_code=None)).exit_code == 5:
        (sentence,) = result.stderr.splitlines()
        assert "SALESFORCE_API_BUDGET_PER_RUN" in sentence
        assert "run again to go on from there" in sentence
        assert result.stdout == ""
        before, landed = landed, count(database, "user_sync.salesforce_users_raw")
        assert before < landed or landed == FEW_PEOPLE, "every run comes nearer to the end"
    last = json.loads(result.stdout)
    assert (last["resumed"], last["complete"], last["fetched"]) == (True, True, FEW_PEOPLE)
    assert last["api_calls"] <= 5
    assert count(database, "sf_users") == FEW_PEOPLE
    assert count(database, "user_sync.sync_runs") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("reserve", "named"), [("0", "REQUEST_LIMIT_EXCEEDED"), ("20", "RESERVE_PERCENT")])
def test_the_daily_limit_pauses_a_run_that_goes_on_when_requests_are_free_again(
    reserve: str,
    named: str,
    database: Engine,
    salesforce: SalesforceSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SALESFORCE_API_RESERVE_PERCENT", reserve)
    salesforce.org.set_daily_limit(CALLS - 2)
    paused = run(*FULL, exit_code=5)
    (sentence,) = paused.stderr.splitlines()
    assert named in sentence
    assert "run again to go on from there" in sentence
    assert paused.stdout == ""
    landed = count(database, "user_sync.salesforce_users_raw")
    assert 0 < landed < FEW_PEOPLE
    assert count(database, "sf_users") == 0, "nothing is merged before all is there"
    assert run(*FULL, exit_code=5).stdout == "", "still used up"

    salesforce.clock.advance(timedelta(hours=24))
    salesforce.org.set_daily_limit(1000)
    result = run(*FULL)
    assert f"Fetched:              {FEW_PEOPLE} (went on where an earlier run had stopped)\n" in result.stdout
    assert "Complete:             yes, " in result.stdout
    assert count(database, "sf_users") == FEW_PEOPLE
    with database.connect() as connection:
        assert connection.scalar(text("SELECT outcome FROM user_sync.sync_runs WHERE resumed > 0")) == "complete"


# Not whole ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_users_that_were_not_read_are_a_failure_that_the_next_run_makes_good(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_closing_count(salesforce, monkeypatch, transaction_half_an_hour_ago(salesforce))
    result = run(*FULL, exit_code=1)
    figures = f"no, {FEW_PEOPLE} users read, Salesforce counts {FEW_PEOPLE + 1}"
    assert f"Complete:             {figures}\n" in result.stdout
    assert "not read: 1; " in result.stderr
    assert "run the same command again" in result.stderr

    again = run_json(*FULL)
    assert (again["complete"], again["inserted"]) == (True, 1)
    assert count(database, "sf_users") == FEW_PEOPLE + 1


@pytest.mark.slow
def test_a_run_that_is_not_whole_and_not_held_leaves_the_watermark(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Salesforce vouches for everything, and yet somebody turns up: whoever relies on the watermark must come back."""
    first = run_json(*FULL)
    salesforce.clock.shift(timedelta(seconds=20))

    def turn_up() -> None:
        salesforce.clock.shift(-timedelta(minutes=30))
        salesforce.org.add_user(Username="late@example.com", LastName="Late", Alias="late")
        salesforce.clock.shift(timedelta(minutes=30))

    with monkeypatch.context() as during_the_run:
        before_the_closing_count(salesforce, during_the_run, turn_up)
        result = run(*FULL, exit_code=1)
    assert f"Watermark:            {first['watermark']} (not moved: this run is not complete)\n" in result.stdout
    assert run_json(*FULL)["watermark"] > first["watermark"]


@pytest.mark.slow
def test_a_limit_is_what_was_asked_for(database: Engine) -> None:
    result = run(*FULL, "--limit", "7")
    assert "Fetched:              7 (stopped at --limit)\n" in result.stdout
    assert "Complete:             no, it was to stop at --limit\n" in result.stdout
    assert "Watermark:            not set yet, --mode full sets it\n" in result.stdout
    assert result.stderr == ""


# What there is to say -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_watermark_that_is_held_is_told_with_its_reason(database: Engine, salesforce: SalesforceSimulator) -> None:
    transaction_half_an_hour_ago(salesforce)
    result = run(*FULL)
    assert re.search(r"^Watermark: +\S+Z \(held\)$", result.stdout, re.MULTILINE)
    assert "transactions" in result.stderr
    told = run_json(*FULL)
    assert told["held_reason"] in result.stderr
    assert told["watermark"] == told["certificate"]["vouched_until"] < told["certificate"]["until"]


@pytest.mark.slow
def test_a_window_that_does_not_join_what_was_read_leaves_the_watermark(
    database: Engine, salesforce: SalesforceSimulator
) -> None:
    now = datetime.now(UTC)
    salesforce.clock.set(now - timedelta(days=3))
    run("sync-users", "--mode", "full")
    salesforce.clock.set(now)
    result = run("sync-users", "--mode", "recent", "--days", "1")
    assert "(not moved: this window begins behind it)\n" in result.stdout
    assert "Fetched:              0\n" in result.stdout


@pytest.mark.slow
def test_a_clock_that_is_wrong_is_told(database: Engine, salesforce: SalesforceSimulator) -> None:
    salesforce.clock.shift(timedelta(hours=1))
    assert "The clock of this machine is " in run(*FULL).stderr
    (warning,) = run_json(*FULL)["warnings"]
    assert "behind Salesforce's" in warning


@pytest.mark.slow
def test_fields_that_are_not_brought_are_told(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hide_title() -> None:
        salesforce.org.hide_field("Title")

    salesforce.org.hide_field("Fax")
    page_writer, pages = salesforce.org.writer, 0

    def writer(*arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            hide_title()
        return page_writer(*arguments)

    monkeypatch.setattr(salesforce.org, "writer", writer)
    result = run(*FULL)
    assert "Hidden from this Salesforce user, so left as stored: Fax\n" in result.stderr
    assert "Hidden or removed while they were read, so left as stored: Title\n" in result.stderr
    assert "Complete:             yes, " in result.stdout


@pytest.mark.slow
def test_formula_fields_are_told_where_they_may_be_out_of_date(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = salesforce.org.describe()
    for field in described["fields"]:
        field["calculated"] = field["name"] == "Grade__c"
    monkeypatch.setattr(salesforce.org, "describe", lambda: described)
    monkeypatch.setenv("SALESFORCE_EXTRA_FIELDS", "Grade__c")
    assert "Grade__c" in run("sync-users", "--mode", "recent").stderr
    full = run(*FULL, "--verbose")
    assert full.stderr == ""
    assert "Formula Fields:       Grade__c\n" in full.stdout


@pytest.mark.slow
def test_the_certificate_is_shown_to_who_asks_for_it(database: Engine, salesforce: SalesforceSimulator) -> None:
    salesforce.org.deactivate_user(salesforce.org.users.ordered[0].id)
    salesforce.clock.advance(VISIBILITY_LAG + timedelta(seconds=1))
    assert "Certificate" not in run(*FULL).stdout
    shown, certificate = run(*FULL, "--verbose").stdout, run_json(*FULL)["certificate"]
    assert f"Digest:               {certificate['digest']}\n" in shown
    assert f"Users Read:           {FEW_PEOPLE}\n" in shown
    assert f"Closing Count:        {certificate['closing_count']}\n" in shown
    for user_type, counts in certificate["users_by_type"].items():
        assert re.search(rf" {counts['active']} active +{counts['inactive']} inactive  {user_type}\n", shown)
    for label in ("Hidden Fields", "Lost Fields", "Formula Fields"):
        assert f"{label + ':':<22}none\n" in shown
    assert "Rows Per Slice" not in shown, "there is one"


@pytest.mark.slow
def test_it_is_told_by_which_way_users_were_read_and_why_by_another_than_was_asked_for(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_json(*FULL)["transport"] == "rest"
    monkeypatch.setenv("SALESFORCE_TRANSPORT", "bulk")
    assert f"Fetched:              {FEW_PEOPLE} by Bulk API 2.0\n" in run(*FULL).stdout
    salesforce.org.permissions.bulk = False
    refused = run_json(*FULL)
    assert (refused["transport"], refused["complete"]) == ("rest", True)
    assert "Bulk 2.0" in refused["warnings"][0]


# Before and while it runs -------------------------------------------------------------------------------------------


def test_a_dry_run_tells_the_share_and_what_the_bounds_leave(database: Engine, salesforce: SalesforceSimulator) -> None:
    salesforce.org.set_daily_limit(200)
    forecast = run_json(*FULL, "--dry-run")
    assert (forecast["rows"], forecast["would_pause"], forecast["budget"]) == (FEW_PEOPLE, False, None)
    assert forecast["share"] == forecast["api_calls"] / 200
    assert forecast["available"] == 200 - 20 - forecast["api_usage"]["used"]
    shown = run(*FULL, "--dry-run").stdout
    assert f"Share Of Daily Limit: {output.percent(forecast['share'])}\n" in shown
    assert "Budget Per Run:       none\n" in shown
    assert "Would Be Paused:      no\n" in shown


@pytest.mark.parametrize(
    ("settings", "limit", "reason"),
    [
        ({"SALESFORCE_API_BUDGET_PER_RUN": "4"}, 1000, "SALESFORCE_API_BUDGET_PER_RUN allows 4 of these calls"),
        ({"SALESFORCE_API_RESERVE_PERCENT": "60"}, 6, "SALESFORCE_API_RESERVE_PERCENT leaves 2 of these calls"),
        ({"SALESFORCE_API_RESERVE_PERCENT": "0"}, 4, "the organisation has 3 of these calls left"),
    ],
)
def test_a_dry_run_says_that_the_run_would_be_paused(
    settings: dict[str, str],
    limit: int,
    reason: str,
    database: Engine,
    salesforce: SalesforceSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    salesforce.org.largest_page = None
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    salesforce.org.set_daily_limit(limit)
    assert f"Would Be Paused:      yes, {reason}\n" in run(*FULL, "--dry-run").stdout
    run(*FULL, exit_code=5)


def test_a_dry_run_says_what_it_does_not_know(database: Engine, salesforce: SalesforceSimulator) -> None:
    salesforce.org.quota.header = None
    forecast = run_json(*FULL, "--dry-run")
    assert (forecast["share"], forecast["available"], forecast["would_pause"]) == (None, None, False)
    shown = run(*FULL, "--dry-run").stdout
    assert "Share Of Daily Limit: unknown\n" in shown
    assert "Left By Reserve:      unknown\n" in shown


@pytest.mark.slow
def test_progress_tells_rows_rate_pages_calls_and_usage(
    database: Engine, salesforce: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_PLAIN_LINES", 0.0)
    salesforce.faults.add(Fault(on="page", delay=0.3))
    salesforce.org.set_daily_limit(100)
    result = run(*FULL, "--json")
    lines = [line for line in result.stderr.splitlines() if line.startswith("Fetching users: ")]
    assert len(lines) == PAGES
    assert lines[0].startswith(f"Fetching users: {PAGE} of {FEW_PEOPLE}, page 1, ")
    rest = rf"\d+/s, page {PAGES}, \d+ API calls, quota [0-9.]+%"
    assert re.fullmatch(rf"Fetching users: {FEW_PEOPLE} of {FEW_PEOPLE}, {rest}", lines[-1])
