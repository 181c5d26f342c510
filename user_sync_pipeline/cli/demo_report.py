"""What `user-sync demo` shows at the end: results of the run, checks, first rows of the tables, what to type next.

What belongs here: reading the ledger and the tables, and putting them on the screen.
What does not: starting servers (`sandbox.py`) and running the job (`demo_run.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import Engine, text

from user_sync_pipeline.cli import output
from user_sync_pipeline.core.certificate import Certificate
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.user_sync import LandingResult, SyncUsersResult
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    from user_sync_pipeline.cli.demo_run import Check

_RUN = text("""
    SELECT run.*, extract(epoch FROM run.finished_at - run.started_at)::float AS seconds, stored.watermark
    FROM user_sync.sync_runs AS run LEFT JOIN user_sync.watermarks AS stored USING (org_id)
    WHERE run.run_id = :run_id
""")
# Both by name, so that the same people show up in both.
_FIRST_ROWS = {
    "sf_users": """
        SELECT name, email, title, is_active, system_modstamp::date AS last_change
        FROM public.sf_users ORDER BY name, id LIMIT 5
    """,
    "user_profiles": """
        SELECT full_name, email, role, source, created_at::date AS created
        FROM public.user_profiles ORDER BY full_name, id LIMIT 5
    """,
}


def read_sync_users_result(engine: Engine, figures: Mapping[str, Any]) -> SyncUsersResult:
    """Return what the ledger holds about a run; `figures` are those of `salesforce_users_raw`."""
    with engine.connect() as connection:
        run = connection.execute(_RUN, {"run_id": figures["sync_run_id"]}).one()
    usage = ApiUsage()
    usage.calls, usage.used, usage.limit = run.api_calls, figures.get("api_used"), figures.get("api_limit")
    certificate = Certificate.from_json(run.certificate)
    landing = LandingResult(
        run.run_id,
        run.mode,
        SyncWindow(run.since, run.until),
        run.read_until,
        usage,
        fetched=run.fetched,
        held_reason=run.held_reason,
        resumed=run.resumed > 0,
        transport=certificate.transport,
        certificate=certificate,
    )
    counts = MergeCounts(run.inserted, run.updated, run.unchanged, run.rejected)
    return SyncUsersResult(landing, counts, run.watermark, run.seconds)


def show_checks(checks: Sequence[Check]) -> None:
    """Print each check with its outcome and, where it did not pass, what to do."""
    rows = [
        (check.name, check.asset, "passed" if check.passed else check.severity.lower(), check.description or "")
        for check in checks
    ]
    output.print_table("Checks", ("check", "of", "outcome", "what to do" if any(row[-1] for row in rows) else ""), rows)


def show_first_rows(engine: Engine) -> None:
    """Print the first rows of the two tables that people use; everybody in them is invented."""
    for table, query in _FIRST_ROWS.items():
        with engine.connect() as connection:
            total = connection.scalar(text(f"SELECT count(*) FROM public.{table}"))
            rows = connection.execute(text(query))
            output.print_table(f"{table}, first rows of {total:,}", tuple(rows.keys()), rows.all())


def show_next(keep: str | None) -> None:
    """Print what to type next."""
    again = f"user-sync demo --keep {keep}" if keep else "user-sync demo --keep ./demo"
    meaning = "once more: what did not change is not fetched again" if keep else "keep it, and run it twice"
    steps = {
        "user-sync dev": "the same in the Dagster UI, ready to click",
        again: meaning,
        "user-sync --help": "everything else; settings for your own systems are in the README",
    }
    width = max(len(command) for command in steps)
    click.echo("\nType next")
    for command, what in steps.items():
        click.echo(f"  {command:<{width}}  {what}")
