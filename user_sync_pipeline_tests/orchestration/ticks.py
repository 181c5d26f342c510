"""Ticks of the sensor, as Dagster's daemon makes them: the cursor is kept between them, and each run key counts once.

What belongs here: one tick, and launching what it asks for. What does not: what is to come of it (the tests).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from user_sync_pipeline.definitions import build_definitions


class RecentSync:
    """The sensor of fresh definitions, on one instance; `said` is why the last tick asked for nothing."""

    def __init__(self, instance: dg.DagsterInstance, resources: Mapping[str, Any] | None = None) -> None:
        self.instance = instance
        self.definitions = build_definitions(resources=resources)
        self.job = self.definitions.resolve_job_def("user_sync")
        self.cursor: str | None = None
        self.said = ""
        self._sensor = self.definitions.resolve_sensor_def("recent_sync_sensor")
        self._keys: set[str | None] = set()

    def tick(self) -> Any:
        """Make one tick; the result has `run_requests`, `skip_message` and `cursor`."""
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.definitions.resources
        ) as context:
            result = self._sensor.evaluate_tick(context)
        self.cursor, self.said = result.cursor, result.skip_message or ""
        return result

    def request(self) -> dict[str, str] | None:
        """Make one tick and return the tags of the run that it asks for, unless its key was used before."""
        requests = self.tick().run_requests
        if not requests or requests[0].run_key in self._keys:
            return None
        [request] = requests
        self._keys.add(request.run_key)
        return dict(request.tags)

    def reason(self) -> str:
        """Make one tick that asks for no run, and return why."""
        result = self.tick()
        assert not result.run_requests
        return str(result.skip_message)

    def add_run(self, status: dg.DagsterRunStatus, tags: dict[str, str]) -> dg.DagsterRun:
        """Put a run into the history that is not executed."""
        return self.instance.create_run_for_job(self.job, status=status, tags=tags)
