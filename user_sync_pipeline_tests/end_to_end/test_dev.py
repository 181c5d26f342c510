"""The commands that run until Ctrl-C: what they start, and that they leave nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline_tests.conftest import assert_only_read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc"),
]

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
SECONDS_TO_START = 150
SECONDS_TO_STOP = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


class Command:
    """A running `user-sync`, whose standard error is read line by line."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        command = [USER_SYNC, *arguments]
        self.process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.said: list[str] = []

    def read_until(self, words: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return
        pytest.fail("".join(self.said))

    def stop(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        code = self.process.wait(SECONDS_TO_STOP)
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)
        self.process.stderr.close()
        assert_only_read("".join(self.said))
        return code


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[list[Command]]:
    started: list[Command] = []
    yield started
    for command in started:
        if command.process.poll() is None:
            command.stop(signal.SIGTERM)


@pytest.mark.timeout(SECONDS_TO_START + 60)
def test_the_ui_answers_with_the_pipeline_and_one_interrupt_stops_everything(
    tmp_path: Path, commands: list[Command]
) -> None:
    # Somebody's own settings in the folder where the command is typed must not reach Dagster.
    (tmp_path / ".env").write_text("USER_SYNC_HORIZON=2999-01-01\n")
    port = free_port()
    dev = Command("dev", "--port", str(port), cwd=tmp_path)
    commands.append(dev)
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
    by: signal.Signals, tmp_path: Path, commands: list[Command]
) -> None:
    settings = tmp_path / ".env"
    sandbox = Command("sandbox", "--users", "20", "--env-file", ".env", cwd=tmp_path)
    commands.append(sandbox)
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
