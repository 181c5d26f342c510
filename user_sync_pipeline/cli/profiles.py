"""`user-sync status` and `user-sync sync`: application profiles against those who can sign in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import UUID

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import NO_LEDGER, profile_directory, profile_ledger
from user_sync_pipeline.core.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from user_sync_pipeline.core.profiles.reconcile import ProfileProgress
    from user_sync_pipeline.core.profiles.report import ProfileSyncResult

_STARTED_BY = "user-sync sync"

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
@click.option(
    "--undo",
    type=options.UuidValue("run", "it is printed by the sync"),
    metavar="RUN",
    help="Take the sync of that run back, as far as nobody changed its profiles since; asks before it does.",
)
@click.option("--yes", is_flag=True, help="Do not ask, for scripts.")
@_verbose
@options.as_json
def sync(dry_run: bool, no_preserve: bool, undo: UUID | None, yes: bool, verbose: bool, as_json: bool) -> int:
    """Create the missing profiles; existing ones stay as they are."""
    if undo is not None:
        if dry_run or no_preserve:
            raise UsageError("--undo goes with neither --dry-run nor --no-preserve; leave them out.")
        return _undo(undo, yes=yes, as_json=as_json)
    if no_preserve and not _refreshing_is_allowed(dry_run=dry_run, yes=yes):
        output.say("Nothing was changed.")
        return 0

    from user_sync_pipeline.core.profiles.reconcile import sync_profiles
    from user_sync_pipeline.core.profiles.report import format_summary

    with (
        output.Activity("Creating profiles") as activity,
        profile_directory() as directory,
        profile_ledger(_STARTED_BY) as ledger,
    ):
        if ledger is None and not dry_run:
            output.say(f"{NO_LEDGER}; this sync cannot be undone.")

        def listen(progress: ProfileProgress) -> None:
            activity.update(progress.done, progress.total)

        result = sync_profiles(directory, dry_run=dry_run, preserve=not no_preserve, progress=listen, ledger=ledger)
    _say_how_to_undo(result)
    if as_json:
        output.print_json(result.as_json())
    else:
        click.echo(format_summary(result, verbose))
    return 1 if result.failures or result.refused_refreshes else 0


def _undo(run_id: UUID, *, yes: bool, as_json: bool) -> int:
    question = "Remove the profiles that this run made, and give those that it refreshed their former e-mail and phone?"
    if not _is_agreed(question, "--undo removes and changes profiles", yes=yes):
        output.say("Nothing was changed.")
        return 0

    from user_sync_pipeline.core.profiles.undo import undo_sync

    with (
        output.Activity("Undoing"),
        profile_directory() as directory,
        profile_ledger(_STARTED_BY) as ledger,
    ):
        if ledger is None:
            raise ConfigurationError(f"{NO_LEDGER}, which --undo needs; set it as it was when the sync ran.")
        result = undo_sync(directory, ledger, run_id)
    if as_json:
        output.print_json(result.as_json())
    else:
        click.echo(result.for_people())
    return 0


def _say_how_to_undo(result: ProfileSyncResult) -> None:
    if result.run_id is not None and (result.profiles_created or result.refreshed_profiles):
        output.say(f"To take this back: user-sync sync --undo {result.run_id}")


def _refreshing_is_allowed(*, dry_run: bool, yes: bool) -> bool:
    """Ask the person before existing profiles are changed; raises `UsageError` where that may not be."""
    from user_sync_pipeline.core.settings import environment_name

    if environment_name() == "production":
        raise UsageError(
            "--no-preserve changes existing profiles and is refused while USER_SYNC_ENVIRONMENT is production; "
            "leave it out."
        )
    question = "Refresh e-mail and phone of existing profiles from the users who can sign in?"
    return dry_run or _is_agreed(question, "--no-preserve changes existing profiles", yes=yes)


def _is_agreed(question: str, what: str, *, yes: bool) -> bool:
    """Ask the person at the terminal; raises `UsageError` where nobody is there to answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{what} and asks before it does; run it in a terminal, or add --yes.")
    return click.confirm(question, err=True)
