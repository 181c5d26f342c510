"""`user-sync demo`: the whole pipeline on a sandbox, once and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from user_sync_pipeline_tests.conftest import assert_only_read

pytestmark = pytest.mark.slow

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
USERS = 80
CHECKS = [
    "api_reserve_kept",
    "auth_trigger_installed",
    "external_ids_unique",
    "leavers_cannot_sign_in",
    "no_orphan_profiles",
    "no_rejected_records",
    "null_rates_steady",
    "salesforce_count_matches",
    "salesforce_fields_unchanged",
    "sync_percentage",
    "table_columns_unchanged",
    "watermark_is_recent",
    "window_read_whole",
]


def run(*arguments: str, settings: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [USER_SYNC, "demo", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(settings or {})})
    assert_only_read(ran.stderr)
    return ran


def run_json(*arguments: str, settings: dict[str, str] | None = None) -> dict[str, Any]:
    ran = run(*arguments, "--json", settings=settings)
    assert ran.returncode == 0, ran.stderr
    printed: dict[str, Any] = json.loads(ran.stdout)
    return printed


def test_a_second_demo_on_the_kept_folder_fetches_and_changes_nothing(server_folder: Path) -> None:
    keep = str(server_folder / "kept-demo")
    # Settings of real systems, left in the shell of whoever tries the demo, must not get into it.
    foreign = {"SALESFORCE_ACCESS_TOKEN": "token", "SALESFORCE_INSTANCE_URL": "https://127.0.0.1:1"}
    first = run_json("--users", str(USERS), "--keep", keep, settings=foreign)
    assert list(first) == ["sync_users", "sync", "status", "checks", "database_url"]
    assert (first["sync_users"]["mode"], first["sync_users"]["complete"]) == ("full", True)
    assert first["sync_users"]["fetched"] == first["sync_users"]["inserted"] == USERS
    assert first["sync"]["profiles_created"] == first["status"]["total_user_profiles"] > 0
    assert first["status"]["sync_percentage"] == 100
    assert sorted(check["name"] for check in first["checks"]) == CHECKS
    assert all(check["passed"] for check in first["checks"])
    (counted,) = (check for check in first["checks"] if check["name"] == "salesforce_count_matches")
    assert counted["metadata"]["salesforce_count"] == counted["metadata"]["sf_users_rows"] == USERS

    second = run_json("--keep", keep)
    done = second["sync_users"]
    assert (done["fetched"], done["inserted"], done["updated"]) == (0, 0, 0)
    assert second["sync"]["profiles_created"] == 0
    assert second["status"] == first["status"]
    assert all(check["passed"] for check in second["checks"])

    other_number = run("--keep", keep, "--users", "5")
    assert other_number.returncode == 2
    assert "made with 80 users" in other_number.stderr


def test_people_see_steps_checks_tables_the_status_and_what_to_type_next() -> None:
    ran = run("--users", str(USERS))
    assert ran.returncode == 0, ran.stderr
    for step in (f"{USERS} users", "Migrations applied", "salesforce_users_raw", "sf_users", "profile_reconciliation"):
        assert step in ran.stderr
    parts = [
        "Checks",
        "sf_users, first rows",
        "user_profiles, first rows",
        "=== User Synchronization Status ===",
        "Type next",
    ]
    positions = [ran.stdout.index(part) for part in parts]
    assert positions == sorted(positions)
    assert ran.stdout.count("passed") == len(CHECKS)
    assert "Sync Percentage:      100.00%" in ran.stdout
    assert "Traceback" not in ran.stderr
