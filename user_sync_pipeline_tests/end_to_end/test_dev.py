"""The commands that run until Ctrl-C: what they start, and that they leave nothing behind."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline_tests.end_to_end.running_command import SECONDS_TO_STOP, USER_SYNC, RunningCommand
from user_sync_pipeline_tests.orchestration.live_dagster import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc"),
]

SECONDS_TO_START = 150


def processes_of(folder: str) -> dict[int, str]:
    """Every process whose command line or environment names the folder: servers, Dagster, and their children."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if folder.encode() in command + (process / "environ").read_bytes():
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What stops the commands that a test has started, however it ends."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.timeout(SECONDS_TO_START + 60)
def test_the_ui_answers_with_the_pipeline_and_one_interrupt_stops_everything(tmp_path: Path, stack: ExitStack) -> None:
    # Somebody's own settings in the folder where the command is typed must not reach Dagster.
    (tmp_path / ".env").write_text("USER_SYNC_HORIZON=2999-01-01\n")
    port = free_port()
    dev = stack.enter_context(RunningCommand("dev", "--port", str(port), cwd=tmp_path))
    dev.read_until("Ctrl-C")
    said = "".join(dev.said)
    assert f"http://127.0.0.1:{port}" in said
    assert "user_sync" in said

    jobs = """{repositoriesOrError {... on RepositoryConnection {nodes {jobs {name}}}}}"""
    answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": jobs}, timeout=60).json()
    (repository,) = answer["data"]["repositoriesOrError"]["nodes"]
    assert "user_sync" in [job["name"] for job in repository["jobs"]]

    folder = re.search(r"(/\S+)/dagster\.log", said)
    assert folder is not None
    assert len(processes_of(folder[1])) > 3
    second = subprocess.run(
        [USER_SYNC, "dev", "--port", str(port)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    assert f"--port is {port}" in second.stderr

    assert dev.stop(signal.SIGINT) == 130
    assert "Traceback" not in "".join(dev.said)
    assert processes_of(folder[1]) == {}
    assert not Path(folder[1]).exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_writes_its_settings_for_the_owner_alone_and_takes_them_away(
    by: signal.Signals, tmp_path: Path, stack: ExitStack
) -> None:
    settings = tmp_path / ".env"
    command = RunningCommand("sandbox", "--users", "20", "--env-file", ".env", cwd=tmp_path)
    sandbox = stack.enter_context(command)
    sandbox.read_until("Ctrl-C")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600

    loaded = subprocess.run(
        ["sh", "-c", f"set -a; . {settings}; set +a; env"], capture_output=True, text=True, check=True
    ).stdout
    variables = dict(line.split("=", 1) for line in loaded.splitlines() if "=" in line)
    SalesforceSettings.from_environment(variables)
    for secret in ("SALESFORCE_CLIENT_SECRET", "SUPABASE_SERVICE_ROLE_KEY"):
        assert variables[secret] not in "".join(sandbox.said)
    for command in (["migrate", "apply"], ["sync-users", "--mode", "full"], ["sync"], ["status"]):
        ran = subprocess.run([USER_SYNC, *command], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert "Sync Percentage:      100.00%" in ran.stdout

    started = time.monotonic()
    assert sandbox.stop(by) == 128 + by
    assert time.monotonic() - started < SECONDS_TO_STOP
    assert not settings.exists()
    folder = str(Path(variables["SALESFORCE_CA_BUNDLE"]).parents[1])
    assert processes_of(folder) == {}
    assert not Path(folder).exists()
