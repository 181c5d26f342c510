"""`user-sync dev`: the Dagster UI on the sandbox, with history in Postgres; one Ctrl-C stops all of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.demo import migrate_sandbox
from user_sync_pipeline.cli.sandbox import start_sandbox
from user_sync_pipeline.core.errors import UnreachableError, UsageError

HOST = "127.0.0.1"
DEFAULT_PORT = 3000
SECONDS_TO_START = 120.0
# Dagster takes about four seconds to stop its own processes; what is left after this is killed.
SECONDS_TO_STOP = 8.0
_LOG_LINES_SHOWN = 15
_DAGSTER_ENVIRONMENT = {
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}


@click.command()
@click.option(
    "--port",
    type=options.WholeNumber(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    metavar="P",
    help="Where the UI answers on this machine.",
)
def dev(port: int) -> None:
    """Open the Dagster UI on the stand-ins of the demo."""
    _refuse_taken(port)
    with ExitStack() as stack:
        servers = start_sandbox(stack, None)
        migrate_sandbox(servers)
        log = servers.folder / "dagster.log"
        home = _dagster_home(servers.folder)
        variables = {**os.environ, **servers.environment, **_DAGSTER_ENVIRONMENT, "DAGSTER_HOME": str(home)}
        with output.Activity("Starting Dagster") as activity:
            dagster = stack.enter_context(_dagster(port, home, variables, log))
            _wait_for_ui(port, dagster, log)
        output.say_done(activity.seconds, f"Dagster started; its log: {log}")
        output.say()
        output.say(f"  Open   http://{HOST}:{port}")
        output.say("  Press  Jobs → user_sync → Materialize all…, All, Launch backfill")
        output.say()
        output.say("Ctrl-C here stops everything and forgets it.")
        dagster.wait()
        raise UnreachableError(f"Dagster stopped by itself; it said last:\n{_end_of(log)}")


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(f"--port is {port}, which cannot be used ({error.strerror}); choose another.") from error


def _dagster_home(folder: Path) -> Path:
    """Make the folder that Dagster calls home, with the instance settings that ship with the package."""
    from user_sync_pipeline.core.files import shipped_path

    home = folder / "dagster"
    home.mkdir()
    shutil.copy(shipped_path("dagster.yaml"), home / "dagster.yaml")
    return home


@contextmanager
def _dagster(port: int, home: Path, variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dagster dev` as the head of a process group of its own, and stop the whole group at the end."""
    # A signal that this process ignores, as in the background of a script, would be ignored by the child as
    # well, and Dagster could not be stopped. A handler is not handed on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "user_sync_pipeline.definitions"]
    with log.open("wb") as lines:
        child = subprocess.Popen(  # noqa: S603
            [*command, "-h", HOST, "-p", str(port)],
            cwd=home,  # a .env of the person's own folder would be read as well
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield child
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    from user_sync_pipeline.sandbox.servers import undisturbed

    with output.Activity("Stopping Dagster"), undisturbed():
        # Asked politely, Dagster ends its webserver, daemon and code servers; what then remains of the group is not.
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_TO_STOP)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait_for_ui(port: int, dagster: subprocess.Popen[bytes], log: Path) -> None:
    import requests

    deadline = time.monotonic() + SECONDS_TO_START
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline and dagster.poll() is None:
            with suppress(requests.RequestException):
                if session.get(f"http://{HOST}:{port}/server_info", timeout=2).ok:
                    return
            time.sleep(0.2)
    raise UnreachableError(f"Dagster does not answer on port {port}; it said last:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:])
