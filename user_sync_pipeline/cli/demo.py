"""`user-sync demo`: everything on the sandbox, from empty tables to the report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import database, profile_directory
from user_sync_pipeline.cli.sandbox import start_sandbox

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from user_sync_pipeline.cli.demo_run import JobReport
    from user_sync_pipeline.sandbox.servers import Sandbox


@click.command()
@options.users
@options.as_json
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep everything in this folder for the next time.",
)
def demo(users: int | None, as_json: bool, keep: Path | None) -> int:
    """See the whole pipeline at work on invented people."""
    with ExitStack() as stack:
        servers = start_sandbox(stack, users, keep)
        stack.enter_context(_environment(servers.environment))
        migrate_sandbox(servers)
        engine = stack.enter_context(database(servers.database_url))
        report = _run_job(servers, engine)
        # A warning is for somebody to look at: people who have left and can sign in are invented, to be found.
        passed = all(check.passed or check.severity == "WARN" for check in report.checks)
        _show(servers, engine, report, as_json=as_json, keep=keep)
    return 0 if passed else 1


def migrate_sandbox(servers: Sandbox) -> None:
    """Apply the migrations to a sandbox and say so."""
    from user_sync_pipeline.core.warehouse.migrations import apply_migrations

    with output.Activity("Applying migrations") as activity:
        report = apply_migrations(database_url=servers.database_url, profiles_url=None)
    was = "applied" if report.applied else "there already"
    output.say_done(activity.seconds, f"Migrations {was}: {', '.join(report.applied or report.present)}")


def _run_job(servers: Sandbox, engine: Engine) -> JobReport:
    with output.Activity("Loading Dagster") as activity:
        from user_sync_pipeline.cli import demo_run
    output.say_done(activity.seconds, "Dagster and the pipeline loaded")

    def step_done(asset: str, report: JobReport) -> None:
        output.say_done(report.seconds[asset], _describe(asset, report))

    with output.Activity("Starting the job user_sync") as activity:
        watching = demo_run.watching_the_landing(engine, lambda rows: activity.update(rows, servers.users))
        with watching:
            days = _days(servers, engine)
            report = demo_run.run_user_sync(*days, step_started=activity.begin, step_done=step_done)
    output.say_done(report.seconds_of_checks, f"checks: {len(report.checks)} run")
    return report


def _days(servers: Sandbox, engine: Engine) -> tuple[date, date]:
    """Return the days to run: all of them at first, later those since the watermark."""
    from user_sync_pipeline.core.settings import horizon
    from user_sync_pipeline.core.warehouse.ledger import read_watermark

    with engine.connect() as connection:
        watermark = read_watermark(connection, servers.salesforce.org.id)
    first = horizon()
    return (first if watermark is None else max(first, watermark.date())), datetime.now(UTC).date()


def _describe(asset: str, report: JobReport) -> str:
    figures = report.figures[asset]
    if asset == "salesforce_users_raw":
        return f"{asset}: {figures['fetched']:,} users fetched with {figures['api_calls']:,} API calls"
    if asset == "sf_users":
        return (
            f"{asset}: {figures['inserted']:,} inserted, {figures['updated']:,} updated, "
            f"{figures['unchanged']:,} unchanged"
        )
    return f"{asset}: {figures['profiles_created']:,} profiles created, {figures['findings']:,} findings to look at"


def _show(servers: Sandbox, engine: Engine, report: JobReport, *, as_json: bool, keep: Path | None) -> None:
    from user_sync_pipeline.cli import demo_report
    from user_sync_pipeline.core.profiles.report import format_status

    with profile_directory() as directory:
        status = directory.status()
    if not as_json:
        demo_report.show_checks(report.checks)
        demo_report.show_first_rows(engine)
        click.echo()
        click.echo(format_status(status))
        demo_report.show_next(shlex.quote(str(keep)) if keep else None)
        return
    raw = report.figures["salesforce_users_raw"]
    output.print_json(
        {
            "sync_users": demo_report.read_sync_users_result(engine, raw).as_json(),
            "sync": report.figures["profile_reconciliation"]["sync"],
            "status": status.as_json(),
            "checks": [check.as_json() for check in report.checks],
            "database_url": servers.database_url,
        }
    )


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Point this process at the sandbox: Dagster's resources read the environment, as they do everywhere else."""
    former = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
