"""`user-sync status` and `user-sync sync`: application profiles against those who can sign in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import profile_directory
from user_sync_pipeline.core.errors import UsageError

if TYPE_CHECKING:
    from user_sync_pipeline.core.profiles.reconcile import ProfileProgress

_verbose = click.option("--verbose", is_flag=True, help="Also say how it was counted, and what else was found.")


@click.command()
@options.as_json
@_verbose
def status(as_json: bool, verbose: bool) -> None:
    """Show how many who can sign in have a profile."""
    from user_sync_pipeline.core.profiles.report import format_status

    with output.Activity("Counting users and profiles"), profile_directory() as directory:
        figures = directory.status()
    if as_json:
        output.print_json(figures.as_json())
    else:
        click.echo(format_status(figures, verbose))


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@click.option(
    "--no-preserve", is_flag=True, help="Also refresh e-mail and phone of existing profiles; asks before it does."
)
@_verbose
@options.as_json
def sync(dry_run: bool, no_preserve: bool, verbose: bool, as_json: bool) -> int:
    """Create the missing profiles; existing ones stay as they are."""
    if no_preserve and not _refreshing_is_allowed(dry_run=dry_run):
        output.say("Nothing was changed.")
        return 0

    from user_sync_pipeline.core.profiles.reconcile import sync_profiles
    from user_sync_pipeline.core.profiles.report import format_summary

    with output.Activity("Creating profiles") as activity, profile_directory() as directory:

        def listen(progress: ProfileProgress) -> None:
            activity.update(progress.done, progress.total)

        result = sync_profiles(directory, dry_run=dry_run, preserve=not no_preserve, progress=listen)
    if as_json:
        output.print_json(result.as_json())
    else:
        click.echo(format_summary(result, verbose))
    return 1 if result.failed_creations else 0


def _refreshing_is_allowed(*, dry_run: bool) -> bool:
    """Ask the person before existing profiles are changed; raises `UsageError` where that may not be."""
    from user_sync_pipeline.core.settings import environment_name

    if environment_name() == "production":
        raise UsageError(
            "--no-preserve changes existing profiles and is refused while USER_SYNC_ENVIRONMENT is production; "
            "leave it out."
        )
    if dry_run:
        return True
    if not sys.stdin.isatty():
        raise UsageError("--no-preserve asks before it changes existing profiles; run it in a terminal.")
    return click.confirm("Refresh e-mail and phone of existing profiles from the users who can sign in?", err=True)
