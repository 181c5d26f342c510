"""A year of ticks under a virtual clock: whatever happens, no change is lost and no row goes backwards.

The organisation changes with late commits, also at midnight and while a run is reading; runs wait in the queue,
overlap, are canceled, paused by the quota, and killed between what they store and what Dagster is told of it. After
each of them what is stored is compared with what was committed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from sqlalchemy import Connection, Engine, event, text

from user_sync_pipeline.core.read_bounds import VISIBILITY_LAG
from user_sync_pipeline.core.recent_changes import REREAD_EVERY
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.partitions import range_tags
from user_sync_pipeline.resources import SalesforceResource
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.core.changing_organization import ChangingOrganization, Content, UserVersion
from user_sync_pipeline_tests.core.committed_history import Version
from user_sync_pipeline_tests.core.histories import (
    Break,
    Change,
    End,
    Happening,
    Meanwhile,
    Run,
    Wait,
    Write,
    WriteMore,
)
from user_sync_pipeline_tests.core.history_player import SHOWN_FIELDS
from user_sync_pipeline_tests.core.in_process import answered_in_process
from user_sync_pipeline_tests.core.run_surroundings import Killed, Surroundings
from user_sync_pipeline_tests.orchestration.ticks import RecentSync

HORIZON = date(2025, 1, 1)
BEGINNING = datetime(2025, 1, 1, 0, 30, tzinfo=UTC)
DAYS = 365
BETWEEN_TICKS = timedelta(minutes=5)
LONGEST_OPEN = timedelta(hours=12)
CHANGES: tuple[Change, ...] = ("edit", "insert", "deactivate", "reactivate", "rename", "swap user names")
# The profiles are left out, and the checks: they have nothing to do with it.
READING = {dg.AssetKey("salesforce_users_raw"), dg.AssetKey("sf_users")}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
BREAKS = ("killed at request", "killed at commit", "network lost at request", "quota used up at request")


class ImpatientSalesforce(SalesforceResource):
    """Salesforce as ever, asked again at once."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._users = RestUserService(retry=RetryPolicy(tries=2, sleep=lambda _: None))


class Process(Surroundings):
    """What a run meets, where it has connections of its own to Postgres."""

    @contextmanager
    def watching_every_engine(self) -> Iterator[None]:
        """Count the commits of this process, and let none through once it is gone; Dagster's own are not touched."""

        def at_commit(connection: Connection) -> None:
            if connection.dialect.name == "postgresql":
                self._commits += 1
                self._killed = self._killed or self._run.broken == Break("killed at commit", self._commits)
                at_begin(connection)

        def at_begin(connection: Connection) -> None:
            if self._killed and connection.dialect.name == "postgresql":
                raise Killed

        event.listen(Engine, "commit", at_commit)
        event.listen(Engine, "begin", at_begin)
        try:
            yield
        finally:
            event.remove(Engine, "commit", at_commit)
            event.remove(Engine, "begin", at_begin)


class Year:
    """Plays a year, the same one for the same seed, and raises `AssertionError` at the first breach."""

    def __init__(
        self,
        seed: int,
        simulator: SalesforceSimulator,
        process: Process,
        judge: Engine,
        instance: dg.DagsterInstance,
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._clock = simulator.clock
        self._organization = process.organization = ChangingOrganization(simulator)
        self._process = process
        self._judge_engine = judge
        self._instance = instance
        self._sensor = RecentSync(instance, resources={"salesforce": ImpatientSalesforce()})
        self._job = self._sensor.job.get_subset(asset_selection=READING, asset_check_selection=frozenset())
        self._queue: list[tuple[dg.DagsterRun, dict[str, str]]] = []
        self._stored: dict[str, UserVersion] = {}
        self._watermark: datetime | None = None
        self.figures: Counter[str] = Counter()

    @property
    def _today(self) -> date:
        return self._clock.now().date()

    def play(self, days: int) -> None:
        """Play so many days, then let everything be committed and read."""
        self._organization.begin(8)
        self._run(range_tags(HORIZON, self._today), Run())
        end = BEGINNING + timedelta(days=days)
        while self._clock.now() < end:
            for _ in range(self._random.choice((0, 0, 0, 1, 2))):
                self._organization.happen(self._happening())
            self._organization.end_all(longer_than=LONGEST_OPEN)
            committed, before = self._organization.committed.current, self._clock.now()
            self._let_time_go_by()
            self._tick()
            self._judge_silence(self._clock.now() - before, committed)
            self._work()
        self._come_to_rest()

    # What happens -----------------------------------------------------------------------------------------------------

    def _happening(self) -> Happening:
        some = self._random
        changes = tuple((some.choice(CHANGES), some.randrange(30)) for _ in range(some.randint(1, 3)))
        if len(self._organization.committed.current) > 30:
            changes = tuple(("edit" if change == "insert" else change, number) for change, number in changes)
        return some.choice(
            (
                Write(changes),
                Write(changes, "commit", some.choice((0, 1, 3))),
                Write(changes, "leave open"),
                WriteMore(some.randrange(4), changes),
                End(some.randrange(4)),
                End(some.randrange(4), some.choice(("commit", "roll back"))),
            )
        )

    def _let_time_go_by(self) -> None:
        """Wait for a tick: mostly some hours, sometimes a few minutes, and often until next to midnight."""
        some, now = self._random, self._clock.now()
        if some.random() < 0.25:
            edge = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
            moment = edge + timedelta(seconds=some.choice((-61, -59, -1, 0, 1, 59, 61)))
        else:
            moment = now + some.choice((BETWEEN_TICKS, 2 * BETWEEN_TICKS, timedelta(hours=some.uniform(1, 30))))
        self._organization.happen(Wait(max((moment - now).total_seconds(), 1)))

    def _circumstances(self) -> Run:
        """Make up what happens while a run is reading, and how it ends before its time."""
        some = self._random
        meanwhile = tuple(
            Meanwhile(some.randint(1, 8), some.choice((self._happening(), Wait(some.choice((1, 20, 90))))))
            for _ in range(some.choice((0, 0, 0, 1, 2)))
        )
        broken = Break(some.choice(BREAKS), some.randint(1, 12)) if some.random() < 0.3 else None  # type: ignore[arg-type]
        return Run(vouched=some.random() > 0.05, meanwhile=meanwhile, broken=broken)

    # Dagster's daemon -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        with freeze_time(self._clock.now()):
            if self._random.random() < 0.03:
                self._sensor.cursor = self._random.choice((None, "unreadable"))
            self.figures["ticks"] += 1
            tags = self._sensor.request()
            if tags is not None:
                self._enqueue(tags)
            if self._random.random() < 0.03:
                first = HORIZON + timedelta(days=self._random.randrange((self._today - HORIZON).days + 1))
                last = first + timedelta(days=self._random.randrange((self._today - first).days + 1))
                self._enqueue(range_tags(first, min(last, first + timedelta(days=6))))

    def _enqueue(self, tags: dict[str, str]) -> None:
        self._queue.append((self._sensor.add_run(dg.DagsterRunStatus.NOT_STARTED, tags), tags))

    def _work(self) -> None:
        """Run what is in the queue, or leave it there for a while, or let a person cancel it."""
        while self._queue and self._random.random() < 0.8:
            waiting, tags = self._queue.pop(self._random.randrange(len(self._queue)))
            if self._random.random() < 0.05:
                with freeze_time(self._clock.now()):
                    self._instance.report_run_canceled(waiting)
                self.figures["canceled"] += 1
            else:
                self._instance.delete_run(waiting.run_id)  # to be created again by what executes it
                self._run(tags, self._circumstances())

    def _run(self, tags: dict[str, str], circumstances: Run) -> None:
        if not circumstances.vouched:
            self._organization.end_all(longer_than=timedelta(hours=2))
        outcome = "killed"
        with self._process.of(circumstances), freeze_time(self._clock.now()):
            try:
                result = self._job.execute_in_process(
                    instance=self._instance, tags=tags, run_config=QUIET, raise_on_error=False
                )
                run = self._instance.get_run_by_id(result.run_id)
                assert run is not None
                outcome = run.status.value.lower()
            except Killed:
                pass
        self.figures[outcome] += 1
        if circumstances.broken is None and not circumstances.meanwhile:
            assert outcome == "success"
        self._judge()

    def _come_to_rest(self) -> None:
        """Let all that was written be seen and read; then there is nothing more to do."""
        self._organization.settle()
        for _ in range(400):
            self._organization.happen(Wait(BETWEEN_TICKS.total_seconds()))
            with freeze_time(self._clock.now()):
                tags = self._sensor.request()
            if tags is not None:
                self._enqueue(tags)
            elif not self._queue and self._stored == self._organization.committed.current:
                break
            while self._queue:
                waiting, tags = self._queue.pop()
                self._instance.delete_run(waiting.run_id)
                self._run(tags, Run())
        assert self._stored == self._organization.committed.current
        for _ in range(24):
            self._organization.happen(Wait(BETWEEN_TICKS.total_seconds()))
            with freeze_time(self._clock.now()):
                if (tags := self._sensor.request()) is not None:
                    self._run(tags, Run())
                    self.figures["runs at rest"] += 1
        assert self.figures["runs at rest"] <= 2  # the watermark was still held back by what was open then

    # Judging ----------------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        committed = self._organization.committed
        stored, watermark = self._read()
        breaches = committed.strangers(stored) + committed.steps_back(self._stored, stored)
        if watermark is not None:
            breaches += committed.lost(stored, before=watermark)
        if self._watermark is not None and (watermark is None or watermark < self._watermark):
            breaches.append(f"the watermark went back from {self._watermark} to {watermark}")
        assert not breaches, "\n".join(breaches)
        self._stored, self._watermark = stored, watermark

    def _judge_silence(self, waited: timedelta, committed: dict[str, UserVersion]) -> None:
        """When a tick finds that nobody has changed, all that was committed some time before must be stored."""
        if self._sensor.said.startswith("Nobody has changed") and waited > REREAD_EVERY + VISIBILITY_LAG:
            self.figures["quiet ticks"] += 1
            unseen = [user_id for user_id, version in committed.items() if self._stored.get(user_id) != version]
            assert not unseen, f"{unseen} were committed {waited} ago, and {self._sensor.said}"

    def _read(self) -> tuple[dict[str, UserVersion], datetime | None]:
        columns = text("SELECT id, system_modstamp, username, title, is_active FROM public.sf_users")
        with self._judge_engine.connect() as connection:
            rows = connection.execute(columns).all()
            watermark: datetime | None = connection.scalar(text("SELECT watermark FROM user_sync.watermarks"))
        users = {row.id: Version(row.system_modstamp, Content(row.username, row.title, row.is_active)) for row in rows}
        return users, watermark


def play(
    seed: int,
    days: int,
    engine: Engine,
    authority: CertificateAuthority,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Counter[str]:
    process = Process()
    simulator = SalesforceSimulator([], authority, faults=process, port=443)
    simulator.clock.set(BEGINNING)
    for hidden in {field.name for field in USER_FIELDS} - SHOWN_FIELDS:
        simulator.org.hide_field(hidden)
    settings: dict[str, Any] = {
        **simulator.environment(),
        "USER_SYNC_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "USER_SYNC_HORIZON": HORIZON.isoformat(),
        "SALESFORCE_PARALLEL_REQUESTS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    year = Year(seed, simulator, process, engine, instance)
    with answered_in_process(simulator.application), process.watching_every_engine():
        year.play(days)
    assert simulator.journal.violations == []
    return year.figures


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_year_of_ticks_loses_no_change_and_moves_no_row_backwards(
    engine: Engine,
    authority: CertificateAuthority,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = play(2025, DAYS, engine, authority, instance, monkeypatch)
    assert figures["ticks"] >= 2 * DAYS
    assert all(figures[outcome] > 5 for outcome in ("success", "failure", "canceled", "quiet ticks"))


@pytest.mark.slow
def test_a_fortnight_of_ticks_loses_no_change_and_moves_no_row_backwards(
    engine: Engine,
    authority: CertificateAuthority,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert play(14, 14, engine, authority, instance, monkeypatch)["success"] > 5
