"""A webserver and a daemon that really run, with their history in Postgres, for tests that act as a person would.

What belongs here: starting and stopping them, asking them by GraphQL, and waiting for what they do.
What does not: the servers that the pipeline itself talks to, and what is to come of a run (the tests).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import dagster as dg
import pytest
import requests
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.recent_changes import Days
from user_sync_pipeline.partitions import range_tags
from user_sync_pipeline.sensors import WILL_RETRY_TAG

HOST = "127.0.0.1"
MODULE = "user_sync_pipeline.definitions"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": MODULE}
# A machine that has much else to do takes its time.
SECONDS_TO_START = SECONDS_TO_RUN = 240.0
SECONDS_TO_STOP = 60.0

# Dagster looks for backfills every 30 s, a figure fixed in its source: a test of several would do little but wait.
_DAEMON_THAT_LOOKS_OFTEN = """
from dagster._daemon import controller
from dagster._daemon.cli import main
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
main()
"""
_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_TELLING = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELING,
}

T = TypeVar("T")


class LiveDagster:
    """Dagster on the shipped instance settings, for as long as the `with` block lasts.

    `settings` are those of the pipeline, and `DAGSTER_POSTGRES_URL`; no other ones reach it. `folder` becomes its home
    and holds the logs. Nothing is switched on: no sensor and no schedule runs by itself.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.home = folder
        own = {"DAGSTER_HOME": str(folder), "DAGSTER_EVENT_BATCH_SIZE": "1000", "DAGSTER_DISABLE_TELEMETRY": "1"}
        foreign = ("SALESFORCE_", "SUPABASE_", "USER_SYNC_", "DAGSTER_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {**kept, **settings, **own}
        self.url = f"http://{HOST}:{free_port()}"
        self._running = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped_path("dagster.yaml"), self.home)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("DAGSTER_POSTGRES_URL", self.environment["DAGSTER_POSTGRES_URL"])
            self.instance = dg.DagsterInstance.from_config(str(self.home))
        port = self.url.rpartition(":")[2]
        with ExitStack() as starting:
            starting.callback(self.instance.dispose)
            starting.callback(self._session.close)
            for name, program in (
                ("webserver", ["-m", "dagster_webserver", "-m", MODULE, "-h", HOST, "-p", port]),
                ("daemon", ["-c", _DAEMON_THAT_LOOKS_OFTEN, "run", "-m", MODULE]),
            ):
                # Not in the checkout, whose .env would be read as well.
                started = running([sys.executable, *program], self.environment, self.home, self.home / f"{name}.log")
                self._processes.append(starting.enter_context(started))
            self.wait("the webserver to answer", lambda: answers(self.url), SECONDS_TO_START)
            self.wait("the daemon to be alive", self._daemon_is_alive, SECONDS_TO_START)
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    # What a person does ------------------------------------------------------------------------------------------

    def run(self, days: Days, *, job: str = "user_sync") -> dg.DagsterRun:
        """Launch a job over a range of days, wait for its end and return it; it must succeed."""
        run = self.ended(self.launch(range_tags(days.first, days.last), job=job))
        assert run.is_success, self.story_of(run.run_id)
        return run

    def launch(self, tags: Mapping[str, str], *, job: str = "user_sync") -> str:
        """Launch a job as the Launchpad does, and return the id of its run."""
        answer = self.ask(
            """
            mutation ($execution: ExecutionParams!) {
                answer: launchPipelineExecution(executionParams: $execution) {
                    __typename
                    ... on LaunchRunSuccess {run {runId}}
                    ... on Error {message}
                }
            }
            """,
            execution={
                "selector": {**REPOSITORY, "jobName": job},
                "mode": "default",
                "executionMetadata": {"tags": _tag_list(tags)},
            },
        )
        return str(answer["run"]["runId"])

    def backfill_job(self, keys: Sequence[str], *, job: str = "user_sync") -> PartitionBackfill:
        """Launch a backfill as the page of a job does, and wait until it has ended."""
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": REPOSITORY}
        return self._backfill({"selector": selector, "partitionNames": keys})

    def backfill_assets(self, assets: Sequence[str], keys: Sequence[str]) -> PartitionBackfill:
        """Launch a backfill as the graph of assets does, and wait until it has ended."""
        selected = [{"path": [asset]} for asset in assets]
        return self._backfill({"assetSelection": selected, "partitionNames": keys})

    def runs_that_a_schedule_asks_for(self, schedule: str, at: float) -> list[dict[str, str]]:
        """Evaluate a schedule as its test button does; returns the tags of each run. `at` is in seconds since 1970."""
        answer = self.ask(
            """
            mutation ($schedule: ScheduleSelector!, $at: Float) {
                answer: scheduleDryRun(selectorData: $schedule, timestamp: $at) {
                    __typename
                    ... on DryRunInstigationTick {
                        evaluationResult {error {message} skipReason runRequests {tags {key value}}}
                    }
                    ... on Error {message}
                }
            }
            """,
            schedule={**REPOSITORY, "scheduleName": schedule},
            at=at,
        )["evaluationResult"]
        assert answer["runRequests"], answer
        return [{tag["key"]: tag["value"] for tag in request["tags"]} for request in answer["runRequests"]]

    def run_of_sensor(self, sensor: str) -> str:
        """Switch a sensor on until it has launched a run, and return the run's id."""
        before = {run.run_id for run in self.instance.get_runs()}
        state = self.ask(
            """
            mutation ($sensor: SensorSelector!) {
                answer: startSensor(sensorSelector: $sensor) {
                    __typename
                    ... on Sensor {sensorState {id}}
                    ... on Error {message}
                }
            }
            """,
            sensor={**REPOSITORY, "sensorName": sensor},
        )["sensorState"]

        def launched() -> str | None:
            return next((run.run_id for run in self.instance.get_runs() if run.run_id not in before), None)

        try:
            return self.wait(f"{sensor} to launch a run", launched)
        finally:
            stop = "mutation ($id: String!) {answer: stopSensor(id: $id) {__typename ... on Error {message}}}"
            self.ask(stop, id=state["id"])

    # What came of it ---------------------------------------------------------------------------------------------

    def ended(self, run_id: str) -> dg.DagsterRun:
        """Wait for the end of a run, whatever it is, and return the run.

        One that failed has ended when Dagster has decided whether to repeat it, which it does a little later.
        """

        def ended() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            if run is None or run.status not in _ENDED:
                return None
            return run if run.status is not dg.DagsterRunStatus.FAILURE or WILL_RETRY_TAG in run.tags else None

        return self.wait(f"run {run_id} to end", ended)

    def story_of(self, run_id: str) -> str:
        """Return how a run stands and what went wrong in it."""
        run = self.instance.get_run_by_id(run_id)
        lines = [f"Run {run_id} of {run.job_name} is {run.status.value}." if run else f"There is no run {run_id}."]
        for record in self.instance.get_records_for_run(run_id, of_type=_TELLING).records:
            event = record.event_log_entry.dagster_event
            if event is None:
                continue
            lines.append(f"{event.event_type_value} {event.step_key or ''}: {event.message or ''}")
            if event.is_step_failure:
                lines.append(event.step_failure_data.error_display_string)
            elif event.is_run_failure and event.job_failure_data.error:
                lines.append(event.job_failure_data.error.to_string())
        return "\n".join(lines)

    def forget_everything(self) -> None:
        """Delete all runs, materializations, and what sensors remember, as if nothing had ever been launched."""
        for run in self.instance.get_runs():
            self.instance.delete_run(run.run_id)
        self.instance.wipe_assets(list(self.instance.all_asset_keys()))
        for state in self.instance.all_instigator_state():
            self.instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask by GraphQL and return what is called `answer` in the query; an error fails the test."""
        response = self._session.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=SECONDS_TO_RUN
        )
        said = response.json()
        assert response.ok, said
        assert not said.get("errors"), said
        answer: dict[str, Any] = said["data"]["answer"]
        assert not answer["__typename"].endswith("Error"), answer
        return answer

    def wait(self, what: str, look: Callable[[], T | None], seconds: float = SECONDS_TO_RUN) -> T:
        """Look again and again until something is there, and return it; fail with all that is known when it is not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            if stopped := [process for process in self._processes if process.poll() is not None]:
                pytest.fail(f"{stopped[0].args!r} has stopped while waiting for {what}:\n{self._logs()}")
            time.sleep(0.2)
        told = [self.story_of(run.run_id) for run in self.instance.get_runs()]
        ticks = [
            f"{state.name}: {tick.status.value} {tick.skip_reason or ''} {tick.error.to_string() if tick.error else ''}"
            for state in self.instance.all_instigator_state()
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=3)
        ]
        pytest.fail("\n".join([f"Waited in vain for {what}.", *told, *ticks, self._logs()]))

    # Within ------------------------------------------------------------------------------------------------------

    def _backfill(self, asked: Mapping[str, Any]) -> PartitionBackfill:
        answer = self.ask(
            """
            mutation ($backfill: LaunchBackfillParams!) {
                answer: launchPartitionBackfill(backfillParams: $backfill) {
                    __typename
                    ... on LaunchBackfillSuccess {backfillId}
                    ... on Error {message}
                }
            }
            """,
            backfill={**asked, "tags": []},
        )

        def ended() -> PartitionBackfill | None:
            backfill = self.instance.get_backfill(answer["backfillId"])
            goes_on = (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED, BulkActionStatus.FAILING)
            return backfill if backfill is not None and backfill.status not in goes_on else None

        return self.wait(f"backfill {answer['backfillId']} to end", ended)

    def _daemon_is_alive(self) -> bool:
        return set(self.instance.get_required_daemon_types()) <= set(self.instance.get_daemon_heartbeats())

    def _logs(self) -> str:
        return "\n".join(
            "\n".join([f"--- {log.name}", *log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]])
            for log in sorted(self.home.glob("*.log"))
        )


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and all that it starts; at the end it is asked to stop, and what is left of it is killed."""
    with log.open("wb") as lines:
        process = subprocess.Popen(
            # A program that inherits ignored signals, as in the background of a script, could not be asked to stop.
            ["env", "--default-signal=INT,TERM", *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_STOP)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # servers of code, and runs that were going on
        process.wait()


def answers(url: str) -> bool:
    """Return whether a webserver answers at this address."""
    with suppress(requests.RequestException), requests.Session() as session:
        session.trust_env = False
        return session.get(f"{url}/server_info", timeout=10).ok
    return False


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
