"""`create-profile`, `sync --undo` and `sync --no-preserve`, as a person or a script types them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.profiles.directory import ROLES
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline_tests.end_to_end.commands import run, run_json
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids, refuse_profiles_of

USER_SYNC = str(Path(sys.executable).parent / "user-sync")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def project(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A migrated project without anybody; the settings lead to it."""
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", migrated_database)
    engine = create_database_engine(migrated_database)
    yield engine
    engine.dispose()


@pytest.fixture
def project_without_ledger(project: Engine, supabase_database: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The project is named by itself, and the database for the rest has not been prepared."""
    monkeypatch.setenv("SUPABASE_DB_URL", os.environ["USER_SYNC_DATABASE_URL"])
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", supabase_database)
    return project


def roles(engine: Engine) -> dict[UUID, str]:
    with engine.connect() as connection:
        return {row.id: row.role for row in connection.execute(text("SELECT id, role FROM user_profiles"))}


def at_a_terminal(answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        return subprocess.run([USER_SYNC, *arguments], stdin=theirs, capture_output=True, text=True)
    finally:
        os.close(terminal)
        os.close(theirs)


# create-profile ----------------------------------------------------------------------------------------------------


def test_a_profile_is_created_once_and_then_left_as_it_is(project: Engine) -> None:
    user_id = add_user(project, "ann@example.com")
    first = run("create-profile", str(user_id))
    assert first.stdout.startswith(f"Created the profile of {user_id} with the role user. To take this back: user-sync")
    assert "example.com" not in first.stdout + first.stderr
    again = run("create-profile", str(user_id), "--role", "user")
    assert again.stdout == f"The profile of {user_id} is there already and stays as it is; its role is user.\n"
    assert roles(project) == {user_id: "user"}


def test_the_role_is_the_one_that_was_asked_for_and_no_other_profile_gets_it(project: Engine) -> None:
    admin, other = add_user(project), add_user(project, profile=True)
    created = run_json("create-profile", str(admin), "--role", "admin")
    assert list(created) == ["user_id", "created", "role", "asked_role", "failure", "run_id"]
    assert (created["user_id"], created["created"], created["role"]) == (str(admin), True, "admin")
    assert roles(project) == {admin: "admin", other: "user"}


def test_a_profile_of_another_role_is_said_to_have_it_and_is_left(project: Engine) -> None:
    user_id = add_user(project, profile=True)
    assert "its role is user, not admin." in run("create-profile", str(user_id), "--role", "admin").stdout
    there = run_json("create-profile", str(user_id), "--role", "admin")
    assert (there["created"], there["role"], there["asked_role"], there["run_id"]) == (False, "user", "admin", None)
    assert roles(project) == {user_id: "user"}


def test_the_list_of_roles_is_that_of_the_table(project: Engine) -> None:
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'user_profiles_role_allowed'"
    with project.connect() as connection:
        check = connection.execute(text(query)).scalar_one()
    assert [role for role in check.split("'") if role.isalpha()] == list(ROLES)


@pytest.mark.parametrize(
    "arguments", [["no-uuid"], [str(UUID(int=1)), "--role", "root"], [str(UUID(int=1)), "--role", ""]]
)
def test_an_id_that_is_none_and_a_role_that_is_not_in_the_list_are_refused_before_anything_is_asked(
    arguments: list[str],
) -> None:
    result = run("create-profile", *arguments, "--json", exit_code=2)
    assert result.stdout == ""
    assert ("user, admin" if "--role" in arguments else "UUID") in result.stderr


def test_users_who_are_unknown_or_deleted_or_of_another_audience_get_no_profile(project: Engine) -> None:
    unknown, deleted, foreign = uuid4(), add_user(project, deleted=True), add_user(project, aud="other")
    assert "no user" in run("create-profile", str(unknown), exit_code=2).stderr
    for user_id in (deleted, foreign):
        assert "deleted, or signs in somewhere else" in run("create-profile", str(user_id), exit_code=2).stderr
    assert roles(project) == {}


def test_metadata_has_no_say_in_the_role(project: Engine) -> None:
    user_id = add_user(project)
    execute(
        project,
        """UPDATE auth.users SET raw_user_meta_data = '{"role": "admin"}', raw_app_meta_data = '{"role": "admin"}'""",
    )
    assert run_json("create-profile", str(user_id))["role"] == "user"


def test_a_profile_that_is_refused_says_why(project: Engine) -> None:
    user_id = add_user(project, "ann@example.com")
    refuse_profiles_of(project, [user_id])
    refused = run("create-profile", str(user_id), exit_code=1)
    assert refused.stdout == f"The profile of {user_id} was refused: SQLSTATE 23514, constraint refused_here.\n"
    assert run_json("create-profile", str(user_id), exit_code=1)["failure"] == "SQLSTATE 23514, constraint refused_here"


@pytest.mark.slow
def test_a_created_profile_can_be_taken_back(project: Engine) -> None:
    user_id = add_user(project)
    created = run_json("create-profile", str(user_id), "--role", "admin")
    assert run_json("sync", "--undo", created["run_id"], "--yes")["profiles_removed"] == 1
    assert roles(project) == {}


def test_a_profile_is_created_without_a_ledger_too_and_that_is_said(project_without_ledger: Engine) -> None:
    user_id = add_user(project_without_ledger)
    result = run("create-profile", str(user_id))
    assert "cannot be undone" in result.stderr
    assert "--undo" not in result.stdout
    assert roles(project_without_ledger) == {user_id: "user"}


# sync --undo -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sync_says_how_to_take_it_back_and_that_works_once(project: Engine) -> None:
    users = {add_user(project, f"{number}@example.com") for number in range(3)}
    synced = run("sync", "--verbose")
    run_id = synced.stdout.split()[-1]
    assert synced.stdout.splitlines()[-1] == f"Run:                  {run_id}"
    assert synced.stderr == f"To take this back: user-sync sync --undo {run_id}\n"
    assert profile_ids(project) == users

    undone = run("sync", "--undo", run_id, "--yes").stdout.splitlines()
    assert undone[:5] == [
        "=== Undo Summary ===",
        f"Run:                  {run_id}",
        "Profiles Removed:     3",
        "Profiles Restored:    0",
        "Profiles Kept:        0",
    ]
    again = run_json("sync", "--undo", run_id, "--yes")
    assert list(again) == [
        "run_id", "profiles_removed", "profiles_restored", "profiles_kept", "execution_time_seconds", "kept",
    ]  # fmt: skip
    assert (again["profiles_removed"], again["kept"]) == (0, [])
    assert profile_ids(project) == set()


@pytest.mark.slow
def test_what_was_kept_is_told_with_its_reason(project: Engine) -> None:
    user_id = add_user(project)
    run_id = run_json("sync")["run_id"]
    execute(project, "UPDATE user_profiles SET full_name = 'Chosen'")
    assert "Kept:                 1 (changed since)\n" in run("sync", "--undo", run_id, "--yes").stdout
    kept = run_json("sync", "--undo", run_id, "--yes")["kept"]
    assert kept == [{"user_id": str(user_id), "reason": "changed since"}]


def test_nothing_is_undone_where_nobody_can_be_asked(project: Engine) -> None:
    user_id = add_user(project)
    run_id = run_json("sync")["run_id"]
    refused = run("sync", "--undo", run_id, exit_code=2)
    assert "--undo" in refused.stderr
    assert "--yes" in refused.stderr
    assert profile_ids(project) == {user_id}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["y", "n"])
def test_an_undo_asks_the_person_at_the_terminal(project: Engine, answer: str) -> None:
    user_id = add_user(project)
    ran = at_a_terminal(answer, "sync", "--undo", run_json("sync")["run_id"])
    assert ran.returncode == 0, ran.stderr
    assert profile_ids(project) == (set() if answer == "y" else {user_id})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--undo", "yesterday"], ["'yesterday'", "UUID"]),
        (["--undo", str(uuid4()), "--dry-run"], ["--undo", "--dry-run"]),
        (["--undo", str(uuid4()), "--no-preserve"], ["--undo", "--no-preserve"]),
        (["--undo", str(uuid4()), "--yes"], ["no run", "user_sync.profile_runs"]),
    ],
)
def test_a_run_that_cannot_be_undone_is_refused(project: Engine, arguments: list[str], words: list[str]) -> None:
    result = run("sync", *arguments, "--json", exit_code=2)
    assert result.stdout == ""
    assert [word for word in words if word not in result.stderr] == []


@pytest.mark.slow
def test_without_a_ledger_the_sync_works_and_says_that_it_cannot_be_undone(project_without_ledger: Engine) -> None:
    user_id = add_user(project_without_ledger)
    synced = run("sync")
    assert "cannot be undone" in synced.stderr
    assert run_json("sync")["run_id"] is None
    assert profile_ids(project_without_ledger) == {user_id}
    assert "USER_SYNC_DATABASE_URL" in run("sync", "--undo", str(uuid4()), "--yes", exit_code=3).stderr


# sync --no-preserve ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_preview_of_a_refresh_counts_what_the_refresh_then_does(project: Engine) -> None:
    for number in range(3):
        add_user(project, f"{number}@example.com", profile=True)
    add_user(project, "new@example.com")
    execute(project, "UPDATE auth.users SET email = 'later-' || email")
    preview, done = run_json("sync", "--no-preserve", "--dry-run"), run_json("sync", "--no-preserve", "--yes")
    for figure in ("profiles_created", "refreshed_profiles", "failed_creations", "existing_profiles"):
        assert preview[figure] == done[figure]
    assert (done["refreshed_profiles"], done["profiles_created"], preview["dry_run"]) == (3, 1, True)
    assert run_json("sync", "--no-preserve", "--yes")["refreshed_profiles"] == 0


@pytest.mark.slow
def test_a_profile_that_cannot_be_refreshed_is_named_and_the_others_are_refreshed(project: Engine) -> None:
    users = [add_user(project, f"{number}@example.com", profile=True) for number in range(4)]
    execute(project, "UPDATE auth.users SET email = 'later-' || email")
    execute(project, "ALTER TABLE user_profiles ADD CONSTRAINT wanted CHECK (email <> 'later-2@example.com')")
    result = run_json("sync", "--no-preserve", "--yes", exit_code=1)
    reason = "SQLSTATE 23514, constraint wanted"
    assert result["refused_refreshes"] == [{"user_id": str(users[2]), "reason": reason}]
    assert (result["refreshed_profiles"], result["failed_creations"], result["failures"]) == (3, 0, [])
    shown = run("sync", "--no-preserve", "--yes", "--verbose", exit_code=1).stdout
    assert f"Not Refreshed:        1 ({reason})\n" in shown


def test_yes_does_not_help_in_production(project: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_ENVIRONMENT", "production")
    assert "production" in run("sync", "--no-preserve", "--yes", exit_code=2).stderr


# Together ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_syncs_of_two_processes_count_each_profile_once(project: Engine) -> None:
    execute(
        project,
        "INSERT INTO auth.users (id, aud) SELECT gen_random_uuid(), 'authenticated' FROM generate_series(1, 25000)",
    )
    execute(project, "DELETE FROM user_profiles")
    both = [
        subprocess.Popen([USER_SYNC, "sync", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    printed = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(result["profiles_created"] for result in printed) == len(profile_ids(project)) == 25_000
    assert [result["failed_creations"] for result in printed] == [0, 0]
    for result in printed:
        undone = run_json("sync", "--undo", result["run_id"], "--yes")
        assert undone["profiles_removed"] == result["profiles_created"]
    assert profile_ids(project) == set()
