"""`user-sync create-profile`: the profile of one user, with a role of one's choice."""

from __future__ import annotations

from uuid import UUID

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import NO_LEDGER, profile_directory, profile_ledger
from user_sync_pipeline.core.errors import UsageError


@click.command("create-profile")
@click.argument("user_id", type=options.UuidValue("user", "it stands in auth.users"))
@click.option("--role", metavar="ROLE", help="What the profile may do: user or admin.  [default: user]")
@options.as_json
def create_profile(user_id: UUID, role: str | None, as_json: bool) -> int:
    """Create the profile of one user who can sign in; an existing one stays as it is."""
    from user_sync_pipeline.core.profiles.directory import DEFAULT_ROLE, ROLES
    from user_sync_pipeline.core.profiles.single import create_single_profile

    if role is not None and role not in ROLES:
        raise UsageError(f"--role is {role!r}; give one of {', '.join(ROLES)}.")
    with (
        output.Activity("Creating the profile"),
        profile_directory() as directory,
        profile_ledger("user-sync create-profile") as ledger,
    ):
        result = create_single_profile(directory, user_id, role=role or DEFAULT_ROLE, ledger=ledger)
    if result.created and result.run_id is None:
        output.say(f"{NO_LEDGER}; this cannot be undone.")
    if as_json:
        output.print_json(result.as_json())
    else:
        click.echo(result.sentence())
    return 0 if result.failure is None else 1
