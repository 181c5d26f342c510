"""Plays a history: the real service and a real database against the simulator, judged after every run.

What belongs here: running, and comparing what is stored with what should be.
What does not: the steps (`histories.py`), what they change (`changing_organization.py`), how a run breaks off
(`run_surroundings.py`), and the rules of the comparison (`committed_history.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, text

from user_sync_pipeline.core import read_bounds
from user_sync_pipeline.core.errors import UserSyncError
from user_sync_pipeline.core.read_bounds import LONGEST_TRANSACTION
from user_sync_pipeline.core.results import LandingResult
from user_sync_pipeline.core.salesforce import rest
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.cursors import Consistency
from user_sync_pipeline_tests.conftest import FORGET_EVERYTHING
from user_sync_pipeline_tests.core.changing_organization import ChangingOrganization, Content, UserVersion
from user_sync_pipeline_tests.core.committed_history import Version, digest
from user_sync_pipeline_tests.core.histories import (
    SINCE_THE_WATERMARK,
    History,
    Hours,
    MergeLanded,
    Run,
    SetLocalClock,
    Step,
    Window,
)
from user_sync_pipeline_tests.core.in_process import answered_in_process
from user_sync_pipeline_tests.core.run_surroundings import Killed, Surroundings

# Shortly before midnight, because windows end with the day.
BEGINNING = datetime(2026, 6, 15, 22, 40, 30, tzinfo=UTC)
# Few fields make a history quick; what is copied of a user is what these hold.
SHOWN_FIELDS = {"Id", "Username", "Title", "IsActive", "CreatedDate", "LastModifiedDate", "SystemModstamp"}
# A slice is worth while from this many pages on, so that few users are enough for several.
PAGES_WORTH_A_SLICE = 2


class Player:
    """Plays the steps of one history and raises `AssertionError` at the first breach."""

    def __init__(self, history: History, simulator: SalesforceSimulator, surroundings: Surroundings, engine: Engine):
        self._history = history
        self._simulator = simulator
        self._surroundings = surroundings
        self._engine = engine
        self._organization = surroundings.organization = ChangingOrganization(simulator)
        self._local_clock_ahead = timedelta()
        self._stored: dict[str, UserVersion] = {}
        self._watermark: datetime | None = None
        self._window_before: SyncWindow | None = None
        self._commits_at_break: int | None = None  # when the first run began that broke off
        settings = SalesforceSettings.from_environment(simulator.environment())
        self._settings = replace(settings, page_size=history.page, parallel_requests=history.slices)

    def play(self) -> None:
        """Play the history to its end, then let all transactions end and run once more."""
        self._organization.begin(self._history.users)
        for step in self._history.steps:
            self._do(step)
        self._organization.settle()
        last = self._run(Run())
        while last is not None and last.resumed:
            last = self._run(Run())  # one that goes on where an old one broke off vouches for no more than that did
        assert last is not None
        committed = self._organization.committed.current
        assert self._stored == committed
        assert self._watermark == last.read_until
        assert {user.id for user in self._simulator.org.users.ordered} == set(committed), "the oracle is wrong"
        assert self._simulator.journal.violations == []

    def _do(self, step: Step) -> None:
        match step:
            case Run():
                self._run(step)
            case MergeLanded(window):
                with self._process() as users:
                    users.merge(self._window(window, users))
                self._judge()
            case SetLocalClock(minutes):
                self._local_clock_ahead = timedelta(minutes=minutes)
            case _:
                self._organization.happen(step)

    def _run(self, run: Run) -> LandingResult | None:
        """Run once and judge; returns None when the run broke off, as it was to."""
        if not run.vouched:
            self._organization.end_all(longer_than=LONGEST_TRANSACTION)
        landing: LandingResult | None = None
        commits = self._organization.commits
        with self._surroundings.of(run):
            try:
                with self._process() as users:
                    window = self._window_before = self._window(run.window, users)
                    if run.merges and run.window == "full":
                        landing = users.sync_users(limit=run.limit).landing
                    elif run.merges:
                        landing = users.sync_users(window=window, limit=run.limit).landing
                    else:
                        landing = users.land(window, mode="custom", limit=run.limit)
            except (Killed, UserSyncError):
                if not run.may_break_off:
                    raise
        self._judge()
        if landing is None:
            self._commits_at_break = commits if self._commits_at_break is None else self._commits_at_break
        else:
            before = self._commits_at_break if landing.resumed else commits
            self._judge_certificate(
                landing,
                merged=run.merges,
                disturbed=self._organization.commits != before,
                cursors_lost=run.loses_cursors > 0,
            )
        return landing

    @contextmanager
    def _process(self) -> Iterator[UserSyncService]:
        """A process of its own, as far as Salesforce can tell."""
        with RestUserService(self._settings, retry=RetryPolicy(tries=2, sleep=lambda _: None)) as service:
            yield UserSyncService(self._engine, service)

    def _window(self, window: Window | Hours, users: UserSyncService) -> SyncWindow:
        if window == "as before" and self._window_before is not None:
            return self._window_before
        if window == SINCE_THE_WATERMARK:
            return users.window_since_watermark()
        if isinstance(window, Hours):
            since, until = (BEGINNING + timedelta(hours=hours) for hours in (window.since, window.until))
            return SyncWindow(since, until)
        now = self.local_time()
        return SyncWindow.recent(1, now=now) if window == "recent" else SyncWindow.full(now=now)

    def local_time(self) -> datetime:
        """The clock of this machine, right or wrong."""
        return self._organization.now + self._local_clock_ahead

    # Judging --------------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Compare what is stored with what was committed; also after a run that broke off."""
        committed = self._organization.committed
        stored, watermark = self._read_stored(), self._read_watermark()
        breaches = committed.strangers(stored) + committed.steps_back(self._stored, stored)
        if watermark is not None:
            breaches += committed.lost(stored, before=watermark)
            vouched_until = self._surroundings.vouched_until
            if vouched_until is None or watermark > vouched_until:
                breaches.append(f"the watermark {watermark} lies after {vouched_until}, up to which Salesforce vouches")
        if self._watermark is not None and (watermark is None or watermark < self._watermark):
            breaches.append(f"the watermark went back from {self._watermark} to {watermark}")
        assert not breaches, "\n".join(breaches)
        self._stored, self._watermark = stored, watermark

    def _judge_certificate(self, landing: LandingResult, *, merged: bool, disturbed: bool, cursors_lost: bool) -> None:
        """Compare the certificate of a run with what was committed."""
        certificate, committed = landing.certificate, self._organization.committed
        assert certificate is not None
        if certificate.window is None:
            assert landing.window.since is not None
            assert landing.window.since >= landing.read_until
            return
        since, until = certificate.window.since, certificate.window.until
        assert until == landing.read_until
        if certificate.complete and merged:
            assert committed.lost(self._stored, min(until, certificate.vouched_until), since) == []
        if disturbed:
            return
        expected = committed.between(since, until)
        if certificate.limited:
            in_order = sorted(expected, key=lambda user_id: (expected[user_id].stamp, user_id))
            expected = {user_id: expected[user_id] for user_id in in_order[: certificate.users]}
        found = (certificate.users, certificate.digest, certificate.complete)
        assert found == (len(expected), digest(expected), not certificate.limited), certificate
        assert landing.fetched == sum(slice_.rows for slice_ in certificate.slices), certificate
        # Who loses the place, or goes on after a break, may have to read some once more.
        assert landing.fetched == certificate.users or cursors_lost or landing.resumed, certificate
        if merged:
            assert not [user_id for user_id, version in expected.items() if self._stored[user_id] != version]

    def _read_stored(self) -> dict[str, UserVersion]:
        columns = text("SELECT id, system_modstamp, username, title, is_active FROM public.sf_users")
        with self._engine.connect() as connection:
            rows = connection.execute(columns).all()
        return {row.id: Version(row.system_modstamp, Content(row.username, row.title, row.is_active)) for row in rows}

    def _read_watermark(self) -> datetime | None:
        with self._engine.connect() as connection:
            watermark: datetime | None = connection.scalar(text("SELECT watermark FROM user_sync.watermarks"))
        return watermark


def play(
    history: History, engine: Engine, authority: CertificateAuthority, *, consistency: Consistency, over_tls: bool
) -> None:
    """Play a history on an empty database, over TLS or with requests that are answered in this process."""
    with engine.begin() as connection:
        connection.execute(text(FORGET_EVERYTHING))
    surroundings = Surroundings()
    simulator = SalesforceSimulator([], authority, faults=surroundings, port=0 if over_tls else 443)
    simulator.clock.set(BEGINNING)
    simulator.org.largest_page = history.page
    simulator.org.cursors.consistency = consistency
    for hidden in {field.name for field in USER_FIELDS} - SHOWN_FIELDS:
        simulator.org.hide_field(hidden)
    with simulator if over_tls else answered_in_process(simulator.application):
        player = Player(history, simulator, surroundings, engine)
        with (
            surroundings.watching(engine),
            patch.object(rest, "PAGES_WORTH_A_SLICE", PAGES_WORTH_A_SLICE),
            patch.object(read_bounds, "datetime", _clock(player.local_time)),
        ):
            player.play()


def _clock(now: Callable[[], datetime]) -> type[datetime]:
    """Return `datetime` as a module knows it whose clock is another."""

    class LocalDatetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now()

    return LocalDatetime
