"""Two runs for one organisation at once, or one while another is broken off: nothing is lost, doubled or miscounted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from user_sync_pipeline.core.errors import PausedError, UnreachableError
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import SalesforceSettings, Transport
from user_sync_pipeline.core.user_sync import Progress, SyncUsersResult, UserSyncService
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.locks import keep_merges_out, one_run_at_a_time
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT
from user_sync_pipeline_tests.postgres.users import (
    EVERYTHING,
    ORG,
    batch_of,
    begin,
    land,
    merge,
    query,
    stored_users,
    user,
)

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = SyncWindow(None, NOW + timedelta(hours=12))
PAGE = 10
AT_ONCE = timedelta(0)
SOON = timedelta(seconds=30)


@pytest.fixture
def org(salesforce: SalesforceSimulator) -> SalesforceSimulator:
    salesforce.clock.set(NOW)
    salesforce.org.largest_page = PAGE
    return salesforce


@contextmanager
def service(
    org: SalesforceSimulator, engine: Engine, transport: Transport = "rest", **options: Any
) -> Iterator[UserSyncService]:
    """A process of its own, as far as Salesforce can tell; it reads small pages in one slice."""
    read = SalesforceSettings.from_environment(org.environment())
    with RestUserService(replace(read, page_size=PAGE, parallel_requests=1, transport=transport)) as rest:
        yield UserSyncService(engine, rest, **options)


def sync(org: SalesforceSimulator, engine: Engine, **options: Any) -> SyncUsersResult:
    with service(org, engine, **options) as users:
        return users.sync_users(window=WINDOW)


def doubles(engine: Engine) -> list[dict[str, Any]]:
    one_version = "GROUP BY id, system_modstamp HAVING count(*) > 1"
    return query(engine, f"SELECT id FROM user_sync.salesforce_users_raw {one_version}")


def runs(engine: Engine, columns: str) -> list[tuple[Any, ...]]:
    found = query(engine, f"SELECT {columns} FROM user_sync.sync_runs ORDER BY started_at")
    return [tuple(run.values()) for run in found]


@contextmanager
def run_that_is_alive(org: SalesforceSimulator, engine: Engine) -> Iterator[Callable[[], None]]:
    """Let a run stand behind its first page; yields what lets it go on to its end."""
    begun, may_end = threading.Event(), threading.Event()

    def wait(_: Progress) -> None:
        begun.set()
        assert may_end.wait(60)

    def first() -> None:
        with service(org, engine) as users:
            users.sync_users(window=WINDOW, progress=wait)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert begun.wait(60)
        yield may_end.set
    finally:
        may_end.set()
        thread.join()


# Both alive ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gotcha_37_a_second_run_is_sent_away_when_the_first_does_not_end(
    org: SalesforceSimulator, engine: Engine
) -> None:
    with run_that_is_alive(org, engine):
        with pytest.raises(UnreachableError, match=r"on its way since 20.*Z; run again when it has ended") as refused:
            sync(org, engine, wait=AT_ONCE)
        assert refused.value.exit_code == 4
    assert runs(engine, "outcome, inserted, resumed") == [("complete", FEW_PEOPLE, 0)]


@pytest.mark.slow
def test_gotcha_37_a_second_run_waits_for_the_first_and_says_so(org: SalesforceSimulator, engine: Engine) -> None:
    said: list[str] = []
    with run_that_is_alive(org, engine) as let_go:

        def hear(sentence: str) -> None:
            said.append(sentence)
            let_go()

        second = sync(org, engine, wait=SOON, tell=hear)
    assert len(said) == 1
    assert said[0].startswith("Another run of this organisation is on its way since 20")
    assert said[0].endswith("waiting for its end, at most 0:00:30.")
    assert second.counts == MergeCounts(0, 0, FEW_PEOPLE, 0)
    assert runs(engine, "outcome, fetched, inserted, resumed") == [
        ("complete", FEW_PEOPLE, FEW_PEOPLE, 0),
        ("complete", FEW_PEOPLE, 0, 0),
    ]
    assert doubles(engine) == []


def test_whoever_waits_holds_no_transaction_and_another_organisation_does_not_wait(engine: Engine) -> None:
    other_sessions = text(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state LIKE 'idle in transaction%'"
    )
    seen: list[int] = []

    def look(_sentence: str) -> None:
        with engine.connect() as connection:
            seen.append(len(connection.execute(other_sessions).all()))

    with one_run_at_a_time(engine, ORG, wait=AT_ONCE):
        with pytest.raises(UnreachableError), one_run_at_a_time(engine, ORG, wait=timedelta(seconds=0.1), tell=look):
            pytest.fail("two at once")
        with one_run_at_a_time(engine, "00D000000000002EAA", wait=AT_ONCE):
            pass
    assert seen == [1], "the one that is on its way"
    with one_run_at_a_time(engine, ORG, wait=AT_ONCE):
        pass


def test_rows_are_not_replaced_in_the_middle_of_a_merge(engine: Engine) -> None:
    """The merge would miss those that are replaced between two of its statements, and the watermark would pass them."""
    land(engine, user(1, title="landed"))
    later = Landing(engine, begin(engine), EVERYTHING)
    later.append(batch_of(user(1, title="landed")))
    with engine.begin() as merging:
        keep_merges_out(merging)
        with engine.connect() as impatient:

            def lose_patience(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
                if "pg_advisory_xact_lock" in statement:
                    _cursor.execute("SET LOCAL lock_timeout = '50ms'")

            event.listen(engine, "before_cursor_execute", lose_patience)
            with pytest.raises(UnreachableError, match="kept a lock"), database_errors():
                later.finish(limited=False, connection=impatient)
            event.remove(engine, "before_cursor_execute", lose_patience)
        assert query(engine, "SELECT count(*) AS rows FROM user_sync.salesforce_users_raw") == [{"rows": 2}]
    later.finish(limited=False)
    assert merge(engine, later.run_id) == MergeCounts(1, 0, 0, 0)


def test_waiting_for_a_merge_leaves_the_patience_for_other_locks_as_it_is(engine: Engine) -> None:
    with engine.begin() as connection:
        keep_merges_out(connection)
        assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "30s"


# One behind the other, in two steps each ----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_jobs_whose_steps_alternate_both_end_and_keep_their_own_counts(
    org: SalesforceSimulator, engine: Engine
) -> None:
    with service(org, engine) as users:
        for job in ("first", "second"):
            users.land(WINDOW, mode="full", started_by=job)
        for job in ("first", "second", "second"):
            users.merge(WINDOW, started_by=job)
    assert runs(engine, "started_by, outcome, inserted, unchanged") == [
        ("first", "complete", FEW_PEOPLE, 0),
        ("second", "complete", 0, FEW_PEOPLE),
    ]
    assert doubles(engine) == []


# One while another is broken off ------------------------------------------------------------------------------------


def break_off(org: SalesforceSimulator, engine: Engine, transport: Transport, pages: int) -> None:
    def pause(progress: Progress) -> None:
        if progress.pages == pages:
            raise PausedError("enough")

    with service(org, engine, transport) as users, pytest.raises(PausedError):
        users.land(WINDOW, mode="full", progress=pause)


def middle_of(org: SalesforceSimulator) -> SyncWindow:
    """A window around the users in the middle."""
    moments = sorted(user.person.system_modstamp for user in org.org.users.ordered)
    return SyncWindow(moments[FEW_PEOPLE // 4], moments[3 * FEW_PEOPLE // 4])


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "pages"), [("rest", 1), ("rest", 3), ("rest", 5), ("bulk", 1)])
@pytest.mark.parametrize("what", ["the middle", "everything else", "a limit"])
def test_a_run_that_landed_in_a_break_makes_the_broken_one_neither_incomplete_nor_counted_twice(
    org: SalesforceSimulator, engine: Engine, transport: Transport, pages: int, what: str
) -> None:
    break_off(org, engine, transport, pages)
    with service(org, engine) as users:
        if what == "the middle":
            users.land(middle_of(org), mode="custom")
        elif what == "everything else":
            users.sync_users(window=SyncWindow(ORG_MADE_AT - timedelta(days=9999), WINDOW.until))
        else:
            users.sync_users(window=WINDOW, limit=25)

    result = sync(org, engine)

    assert result.landing.resumed
    assert result.complete
    assert result.landing.fetched == FEW_PEOPLE
    assert result.landing.certificate is not None
    assert result.landing.certificate.users == FEW_PEOPLE
    assert sum(slice_.rows for slice_ in result.landing.certificate.slices) == FEW_PEOPLE
    assert doubles(engine) == []
    assert len(stored_users(engine, "id")) == FEW_PEOPLE
    assert result.watermark is not None
