"""`migrate apply`, `verify`, `test` and `rollback`, as a person types them or pastes what they print."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.end_to_end.commands import run, run_json

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
SIGN_UP = "INSERT INTO auth.users (id, aud, email) VALUES (gen_random_uuid(), 'authenticated', 'a@example.com')"

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def supabase(supabase_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a Supabase database before any migration; the settings lead there."""
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", supabase_database)
    return supabase_database


@pytest.fixture
def migrated(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a migrated Supabase database; the settings lead there."""
    monkeypatch.setenv("SUPABASE_DB_URL", migrated_database)
    return migrated_database


@pytest.fixture
def owner_of_auth(migrated: str, postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url(make_url(migrated).database), autocommit=True) as connection:
        yield connection


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def paste(url: str, script: str) -> None:
    """Run a script as a SQL console does: as one text."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())


@pytest.mark.slow
def test_apply_verify_test_and_rollback_one_after_the_other(supabase: str) -> None:
    assert run("migrate", "verify", exit_code=3).stdout.splitlines() == [
        "wrong     profiles side: is not installed",
        "          mend it: user-sync migrate apply",
    ]
    assert "applied   0002_profiles_side" in run("migrate", "apply").stdout
    assert run("migrate", "verify").stdout == "Everything is there, switched on and unchanged.\n"
    assert run("migrate", "test").stdout.startswith("A sign-up makes its profile")
    assert run("migrate", "rollback", "--yes").stdout.startswith("Sign-ups make no profile any more.")
    assert run("migrate", "test", exit_code=3).stdout.startswith("The sign-up went through without a profile")
    assert "mended    function app_private.handle_new_auth_user" in run("migrate", "apply").stdout
    assert run("migrate", "rollback", "--remove", "--yes").stdout.startswith("The profiles side is gone.")
    ask(supabase, f"{SIGN_UP} RETURNING id")
    assert "applied   0002_profiles_side" in run("migrate", "apply").stdout
    assert run_json("migrate", "verify") == {"ok": True, "deviations": [], "remarks": []}


def test_the_probe_leaves_nothing_behind(migrated: str, owner_of_auth: psycopg.Connection) -> None:
    counters = "SELECT relname || coalesce(pg_sequence_last_value(oid), 0) FROM pg_class WHERE relkind = 'S' ORDER BY 1"
    rows = """
        SELECT (SELECT count(*) FROM auth.users) + (SELECT count(*) FROM public.user_profiles)
             + (SELECT count(*) FROM app_private.profile_failures)
    """
    before = owner_of_auth.execute(counters.encode()).fetchall()
    assert run_json("migrate", "test") == {
        "ok": True,
        "sign_up_went_through": True,
        "profile_seen": True,
        "profile_went_with_its_user": True,
        "problem": None,
    }
    owner_of_auth.execute("ALTER TABLE public.user_profiles ADD team text NOT NULL")
    failed = run_json("migrate", "test", exit_code=3)
    assert "23502" in failed["problem"]
    assert ask(migrated, rows) == 0
    assert owner_of_auth.execute(counters.encode()).fetchall() == before


def test_the_probe_tells_of_a_trigger_of_others_that_stops_sign_ups(owner_of_auth: psycopg.Connection) -> None:
    owner_of_auth.execute(
        """
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
        CREATE TRIGGER refuse AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.refuse();
        """
    )
    assert run_json("migrate", "test", exit_code=3)["problem"] == "The sign-up itself was refused (SQLSTATE P0001)."
    assert "refuse on auth.users" in run("migrate", "verify").stdout


@pytest.mark.slow
def test_a_trigger_that_was_lost_is_put_back_by_apply(owner_of_auth: psycopg.Connection) -> None:
    owner_of_auth.execute("DROP TRIGGER on_auth_user_created ON auth.users")
    found = run_json("migrate", "verify", exit_code=3)
    assert [deviation["mend"] for deviation in found["deviations"]] == ["user-sync migrate apply"]
    mended = run_json("migrate", "apply", "--side", "profiles")
    assert mended["mended"] == found["deviations"]
    assert mended["deviations"] == []


def test_what_apply_cannot_mend_is_left_to_a_person_and_told(migrated: str, owner_of_auth: psycopg.Connection) -> None:
    owner_of_auth.execute("ALTER TABLE public.user_profiles ADD team text NOT NULL")
    result = run("migrate", "apply", "--side", "profiles", exit_code=3)
    [statement] = [line.split("mend it: ")[1] for line in result.stdout.splitlines() if "mend it: " in line]
    paste(migrated, statement)
    run("migrate", "verify")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    ["UPDATE public.user_profiles SET source = 'manual'", "UPDATE public.user_profiles SET full_name = 'Ada'"],
    ids=["an application made it", "an application changed it"],
)
def test_removal_keeps_the_table_while_it_holds_what_the_pipeline_did_not_make(migrated: str, change: str) -> None:
    paste(migrated, f"{SIGN_UP}")
    paste(migrated, change)
    assert run_json("migrate", "rollback", "--remove", "--yes") == {
        "switched_off": True,
        "removed": True,
        "table_kept": True,
    }
    assert ask(migrated, "SELECT count(*) FROM public.user_profiles") == 1
    assert ask(migrated, "SELECT to_regproc('app_private.handle_new_auth_user')") is None
    run("migrate", "apply", "--side", "profiles")
    run("migrate", "verify")


def test_removal_is_refused_with_the_reason_when_something_else_needs_the_table(migrated: str) -> None:
    paste(migrated, "CREATE VIEW public.names AS SELECT full_name FROM public.user_profiles")
    result = run("migrate", "rollback", "--remove", "--yes", exit_code=3)
    assert "cannot drop table user_profiles because other objects depend on it" in result.stderr
    assert ask(migrated, "SELECT count(*) FROM public.names") == 0


def test_what_is_left_of_a_broken_installation_can_be_removed(migrated: str) -> None:
    paste(migrated, "DROP TABLE public.user_profiles; DROP FUNCTION public.profile_sync_report()")
    assert run_json("migrate", "rollback", "--remove", "--yes")["table_kept"] is False
    assert [each["problem"] for each in run_json("migrate", "verify", exit_code=3)["deviations"]] == [
        "is not installed"
    ]


def test_rolling_back_asks_first(migrated: str) -> None:
    assert "add --yes" in run("migrate", "rollback", exit_code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "count"), [(b"n\n", 1), (b"y\n", 0)])
def test_in_a_terminal_a_person_decides(migrated: str, answer: bytes, count: int) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([USER_SYNC, "migrate", "rollback"], stdin=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, answer)
        assert process.wait(120) == 0
    os.close(ours)
    paste(migrated, SIGN_UP)
    assert ask(migrated, "SELECT count(*) FROM public.user_profiles") == count


def test_there_is_nothing_to_roll_back_before_apply(supabase: str) -> None:
    assert "there is nothing to undo" in run("migrate", "rollback", "--yes", exit_code=3).stderr


def test_without_a_database_one_hears_which_setting_is_missing() -> None:
    for command in ("verify", "test", "rollback"):
        assert "SUPABASE_DB_URL is not set" in run("migrate", command, exit_code=3).stderr


@pytest.mark.slow
def test_a_project_can_be_served_by_scripts_alone(supabase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USER_SYNC_DATABASE_URL")
    scripts = {
        name: run("migrate", *arguments, "--sql").stdout
        for name, arguments in {
            "apply": ("apply",),
            "apply profiles": ("apply", "--side", "profiles"),
            "test": ("test",),
            "switch off": ("rollback",),
            "remove": ("rollback", "--remove"),
        }.items()
    }
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", supabase)

    paste(supabase, scripts["apply"])
    paste(supabase, scripts["apply profiles"])
    assert run_json("migrate", "apply")["present"] == ["0001_salesforce_side", "0002_profiles_side"]
    run("migrate", "verify")
    paste(supabase, scripts["test"])
    paste(supabase, scripts["switch off"])
    run("migrate", "verify", exit_code=3)
    paste(supabase, scripts["remove"])
    assert run_json("migrate", "apply")["applied"] == ["0002_profiles_side"]


def test_the_script_of_the_probe_answers_in_the_console(migrated: str) -> None:
    script = run_json("migrate", "test", "--sql")["sql"]
    with psycopg.connect(migrated, autocommit=True) as connection:
        cursor = connection.execute(script.encode())
        cursor.nextset()
        row = cursor.fetchone()
    assert row is not None
    assert json.loads(row[0])["profile_seen"] is True
    assert ask(migrated, "SELECT count(*) FROM auth.users") == 0


def test_a_table_of_another_shape_is_refused_before_anything_is_touched(supabase: str) -> None:
    paste(supabase, "CREATE TABLE public.user_profiles (user_id uuid PRIMARY KEY, mail text NOT NULL)")
    result = run("migrate", "apply", "--side", "profiles", exit_code=3)
    assert "has the columns: user_id uuid NOT NULL, mail text NOT NULL" in result.stderr
    assert "docs/migrations.md" in result.stderr
    assert ask(supabase, "SELECT to_regnamespace('app_private')") is None


@pytest.mark.slow
def test_a_table_that_was_there_is_adopted_by_the_statements_that_verify_names(supabase: str) -> None:
    paste(
        supabase,
        """
        CREATE TABLE public.user_profiles (id uuid PRIMARY KEY, email varchar(80) NOT NULL, theme text DEFAULT 'dark');
        INSERT INTO auth.users (id, aud, email) VALUES (gen_random_uuid(), 'authenticated', 'a@example.com');
        INSERT INTO public.user_profiles (id, email) SELECT id, email FROM auth.users;
        """,
    )
    for _ in range(3):
        found = run_json("migrate", "verify", exit_code=3)["deviations"]
        for deviation in found:
            if deviation["mend"].endswith(";"):
                paste(supabase, deviation["mend"])
    run("migrate", "apply", "--side", "profiles")
    run("migrate", "verify")
    assert "profile" in run("migrate", "test").stdout
    assert ask(supabase, "SELECT email || theme || role || source FROM public.user_profiles") == (
        "a@example.comdarkusermanual"
    )
    assert run_json("migrate", "rollback", "--remove", "--yes")["table_kept"] is True
