"""The dashboard's question, put to a real webserver with real daemons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from user_sync_pipeline.health.dagster import ASSETS, DagsterExamination
from user_sync_pipeline.health.report import Report
from user_sync_pipeline_tests.orchestration.live_dagster import free_port

# Webserver, code server and daemons start one after the other, on a machine that may be busy.
SECONDS_TO_START = 240
SECONDS_TO_STOP = 15

Start = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Run a program of Dagster in a process group of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def run(program: str, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / program), *arguments]
        variables = {**os.environ, "DAGSTER_HOME": str(home)}
        with (home / f"{program}-{len(running)}.log").open("wb") as log:
            running.append(subprocess.Popen(command, cwd=home, env=variables, stdout=log, stderr=log, process_group=0))

    yield run
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_STOP)
        with suppress(ProcessLookupError):  # what it started itself, or all of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(examination: DagsterExamination, wanted: Callable[[Report], bool]) -> Report:
    deadline = time.monotonic() + SECONDS_TO_START
    while not wanted(report := examination()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return report


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS_TO_START + 120)
def test_a_real_dagster_is_told_as_it_is(home: Path, start: Start) -> None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("sf_users"))

    port, other_port = free_port(), free_port()
    ours = ("-m", "user_sync_pipeline.definitions")
    start("dagster-webserver", *ours, "-h", "127.0.0.1", "-p", str(port))
    with closing(DagsterExamination(f"http://127.0.0.1:{port}", seconds=60)) as examination:
        report = wait_for(examination, lambda report: bool(report.figures["webserver"]))
        assert report.cause == "daemon_unhealthy"
        assert report.figures["code_location"] is True
        ages = dict(report.figures["asset_age_seconds"])
        assert 0 <= ages.pop("sf_users") < 3 * SECONDS_TO_START
        assert set(ages) == set(ASSETS) - {"sf_users"}
        assert set(ages.values()) == {None}

        start("dagster-daemon", "run", *ours)
        assert wait_for(examination, lambda report: report.is_healthy).cause is None

    broken = home / "broken.py"
    broken.write_text("raise RuntimeError('ann@example.com')\n")
    start("dagster-webserver", "-f", str(broken), "-h", "127.0.0.1", "-p", str(other_port))
    with closing(DagsterExamination(f"http://127.0.0.1:{other_port}", seconds=60)) as examination:
        report = wait_for(examination, lambda report: bool(report.figures["webserver"]))
        assert report.cause == "code_location_unhealthy"
        assert report.figures["daemons"] is True
