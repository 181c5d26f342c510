"""Supabase's own tools on a database of ours: its advisors find nothing, and its migrations take our script.

They take node and the npm package `supabase` in the folder that NODE_TOOLS names.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url
from user_sync_pipeline_tests.end_to_end.commands import run

pytestmark = pytest.mark.slow

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def supabase_cli(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """Run the Supabase CLI in a folder; it brings its own binary in its npm package."""
    program = Path(os.environ.get("NODE_TOOLS", "")) / "node_modules/.bin/supabase"
    if not program.exists():
        pytest.skip("NODE_TOOLS names no folder with the npm package `supabase`; .ci/run shows how to make it")
    folder = tmp_path_factory.mktemp("supabase")
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "SUPABASE_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1"}

    def run_tool(*arguments: str, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_tool


@pytest.mark.parametrize("legacy_default_grants", [False, True], ids=["new grants", "legacy grants"])
def test_the_advisors_have_nothing_to_say_that_is_more_than_a_hint(
    supabase_cli: Tool,
    make_supabase_database: Callable[..., str],
    postgres_server: PostgresServer,
    legacy_default_grants: bool,
) -> None:
    url = role_url(postgres_server, make_supabase_database(legacy_default_grants=legacy_default_grants))
    apply_migrations(database_url=url, profiles_url=url)

    result = supabase_cli("db", "advisors", f"--remote={url}", "--type", "all", "--level", "info", "-o", "json")

    assert result.returncode == 0, result.stderr
    # A remark on the connection may stand before the list.
    findings: list[dict[str, Any]] = json.loads(result.stdout[result.stdout.index("[\n") :])
    assert [finding["detail"] for finding in findings if finding["level"] != "INFO"] == []
    # Something was looked at: an index that no query has used yet is always there.
    assert "unused_index" in {finding["name"] for finding in findings}


def test_a_team_with_migrations_of_its_own_can_push_ours_with_them(
    supabase_cli: Tool, supabase_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "supabase/migrations"
    folder.mkdir(parents=True)
    script = run("migrate", "apply", "--side", "profiles", "--sql").stdout
    (folder / "20260101000000_user_profiles.sql").write_text(script)

    pushed = supabase_cli("db", "push", f"--remote={supabase_database}", "--yes", cwd=tmp_path)

    assert pushed.returncode == 0, pushed.stderr
    monkeypatch.setenv("SUPABASE_DB_URL", supabase_database)
    run("migrate", "verify")
    run("migrate", "test")
    assert "present   0002_profiles_side" in run("migrate", "apply", "--side", "profiles").stdout
