"""`user-sync doctor` as it is typed: the table, the JSON, and the exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from user_sync_pipeline_tests.end_to_end.commands import run, run_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

NOBODY_LISTENS = "postgresql://somebody:secret@127.0.0.1:1/postgres"

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.mark.slow
def test_a_healthy_installation_is_a_table_and_exit_code_0(database: Engine) -> None:
    shown = run("doctor").stdout
    assert "0 broken" in shown
    for area in ("salesforce", "database", "profiles", "dagster"):
        assert f"\n{area} " in shown
    told = run_json("doctor")
    assert set(told) == {"checks", "healthy"}
    assert told["healthy"] is True
    assert {tuple(check) for check in told["checks"]} == {("area", "name", "state", "detail", "mend")}
    assert {check["state"] for check in told["checks"]} <= {"ok", "not configured"}


def test_what_must_be_mended_is_shown_with_its_mend_and_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "alone")
    shown = run("doctor", exit_code=3).stdout
    assert "broken" in shown
    assert "→ " in shown
    assert run_json("doctor", exit_code=3)["healthy"] is False


def test_servers_that_do_not_answer_are_exit_code_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", NOBODY_LISTENS)
    result = run("doctor", exit_code=4)
    assert "127.0.0.1:1" in result.stdout
    assert "secret" not in result.output


def test_nothing_configured_is_no_failure() -> None:
    assert run("doctor").stdout.count("not configured") >= 4
