"""Typing a command, and looking at what came of it."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from user_sync_pipeline.cli import main


def run(*arguments: str, exit_code: int | None = 0) -> Result:
    """Run `user-sync` with these arguments; None for an exit code that is not known beforehand."""
    result = CliRunner().invoke(main, arguments)
    assert exit_code in (None, result.exit_code), result.output
    return result


def run_json(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(run(*arguments, "--json", exit_code=exit_code).stdout)
    return printed


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
