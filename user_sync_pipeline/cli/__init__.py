"""The command line `user-sync`.

What belongs here: the list of commands, loaded one by one as they are asked for, and the one place where an
error becomes a sentence and an exit code. What does not: the commands themselves, one file a group beside this one.
A command function returns its exit code, None standing for 0. Modules here import only what is light at the
top, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from user_sync_pipeline.core.errors import UserSyncError

INTERRUPTED = 128 + signal.SIGINT

# Command -> module beside this one; the function there has the command's name with underscores.
_COMMANDS = {
    "demo": "demo",
    "dev": "dev",
    "sandbox": "sandbox",
    "sync-users": "users",
    "status": "profiles",
    "sync": "profiles",
    "create-profile": "create_profile",
    "migrate": "migrations",
    "doctor": "doctor",
    "serve": "serve",
}


class CommandLine(click.Group):
    """A group whose commands are imported when they are asked for, and whose errors are one sentence each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, None for a name that is not one."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"{__name__}.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line and exit: an error is one sentence on standard error, without Click's usage text."""
        options["standalone_mode"] = False
        try:
            with _signals_end_the_command():
                sys.exit(super().main(*args, **options))
        except UserSyncError as error:
            _exit(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _exit(error.format_message(), error.exit_code)
        except click.Abort:
            _exit("Stopped.", INTERRUPTED)


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="user-sync-pipeline", message="%(prog)s %(version)s")
def main() -> None:
    """Keep Salesforce users, the table sf_users and application profiles in step.

    Settings are environment variables; a file .env in the current folder is read as well.
    Start with: user-sync demo
    """
    from dotenv import load_dotenv

    load_dotenv(Path.cwd() / ".env", override=False)


def _exit(sentence: str, code: int) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(code)


@contextmanager
def _signals_end_the_command() -> Iterator[None]:
    """Make TERM and HUP unwind the stack as Ctrl-C does, so that servers are stopped and the ledger is told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # once is enough; a second one would cut the clean-up short
        sys.exit(128 + number)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in former.items():
        if handler is not signal.SIG_IGN or number is signal.SIGTERM:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
