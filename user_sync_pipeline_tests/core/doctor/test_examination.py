"""The examination as a whole: in good health, without any setting, and with whole sides that do not answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.doctor.checks import Check, Look, broken, ok, take
from user_sync_pipeline.core.doctor.examination import Examination, examine
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.core.doctor.conftest import finding, set_all

NOBODY_LISTENS = "postgresql://somebody:secret@127.0.0.1:1/postgres"


def states(examination: Examination) -> dict[tuple[str, str], str]:
    return {(check.area, check.name): check.finding.state for check in examination.checks}


@pytest.mark.slow
def test_what_is_in_good_health_has_nothing_but_good_rows(
    with_salesforce: SalesforceSimulator, with_database: str, with_project: SupabaseSimulator, with_dagster: Path
) -> None:
    examination = examine()
    found = states(examination)
    for unknown in (("salesforce", "frozen users"), ("dagster", "webserver")):
        assert found.pop(unknown) == "not configured"
    assert set(found.values()) == {"ok"}, examination.as_json()
    assert len(found) > 20
    assert (examination.is_healthy, examination.exit_code) == (True, 0)
    assert with_salesforce.journal.violations == []
    assert {exchange.method for exchange in with_salesforce.journal.exchanges} == {"GET", "POST"}
    said = json.dumps(examination.as_json())
    for secret in (
        with_salesforce.environment()["SALESFORCE_CLIENT_SECRET"],
        with_project.keys.secret_key,
        str(make_url(with_database).password),
        "@example",
    ):
        assert secret not in said


def test_what_is_not_configured_is_no_failure() -> None:
    examination = examine()
    assert set(states(examination).values()) == {"not configured"}
    assert {check.area for check in examination.checks} == {"salesforce", "database", "profiles", "dagster"}
    assert examination.exit_code == 0


@pytest.mark.slow
def test_servers_that_do_not_answer_are_one_row_each_and_hide_nothing(
    with_project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(
        monkeypatch,
        {
            "SALESFORCE_LOGIN_URL": "https://127.0.0.1:1",
            "SALESFORCE_CLIENT_ID": "client",
            "SALESFORCE_CLIENT_SECRET": "secret",
            "USER_SYNC_DATABASE_URL": NOBODY_LISTENS,
            "DAGSTER_POSTGRES_URL": NOBODY_LISTENS.replace("postgresql", "postgresql+psycopg2"),
        },
    )
    examination = examine()
    found = states(examination)
    unreachable = {
        ("salesforce", "sign-in"),
        ("database", "connection"),
        ("profiles", "door"),
        ("dagster", "connection"),
    }
    assert {name for name, state in found.items() if state == "broken"} == unreachable
    assert (examination.is_healthy, examination.exit_code) == (False, 4)
    assert all(check.finding.mend for check in examination.checks if check.finding.state == "broken")
    assert "secret" not in json.dumps(examination.as_json())


def test_one_thing_to_be_mended_outweighs_servers_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", NOBODY_LISTENS)
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "alone")
    examination = examine()
    assert finding("salesforce", "settings", examination).state == "broken"
    assert examination.exit_code == 3


def test_a_server_that_takes_a_connection_and_says_nothing_costs_its_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("USER_SYNC_DATABASE_URL", f"postgresql://somebody:secret@127.0.0.1:{port}/postgres")
        examination = examine(seconds=0.1)
    found = finding("database", "time limit", examination)
    assert (found.state, examination.exit_code) == ("broken", 4)
    assert states(examination)["dagster", "home"] == "not configured"


def looked_at(*looks: Look) -> list[Check]:
    rows: list[Check] = []
    take(looks, "area", rows)
    return rows


def fail(error: Exception) -> Callable[[], Check]:
    def look() -> Check:
        raise error

    return look  # type: ignore[return-value]


def test_a_look_that_fails_by_our_own_fault_shows_no_text_and_hides_nothing() -> None:
    failed, good = looked_at(Look("one", fail(ValueError("ann@example.com"))), Look("two", lambda: ok("well")))  # type: ignore[arg-type]
    assert (failed.finding.state, good.finding.detail) == ("broken", "well")
    assert "example.com" not in str(failed)


def test_without_what_is_needed_the_rest_is_left_out() -> None:
    rows = looked_at(Look("one", lambda: broken("no", "mend"), needed=True), Look("two", lambda: ok("well")))
    assert [check.name for check in rows] == ["one"]
