"""`user-sync migrate`: the tables, functions and triggers of the pipeline in one's own databases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import PROFILES_SETTING, database
from user_sync_pipeline.core.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from user_sync_pipeline.core.profiles.installation import Deviation
    from user_sync_pipeline.core.warehouse.migrations import MigrationReport

NOT_AS_IT_SHOULD_BE = ConfigurationError.exit_code

_as_script = click.option(
    "--sql", "as_script", is_flag=True, help="Print it as a script for a SQL console; do nothing."
)


@click.group()
def migrate() -> None:
    """Install what the pipeline needs in a database, look after it, and take it away."""


@migrate.command(short_help="Install what is missing, and mend what was changed.")
@click.option(
    "--side",
    type=click.Choice(["salesforce", "profiles"]),
    help="Only sf_users and what belongs to it, or only the profiles.  [default: both]",
)
@_as_script
@options.as_json
def apply(side: str | None, as_script: bool, as_json: bool) -> int:
    """Apply the migrations that are missing, and mend what was changed since; may be repeated at will."""
    from user_sync_pipeline.core.warehouse.migrations import SIDES, apply_migrations, migration_script

    sides = (side,) if side else SIDES
    if as_script:
        _print_script(migration_script("up", sides), as_json)
        return 0

    from user_sync_pipeline.core.settings import database_url

    profiles_url = _profiles_url()
    url = profiles_url if side == "profiles" and profiles_url else database_url()
    with output.Activity("Applying migrations"):
        report = apply_migrations(database_url=url, profiles_url=profiles_url, sides=sides)
        installed = "profiles" in sides and not report.left_out
        mended, left = _mend(profiles_url or url) if installed else ((), ())
    if as_json:
        output.print_json(
            {
                **_as_json(report),
                "mended": [asdict(each) for each in mended],
                "deviations": [asdict(each) for each in left],
            }
        )
    else:
        _show(report)
        for each in mended:
            click.echo(f"mended    {each.name}: {each.problem}")
        _show_deviations(left)
    return NOT_AS_IT_SHOULD_BE if left else 0


@migrate.command(short_help="Say what is wrong, and what mends it.")
@options.as_json
def verify(as_json: bool) -> int:
    """Say whether everything about profiles is there, switched on and unchanged, and what mends it; changes nothing."""
    from user_sync_pipeline.core.profiles.installation import inspect_installation

    with output.Activity("Reading the catalogue"), _profiles_database() as connection:
        found = inspect_installation(connection)
    if as_json:
        output.print_json(
            {
                "ok": not found.deviations,
                "deviations": [asdict(deviation) for deviation in found.deviations],
                "remarks": list(found.remarks),
            }
        )
    else:
        if not found.deviations:
            click.echo("Everything is there, switched on and unchanged.")
        _show_deviations(found.deviations)
        for remark in found.remarks:
            click.echo(f"note      {remark}")
    return NOT_AS_IT_SHOULD_BE if found.deviations else 0


@migrate.command(short_help="Try a sign-up, and leave nothing behind.")
@_as_script
@options.as_json
def test(as_script: bool, as_json: bool) -> int:
    """Sign up somebody who does not exist, look for the profile, and leave nothing behind."""
    from user_sync_pipeline.core.files import named_query

    if as_script:
        _print_script(named_query("probe_sign_up"), as_json)
        return 0

    from user_sync_pipeline.core.profiles.probe import probe_sign_up

    with output.Activity("Signing up a probe"), _profiles_database() as connection:
        probe = probe_sign_up(connection)
    if as_json:
        output.print_json(probe.as_json())
    elif probe.problem is None:
        click.echo("A sign-up makes its profile, and deleting the user takes it along. Nothing was left behind.")
    else:
        click.echo(probe.problem)
    return 0 if probe.problem is None else NOT_AS_IT_SHOULD_BE


@migrate.command(short_help="Switch off what happens at a sign-up, or remove it.")
@click.option("--remove", is_flag=True, help="Take trigger, functions and tables away instead of switching them off.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_script
@options.as_json
def rollback(remove: bool, yes: bool, as_script: bool, as_json: bool) -> int:
    """Switch off what happens at a sign-up: no profile is made any more, and nothing else changes.

    `user-sync migrate apply` switches it on again.
    """
    from user_sync_pipeline.core.warehouse.migrations import migration_script, remove_profiles, switch_off_profiles

    if as_script:
        kinds = ("off", "down") if remove else ("off",)
        _print_script("\n".join(migration_script(kind, ["profiles"]) for kind in kinds), as_json)
        return 0
    url = _profiles_url()
    if url is None:
        raise _no_database()
    if not yes and not _may_roll_back(remove=remove):
        output.say("Nothing was changed.")
        return 0
    is_table_gone = False
    with output.Activity("Rolling back"):
        if remove:
            is_table_gone = remove_profiles(url, setting=PROFILES_SETTING)
        else:
            switch_off_profiles(url, setting=PROFILES_SETTING)
    if as_json:
        output.print_json({"switched_off": True, "removed": remove, "table_kept": not is_table_gone})
    elif not remove:
        click.echo("Sign-ups make no profile any more. To switch them on again: user-sync migrate apply")
    elif is_table_gone:
        click.echo("The profiles side is gone. To install it again: user-sync migrate apply")
    else:
        click.echo(
            "Trigger and functions are gone. public.user_profiles stays: it holds rows that were made or changed by "
            "others. To install the rest again: user-sync migrate apply"
        )
    return 0


def _mend(url: str) -> tuple[tuple[Deviation, ...], tuple[Deviation, ...]]:
    """Mend what applying again mends; returns that, and what is left to a person."""
    from user_sync_pipeline.core.profiles.installation import APPLY, verify_installation
    from user_sync_pipeline.core.warehouse.migrations import mend_profiles

    with _profiles_database(url) as connection:
        before = verify_installation(connection)
        connection.rollback()
        if not any(deviation.mend == APPLY for deviation in before):
            return (), before
        mend_profiles(url, setting=PROFILES_SETTING)
        left = verify_installation(connection)
    return tuple(deviation for deviation in before if deviation not in left), left


def _may_roll_back(*, remove: bool) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("migrate rollback asks before it changes anything; run it in a terminal, or add --yes.")
    question = "Take away trigger, functions and tables of the profiles side" if remove else "Switch off profiles"
    return click.confirm(f"{question}? Sign-ups go on without them.", err=True)


@contextmanager
def _profiles_database(url: str | None = None) -> Iterator[Connection]:
    url = url or _profiles_url()
    if url is None:
        raise _no_database()
    with database(url, PROFILES_SETTING) as engine, engine.connect() as connection:
        yield connection


def _profiles_url() -> str | None:
    from user_sync_pipeline.core.settings import SupabaseSettings

    return SupabaseSettings.from_environment().database_url


def _no_database() -> ConfigurationError:
    return ConfigurationError(
        "SUPABASE_DB_URL is not set; put the address of the database with auth.users there. "
        "Without one, --sql prints a script for the SQL console of the project."
    )


def _print_script(script: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"sql": script})
    else:
        click.echo(script, nl=False)


def _as_json(report: MigrationReport) -> dict[str, Any]:
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


def _show_deviations(deviations: tuple[Deviation, ...]) -> None:
    for deviation in deviations:
        click.echo(f"wrong     {deviation.name}: {deviation.problem}")
        click.echo(f"          mend it: {deviation.mend}")
