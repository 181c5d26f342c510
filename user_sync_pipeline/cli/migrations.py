"""`user-sync migrate`: the tables, functions and triggers of the pipeline in one's own databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output

if TYPE_CHECKING:
    from user_sync_pipeline.core.warehouse.migrations import MigrationReport


@click.group()
def migrate() -> None:
    """Install the tables that the pipeline needs."""


@migrate.command()
@options.as_json
def apply(as_json: bool) -> None:
    """Apply the migrations that are missing; may be repeated at will."""
    from user_sync_pipeline.core.settings import SupabaseSettings, database_url
    from user_sync_pipeline.core.warehouse.migrations import apply_migrations

    url, profiles_url = database_url(), SupabaseSettings.from_environment().database_url
    with output.Activity("Applying migrations"):
        report = apply_migrations(database_url=url, profiles_url=profiles_url)
    if as_json:
        output.print_json(_as_json(report))
    else:
        _show(report)


def _as_json(report: MigrationReport) -> dict[str, object]:
    return {
        "applied": list(report.applied),
        "present": list(report.present),
        "left_out": [{"name": left_out.name, "reason": left_out.reason} for left_out in report.left_out],
    }


def _show(report: MigrationReport) -> None:
    for name in report.present:
        click.echo(f"present   {name}")
    for name in report.applied:
        click.echo(f"applied   {name}")
    for left_out in report.left_out:
        click.echo(f"left out  {left_out.name}: {left_out.reason}")
