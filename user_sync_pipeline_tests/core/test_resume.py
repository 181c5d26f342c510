"""An extraction that breaks off anywhere goes on from there, and ends in the same tables as one that did not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.errors import PausedError, UnreachableError, UserSyncError
from user_sync_pipeline.core.salesforce.bulk import Patience
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG, Progress, SyncUsersResult, UserSyncService
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.conftest import FORGET_EVERYTHING

MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = SyncWindow(None, NOW + timedelta(hours=12))
MANY, PAGE, SLICES = 240, 20, 2
LATER = timedelta(hours=1)


@pytest.fixture
def org(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A Salesforce with twelve small pages of users, at a clock that stands still."""
    with SalesforceSimulator(people(MANY, seed=3, until=MADE_AT), authority) as simulator:
        simulator.clock.set(NOW)
        simulator.org.largest_page = PAGE
        yield simulator
    assert simulator.journal.violations == []


@contextmanager
def service(org: SalesforceSimulator, engine: Engine, **settings: Any) -> Iterator[UserSyncService]:
    """A process of its own, as far as Salesforce can tell; it reads small pages in two slices."""
    read = SalesforceSettings.from_environment(org.environment())
    read = replace(read, page_size=PAGE, parallel_requests=SLICES, **settings)
    patience = Patience(sleep=lambda _: None)
    with RestUserService(read, retry=RetryPolicy(tries=1), patience=patience) as rest:
        yield UserSyncService(engine, rest)


def sync(org: SalesforceSimulator, engine: Engine, **settings: Any) -> SyncUsersResult:
    with service(org, engine, **settings) as users:
        return users.sync_users(window=WINDOW)


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def forget_everything(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(FORGET_EVERYTHING))


def tables(engine: Engine) -> list[list[tuple[Any, ...]]]:
    """What is in the tables, but for the names and times of runs."""
    return [
        rows(engine, "SELECT id, system_modstamp FROM user_sync.salesforce_users_raw ORDER BY 1, 2"),
        rows(
            engine,
            "SELECT to_jsonb(u) - '{sync_run_id,first_seen_at,synced_at,deactivated_at}'::text[] "
            "FROM sf_users AS u ORDER BY id",
        ),
        rows(engine, "SELECT certificate -> 'digest' FROM user_sync.sync_runs WHERE landed_at IS NOT NULL"),
        rows(engine, "SELECT watermark FROM user_sync.watermarks"),
        rows(engine, "SELECT run_id FROM user_sync.checkpoints"),
    ]


# Killed anywhere ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scenario_16_a_run_that_is_paused_after_any_request_goes_on_from_there(
    org: SalesforceSimulator, engine: Engine
) -> None:
    undisturbed = sync(org, engine)
    expected = tables(engine)
    assert len(undisturbed.landing.certificate.slices) == SLICES  # type: ignore[union-attr]
    for calls in range(1, undisturbed.landing.usage.calls):
        forget_everything(engine)
        with pytest.raises(PausedError):
            sync(org, engine, api_budget_per_run=calls)
        landed = rows(engine, "SELECT count(*) FROM user_sync.salesforce_users_raw")[0][0]
        ledger = rows(engine, "SELECT run_id, outcome FROM user_sync.sync_runs")

        result = sync(org, engine)

        assert tables(engine) == expected
        assert {outcome for _, outcome in ledger} <= {"paused"}
        if landed:
            assert result.landing.resumed
            assert rows(engine, "SELECT run_id, outcome, resumed, fetched, api_calls FROM user_sync.sync_runs") == [
                (ledger[0][0], "complete", 1, MANY, calls + result.landing.usage.calls)
            ]
        pages_left = -(-(MANY - landed) // PAGE)
        # Describe, `updated`, the closing count; a slice may end with a page that was cut, and each may begin anew.
        assert result.landing.usage.calls <= pages_left + 3 + 2 * SLICES + (0 if landed else 4)


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["drop_before", "drop_after"])
def test_scenario_16_a_run_that_loses_the_network_at_any_page_goes_on_from_there(
    org: SalesforceSimulator, engine: Engine, connection: str
) -> None:
    sync(org, engine)
    expected = tables(engine)
    for page in range(1, MANY // PAGE + 1):
        forget_everything(engine)
        org.faults.add(Fault(on="page", first=page, times=1, connection=connection))  # type: ignore[arg-type]
        with pytest.raises(UnreachableError):
            sync(org, engine)
        org.faults.clear()
        sync(org, engine)
        assert tables(engine) == expected


class Killed(BaseException):
    """The process is gone: it does nothing more."""


@contextmanager
def killed_before(engine: Engine, number: int) -> Iterator[list[str]]:
    """Let nothing reach the database any more from the given statement on, and end all connections there.

    Statements are those of SQLAlchemy, transactions' BEGIN and COMMIT, and COPY. Yields them as they come.
    """
    statements: list[str] = []
    connections: list[psycopg.Connection[Any]] = []

    def count(statement: str) -> None:
        statements.append(statement)
        if len(statements) >= number:
            for connection in connections:
                connection.close()
            raise Killed

    def at_connect(connection: psycopg.Connection[Any], _: object) -> None:
        connections.append(connection)

    def at_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        count(statement)

    def at_commit(_: object) -> None:
        count("COMMIT")

    copy = psycopg.Cursor.copy

    def at_copy(cursor: Any, *arguments: Any) -> Any:
        count("COPY")
        return copy(cursor, *arguments)

    listeners: dict[str, Callable[..., None]] = {
        "connect": at_connect,
        "before_cursor_execute": at_statement,
        "commit": at_commit,
    }
    engine.dispose()
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        with patch.object(psycopg.Cursor, "copy", at_copy):
            yield statements
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)
        engine.dispose()


def assert_ledger_is_true(engine: Engine, users: int) -> None:
    """Every user was inserted by one run, and a run that is complete says what it has read and stored."""
    [(inserted,)] = rows(engine, "SELECT sum(inserted) FROM user_sync.sync_runs")
    assert inserted == users
    for outcome, has_landed, has_ended, fetched, stored in rows(
        engine,
        "SELECT outcome, landed_at IS NOT NULL, finished_at IS NOT NULL, fetched, inserted + updated + unchanged "
        "FROM user_sync.sync_runs",
    ):
        assert (outcome in ("landed", "complete")) == has_landed
        assert (outcome == "complete") == has_ended
        assert fetched == (users if has_landed else 0)
        assert stored == (users if outcome == "complete" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["rest", "bulk"])
def test_scenario_16_a_run_that_is_killed_before_any_statement_loses_and_doubles_nothing(
    authority: CertificateAuthority, engine: Engine, transport: str
) -> None:
    few = 3 * PAGE
    with SalesforceSimulator(people(few, seed=3, until=MADE_AT), authority) as org:
        org.clock.set(NOW)
        org.org.largest_page = PAGE
        with killed_before(engine, 10**6) as statements:
            sync(org, engine, transport=transport)
        expected = tables(engine)
        assert statements.count("COPY") >= (3 if transport == "rest" else 1)
        assert len(expected[0]) == len(expected[1]) == few
        for number in range(1, len(statements) + 1):
            forget_everything(engine)
            with killed_before(engine, number), pytest.raises((Killed, UserSyncError, DBAPIError)):
                sync(org, engine, transport=transport)
            before = rows(engine, "SELECT outcome FROM user_sync.sync_runs")
            assert before in ([], [("running",)], [("landed",)], [("complete",)])
            sync(org, engine, transport=transport)
            found = tables(engine)
            assert found[:2] == expected[:2], statements[number - 1]
            assert found[3:] == expected[3:], statements[number - 1]
            assert {digest for (digest,) in found[2]} == {digest for (digest,) in expected[2]}
            assert_ledger_is_true(engine, few)


@pytest.mark.slow
@pytest.mark.parametrize("pages", [1, 4])
def test_scenario_16_a_process_that_is_killed_goes_on_with_the_next_command(
    org: SalesforceSimulator, engine: Engine, pages: int
) -> None:
    window = SyncWindow(datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 6, 15, tzinfo=UTC))
    days = ("--start-date", "2000-01-01", "--end-date", "2026-06-14")
    sync(org, engine)
    expected = tables(engine)
    forget_everything(engine)
    org.faults.add(Fault(on="page", first=pages + 2, delay=30.0))
    database = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    program = "from user_sync_pipeline.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "sync-users", "--mode", "custom", *days],
        env={**os.environ, **org.environment(), "USER_SYNC_DATABASE_URL": database, "SALESFORCE_PAGE_SIZE": "200"},
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while rows(engine, "SELECT count(*) FROM user_sync.salesforce_users_raw")[0][0] < PAGE:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    org.faults.clear()
    assert rows(engine, "SELECT outcome FROM user_sync.sync_runs") == [("running",)]

    with service(org, engine) as users:
        result = users.sync_users(window=window)

    assert result.landing.resumed
    assert tables(engine)[:2] == expected[:2]
    assert_ledger_is_true(engine, MANY)


# What is gone on with, and what is not ------------------------------------------------------------------------------


def break_off(org: SalesforceSimulator, engine: Engine, **options: Any) -> None:
    """Begin a run and pause it behind its third page."""

    def pause(progress: Progress) -> None:
        if progress.pages == 3:
            raise PausedError("enough")

    with service(org, engine) as users, pytest.raises(PausedError):
        users.land(**{"window": WINDOW, "mode": "full", "progress": pause, **options})


@pytest.mark.slow
def test_what_changed_during_the_break_is_read_as_well(org: SalesforceSimulator, engine: Engine) -> None:
    break_off(org, engine)
    everybody = [user.id for user in org.org.users.ordered]
    for user_id in (everybody[0], everybody[-1]):
        org.org.update_user(user_id, Title="Changed during the break")
    newcomer = org.org.add_user(Username="new@example.com", LastName="New", Alias="new")
    org.clock.advance(LATER)

    result = sync(org, engine)

    assert result.landing.resumed
    assert result.complete
    assert result.watermark == NOW + LATER - VISIBILITY_LAG
    changed = "SELECT count(*) FROM sf_users WHERE title = 'Changed during the break'"
    assert rows(engine, changed) == [(2,)]
    assert rows(engine, f"SELECT count(*) FROM sf_users WHERE id = '{newcomer}'") == [(1,)]
    assert rows(engine, "SELECT count(*) FROM sf_users") == [(MANY + 1,)]


@pytest.mark.slow
def test_the_watermark_stays_where_the_first_part_was_vouched_for(org: SalesforceSimulator, engine: Engine) -> None:
    """The transaction is committed during the break, with moments behind which the run has read already."""
    everybody = [user.id for user in org.org.users.ordered]
    org.clock.set(NOW - LATER)
    transaction = org.org.begin()
    transaction.update_user(everybody[0], Title="Late")
    org.clock.set(NOW)
    break_off(org, engine)
    transaction.commit()
    org.clock.advance(LATER)

    result = sync(org, engine)

    assert result.watermark == NOW - LATER
    assert result.landing.held_reason is not None
    with service(org, engine) as users:
        users.sync_users(window=users.window_since_watermark())
    assert rows(engine, "SELECT count(*) FROM sf_users WHERE title = 'Late'") == [(1,)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"limit": 100},
        {"window": SyncWindow(MADE_AT - timedelta(days=3000), WINDOW.until)},
        {"window": SyncWindow(None, WINDOW.until - timedelta(days=8))},
    ],
    ids=["a limit", "another start", "an end long ago"],
)
def test_a_run_for_something_else_begins_anew(
    org: SalesforceSimulator, engine: Engine, options: dict[str, Any]
) -> None:
    break_off(org, engine, **options)
    assert not sync(org, engine).landing.resumed


@pytest.mark.slow
def test_a_run_up_to_today_is_gone_on_with_tomorrow(org: SalesforceSimulator, engine: Engine) -> None:
    """A daily quota is often free again only on the next day, when the same command means a longer window."""
    break_off(org, engine)
    org.org.add_user(Username="new@example.com", LastName="New", Alias="new")
    org.clock.advance(timedelta(days=1))
    tomorrow = SyncWindow(None, WINDOW.until + timedelta(days=1))
    with service(org, engine) as users:
        result = users.sync_users(window=tomorrow)
    assert result.landing.resumed
    assert result.complete
    assert rows(engine, "SELECT count(*) FROM sf_users") == [(MANY + 1,)]
    assert rows(engine, "SELECT until, outcome FROM user_sync.sync_runs") == [(tomorrow.until, "complete")]
    assert result.watermark == NOW + timedelta(days=1) - VISIBILITY_LAG


@pytest.mark.slow
def test_a_run_that_can_see_other_fields_begins_anew(org: SalesforceSimulator, engine: Engine) -> None:
    break_off(org, engine)
    org.org.hide_field("Fax")
    assert not sync(org, engine).landing.resumed


@pytest.mark.slow
def test_a_run_that_has_landed_is_not_gone_on_with(org: SalesforceSimulator, engine: Engine) -> None:
    first = sync(org, engine)
    second = sync(org, engine)
    assert not second.landing.resumed
    assert second.landing.run_id != first.landing.run_id


@pytest.mark.slow
def test_rejected_rows_of_the_first_part_are_told_once_and_counted(org: SalesforceSimulator, engine: Engine) -> None:
    first, last = org.org.users.ordered[0], org.org.users.ordered[-1]
    for user in (first, last):
        with org.org.lock:
            user.changes = {**(user.changes or {}), "Username": None}
    break_off(org, engine)
    result = sync(org, engine)
    assert {note.salesforce_id for note in result.landing.rejected} == {first.id, last.id}
    assert rows(engine, "SELECT rejected, fetched FROM user_sync.sync_runs") == [(2, MANY)]
    assert result.landing.certificate is not None
    assert result.landing.certificate.complete
    assert not result.complete
