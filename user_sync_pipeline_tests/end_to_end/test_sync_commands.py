"""`migrate apply`, `sync-users`, `status` and `sync`, from the command line to the tables and back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline.sandbox.supabase import load_auth_users
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT
from user_sync_pipeline_tests.end_to_end.commands import count, run, run_json

USER_SYNC = str(Path(sys.executable).parent / "user-sync")

STATUS = """\
=== User Synchronization Status ===
Total Auth Users:     {users}
Total User Profiles:  {profiles}
Missing Profiles:     {missing}
Sync Percentage:      {percentage}%
"""


pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def users_who_can_sign_in(database: Engine, postgres_server: PostgresServer) -> int:
    """Auth users who came before the trigger, so that none of them has a profile."""
    url = postgres_server.url(str(database.url.database))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE auth.users DISABLE TRIGGER USER")
        number = load_auth_users(url, people(FEW_PEOPLE, seed=1, until=ORG_MADE_AT))
        connection.execute("ALTER TABLE auth.users ENABLE TRIGGER USER")
    return number


@pytest.mark.slow
def test_all_users_arrive_and_a_second_run_changes_nothing(database: Engine) -> None:
    first = run_json("sync-users", "--mode", "full")
    assert list(first) == [
        "mode", "since", "until", "fetched", "inserted", "updated", "unchanged", "rejected", "api_calls", "api_usage",
        "complete", "watermark", "duration_seconds", "held_reason", "resumed", "transport",
        "warnings", "certificate",
    ]  # fmt: skip
    assert first["fetched"] == first["inserted"] == count(database, "sf_users") == FEW_PEOPLE
    assert first["since"] is None
    assert first["complete"] is True

    second = run_json("sync-users", "--mode", "full")
    assert (second["inserted"], second["updated"], second["unchanged"]) == (0, 0, FEW_PEOPLE)


@pytest.mark.slow
def test_the_form_for_people_shows_what_was_done(database: Engine) -> None:
    result = run("sync-users", "--mode", "custom", "--start-date", "2020-01-01", "--end-date", "2026-12-31")
    assert "Mode:                 custom\n" in result.stdout
    assert "Window:               2020-01-01T00:00:00Z to 2027-01-01T00:00:00Z\n" in result.stdout
    assert f"Fetched:              {FEW_PEOPLE}\n" in result.stdout
    assert result.stderr == ""


def test_a_dry_run_forecasts_and_writes_nothing(database: Engine) -> None:
    forecast = run_json("sync-users", "--mode", "full", "--dry-run")
    assert forecast["rows"] == FEW_PEOPLE
    assert forecast["dry_run"] is True
    assert count(database, "user_sync.sync_runs") == count(database, "sf_users") == 0
    assert f"Users To Fetch:       {FEW_PEOPLE}\n" in run("sync-users", "--mode", "full", "--dry-run").stdout


@pytest.mark.slow
def test_a_limited_run_says_that_it_is_not_complete(database: Engine) -> None:
    result = run_json("sync-users", "--mode", "full", "--limit", "7")
    assert (result["fetched"], result["complete"]) == (7, False)
    assert count(database, "sf_users") == 7


@pytest.mark.slow
def test_a_row_that_cannot_be_stored_is_shown_and_the_others_are_stored(
    database: Engine, salesforce: SalesforceSimulator
) -> None:
    unlucky = salesforce.org.users.ordered[FEW_PEOPLE // 2].id
    salesforce.org.update_user(unlucky, Username="x" * 200)
    salesforce.clock.advance(VISIBILITY_LAG + timedelta(seconds=1))
    result = run("sync-users", "--mode", "full", "--json", exit_code=1)
    assert json.loads(result.stdout)["rejected"] == 1
    assert f"{unlucky}  Username: " in result.stderr
    assert "x" * 20 not in result.stderr
    assert count(database, "sf_users") == FEW_PEOPLE - 1


def test_a_wrong_secret_is_a_configuration_error(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "wrong-secret")
    result = run("sync-users", "--mode", "full", "--json", exit_code=3)
    assert "SALESFORCE_CLIENT_SECRET" in result.stderr
    assert "wrong-secret" not in result.stderr
    assert result.stdout == ""
    assert count(database, "user_sync.sync_runs") == 0


@pytest.mark.slow
def test_tables_that_are_missing_are_answered_by_the_command_that_makes_them(
    database: Engine, supabase_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", supabase_database)
    for command in (["sync-users", "--mode", "full"], ["status"], ["sync"]):
        assert "user-sync migrate apply" in run(*command, exit_code=3).stderr


@pytest.mark.slow
def test_migrations_are_applied_once(supabase_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", supabase_database)
    first, second = run_json("migrate", "apply"), run_json("migrate", "apply")
    assert first["applied"] == second["present"] == ["0001_salesforce_side", "0002_profiles_side"]
    assert first["present"] == second["applied"] == first["left_out"] == []
    assert "present   0001_salesforce_side" in run("migrate", "apply").stdout


@pytest.mark.slow
def test_a_plain_postgres_gets_the_salesforce_side_and_is_told_what_was_left_out(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", empty_database)
    result = run_json("migrate", "apply")
    assert result["applied"] == ["0001_salesforce_side"]
    (left_out,) = result["left_out"]
    assert left_out["name"] == "0002_profiles_side"
    assert "auth.users" in left_out["reason"]


@pytest.mark.slow
def test_status_and_sync_before_and_after(database: Engine, users_who_can_sign_in: int) -> None:
    users = users_who_can_sign_in
    before = STATUS.format(users=users, profiles=0, missing=users, percentage="0.00")
    assert run("status").stdout == before
    assert run_json("status") == {
        "total_auth_users": users,
        "total_user_profiles": 0,
        "missing_profiles": users,
        "sync_percentage": 0.0,
        "method": "sql",
        "exactness": "exact",
    }

    preview = run("sync", "--dry-run").stdout
    assert "Dry Run" in preview
    assert f"Profiles To Create:   {users}\n" in preview
    assert count(database, "user_profiles") == 0

    result = run_json("sync")
    assert list(result) == [
        "timestamp", "total_auth_users", "existing_profiles", "profiles_created", "failed_creations", "success_rate",
        "execution_time_seconds", "dry_run", "failures", "refreshed_profiles", "refused_refreshes", "run_id",
    ]  # fmt: skip
    assert (result["profiles_created"], result["failed_creations"]) == (users, 0)
    assert run("status").stdout == STATUS.format(users=users, profiles=users, missing=0, percentage="100.00")
    assert run_json("sync")["profiles_created"] == 0
    assert "Exactness:            exact\n" in run("status", "--verbose").stdout


@pytest.mark.slow
def test_a_profile_that_is_refused_is_a_failed_row(database: Engine, users_who_can_sign_in: int) -> None:
    with database.begin() as connection:
        unlucky = connection.execute(text("SELECT id FROM auth.users ORDER BY id LIMIT 1")).scalar_one()
        connection.execute(text(f"ALTER TABLE user_profiles ADD CONSTRAINT unlucky CHECK (id <> '{unlucky}')"))
    result = run_json("sync", exit_code=1)
    assert result["profiles_created"] == users_who_can_sign_in - 1
    (failure,) = result["failures"]
    assert failure["user_id"] == str(unlucky)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "expected"), [("y", "Synchronization Summary"), ("n", "Nothing was changed")])
def test_refreshing_existing_profiles_asks_the_person_at_the_terminal(
    answer: str, expected: str, database: Engine, users_who_can_sign_in: int
) -> None:
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        command = [USER_SYNC, "sync", "--no-preserve"]
        ran = subprocess.run(command, stdin=theirs, capture_output=True, text=True)
    finally:
        os.close(terminal)
        os.close(theirs)
    assert ran.returncode == 0, ran.stderr
    assert expected in ran.stdout + ran.stderr
    assert "Refresh" in ran.stderr
