"""What surrounds a run: what happens when its requests arrive, and where it breaks off.

What belongs here: the hooks into the simulator and the database. What does not: what happens then
(`changing_organization.py`), and which run it is (`history_player.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine, event

from user_sync_pipeline.core.read_bounds import LONGEST_TRANSACTION
from user_sync_pipeline.sandbox.salesforce import Fault, FaultScript
from user_sync_pipeline.sandbox.salesforce.faults import Sighting
from user_sync_pipeline_tests.core.changing_organization import ChangingOrganization
from user_sync_pipeline_tests.core.histories import Break, Run

_CONNECTION_LOST = Fault(connection="drop_before")
_QUOTA_USED_UP = Fault(error="REQUEST_LIMIT_EXCEEDED")
_NOT_VOUCHED = Fault(on="updated", error="INVALID_REPLICATION_DATE")
_READING_THREADS = ("salesforce-page", "salesforce-slice")


class Killed(BaseException):
    """The process is gone: it does nothing more."""


class Surroundings(FaultScript):
    """The faults of a simulator, and the eye on a database, for one run after another.

    `vouched_until` is the latest moment that Salesforce ever vouched for, or that no transaction can reach back to
    where it did not say.
    """

    def __init__(self) -> None:
        super().__init__()
        self.organization: ChangingOrganization | None = None
        self.vouched_until: datetime | None = None
        self._lock = threading.Lock()
        self._killed = False
        self._rest()

    def strike(self, sighting: Sighting, now: datetime) -> Fault | None:
        """Let happen what is to happen at this request, and return what befalls it."""
        with self._lock:
            if self._killed:
                return _CONNECTION_LOST
            self._requests += 1
            for each in self._run.meanwhile:
                if each.request == self._requests and self.organization is not None:
                    self.organization.happen(each.what)
            if sighting.kind == "updated":
                self._note_vouched()
            return self._broken_off() or super().strike(sighting, now)

    @contextmanager
    def of(self, run: Run) -> Iterator[None]:
        """Surround one run."""
        self._rest()
        self._run = run
        if not run.vouched:
            self.add(_NOT_VOUCHED)
        try:
            yield
        finally:
            for thread in threading.enumerate():
                if thread.name in _READING_THREADS:
                    thread.join(60)
            self._rest()

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        """Count the commits of an engine, and let none through once the process is gone."""

        def at_commit(_: object) -> None:
            self._commits += 1
            if self._run.broken == Break("killed at commit", self._commits):
                self._killed = True
            at_begin(_)

        def at_begin(_: object) -> None:
            if self._killed:
                raise Killed

        event.listen(engine, "commit", at_commit)
        event.listen(engine, "begin", at_begin)
        try:
            yield
        finally:
            event.remove(engine, "commit", at_commit)
            event.remove(engine, "begin", at_begin)

    def _rest(self) -> None:
        self._run, self._requests, self._commits, self._killed = Run(), 0, 0, False
        self.clear()

    def _note_vouched(self) -> None:
        assert self.organization is not None
        now = self.organization.now.replace(microsecond=0)
        starts = [each.transaction.started for each in self.organization.open]
        vouched_until = min([now, *starts]) if self._run.vouched else now - LONGEST_TRANSACTION
        self.vouched_until = max(vouched_until, self.vouched_until or vouched_until)

    def _broken_off(self) -> Fault | None:
        broken = self._run.broken
        if broken is None or self._requests < broken.number:
            return None
        match broken.how:
            case "killed at request":
                self._killed = True
                return _CONNECTION_LOST
            case "network lost at request":
                return _CONNECTION_LOST
            case "quota used up at request":
                return _QUOTA_USED_UP
        return None
