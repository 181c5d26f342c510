"""One run of the Dagster job `user_sync` in this process, for `user-sync demo`.

What belongs here: starting the run, following its steps, and collecting what it reported.
What does not: servers, and showing anything. This module imports Dagster; import it inside a function.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import uuid4

import dagster as dg
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UserSyncError
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.partitions import range_tags

ASSETS = ("salesforce_users_raw", "sf_users", "profile_reconciliation")
# The console of a person is no place for Dagster's own log; it says every failure once more.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_SECONDS_BETWEEN_LOOKS = 0.25
_LANDED_ROWS = text("""
    SELECT landed_rows FROM user_sync.sync_runs LEFT JOIN user_sync.checkpoints USING (run_id)
    ORDER BY started_at DESC LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Check:
    """What one asset check found; `metadata` holds plain values."""

    name: str
    asset: str
    passed: bool
    severity: str
    description: str | None
    metadata: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the keys of one entry of `checks`."""
        return {
            "name": self.name,
            "passed": self.passed,
            "severity": self.severity,
            "metadata": dict(self.metadata),
        }


@dataclass(slots=True)
class JobReport:
    """What a run reported: the figures of each asset by name, durations of its steps in seconds, the checks."""

    figures: dict[str, dict[str, Any]] = field(default_factory=lambda: {asset: {} for asset in ASSETS})
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def seconds_of_checks(self) -> float:
        """How long all checks took together."""
        return sum(seconds for step, seconds in self.seconds.items() if step not in ASSETS)


def run_user_sync(
    first: date,
    last: date,
    *,
    step_started: Callable[[str], None],
    step_done: Callable[[str, JobReport], None],
) -> JobReport:
    """Run the job for the days `first` to `last`, both included.

    `step_started` is called with the name of each step, `step_done` after each asset. Raises `UserSyncError`
    with the sentence of the step that failed; checks that fail do not raise.
    """
    report, run_id = JobReport(), str(uuid4())

    def follow(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if event.is_step_start and event.step_key is not None:
            step_started(event.step_key)
        elif event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            # Of a range of days each has its event; the newest day comes last and carries everything.
            report.figures[materialization.asset_key.path[-1]].update(_plain(materialization.metadata))
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            report.checks.append(_check(event.asset_check_evaluation_data))
        elif event.is_step_success and event.step_key is not None:
            report.seconds[event.step_key] = event.step_success_data.duration_ms / 1000
            if event.step_key in ASSETS:
                step_done(event.step_key, report)

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    job = build_definitions().resolve_job_def("user_sync")
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        instance.add_event_listener(run_id, follow)
        try:
            job.execute_in_process(instance=instance, run_id=run_id, tags=range_tags(first, last), run_config=_QUIET)
        except dg.Failure as failure:
            raise UserSyncError(failure.description or "The run of the job user_sync failed.") from failure
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
    return report


@contextmanager
def watching_the_landing(engine: Engine, update: Callable[[int], None]) -> Iterator[None]:
    """Call `update` with the rows landed so far while the run keeps this thread busy."""
    ended = threading.Event()

    def look() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                rows = connection.scalar(_LANDED_ROWS)
                if rows is not None:
                    update(rows)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _check(evaluation: dg.AssetCheckEvaluation) -> Check:
    return Check(
        name=evaluation.check_name,
        asset=evaluation.asset_key.path[-1],
        passed=evaluation.passed,
        severity=evaluation.severity.value,
        description=evaluation.description,
        metadata=_plain(evaluation.metadata),
    )


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    """Return the values that JSON knows; tables and schemas are left out."""
    values = {name: value.value for name, value in metadata.items()}
    return {
        name: value
        for name, value in values.items()
        if value is None or isinstance(value, (str, int, float, bool, dict, list))
    }
