"""Connections that the server ends: between two batches nobody notices, within one the run can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import Progress, SyncUsersResult, UserSyncService
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.conftest import FEW_PEOPLE, ORG_MADE_AT
from user_sync_pipeline_tests.postgres.users import EVERYTHING, batch_of, begin, merge, query, user, user_id

Kill = Callable[[], None]


@pytest.fixture
def kill(postgres_server: PostgresServer, engine: Engine) -> Kill:
    """End all sessions on the database of `engine`, as a restart or a failover does."""

    def kill() -> None:
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [make_url(str(engine.url)).database],
            )

    return kill


@contextmanager
def killing_before(engine: Engine, statement: str, kill: Kill) -> Iterator[None]:
    """End all sessions once, just before a statement that holds this text."""

    def strike(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if statement in text:
            event.remove(engine, "before_cursor_execute", strike)
            kill()

    event.listen(engine, "before_cursor_execute", strike)
    yield


def landed_ids(engine: Engine) -> list[str]:
    return [row["id"] for row in query(engine, "SELECT id FROM user_sync.salesforce_users_raw ORDER BY id")]


@pytest.mark.slow
def test_a_connection_that_is_lost_between_two_batches_is_not_even_noticed(engine: Engine, kill: Kill) -> None:
    run_id = begin(engine)
    landing = Landing(engine, run_id, EVERYTHING)
    landing.append(batch_of(user(1, 1)))
    kill()
    landing.append(batch_of(user(2, 2)))
    kill()
    landing.finish(limited=False)
    kill()
    assert merge(engine, run_id).inserted == 2
    assert landed_ids(engine) == [user_id(1), user_id(2)]


@pytest.mark.parametrize("moment", ["INTO user_sync.checkpoints", "commit"])
def test_a_batch_within_which_the_connection_is_lost_is_not_there_and_can_be_appended_again(
    engine: Engine, kill: Kill, moment: str
) -> None:
    run_id = begin(engine)
    landing = Landing(engine, run_id, EVERYTHING)
    landing.append(batch_of(user(1, 1)))
    second = batch_of(user(2, 2), user(3, 2))
    if moment == "commit":
        event.listen(engine, "commit", lambda _connection: kill(), once=True)
        with pytest.raises(UnreachableError), database_errors():
            landing.append(second)
    else:
        with killing_before(engine, moment, kill), pytest.raises(UnreachableError), database_errors():
            landing.append(second)
    assert landed_ids(engine) == [user_id(1)]
    landing.go_back_to_checkpoints()
    assert [reached.landed_rows for reached in landing.checkpoints()] == [1]
    landing.append(second)
    assert landed_ids(engine) == [user_id(1), user_id(2), user_id(3)]


def test_a_run_that_another_process_has_taken_up_is_left_to_that_one(engine: Engine) -> None:
    run_id = begin(engine)
    first, second = Landing(engine, run_id, EVERYTHING), Landing(engine, run_id, EVERYTHING)
    first.append(batch_of(user(1, 1)))
    with engine.begin() as connection:
        ledger.resume_run(connection, run_id, until=EVERYTHING.until)
    second.go_back_to_checkpoints()
    for late in (
        lambda: first.append(batch_of(user(2, 2))),
        lambda: first.finish_slice(0),
        lambda: first.finish(limited=False),
        first.go_back_to_checkpoints,
    ):
        with pytest.raises(UnreachableError, match="another process has gone on with this run"):
            late()
    second.append(batch_of(user(2, 2)))
    assert landed_ids(engine) == [user_id(1), user_id(2)]


def test_a_run_is_taken_up_only_behind_the_batch_that_is_on_its_way(engine: Engine) -> None:
    run_id = begin(engine)
    landing = Landing(engine, run_id, EVERYTHING)

    def resume_impatiently(*_: Any) -> None:
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '20ms'"))
            with pytest.raises(UnreachableError, match="kept a lock"), database_errors():
                ledger.resume_run(connection, run_id, until=EVERYTHING.until)

    event.listen(engine, "commit", resume_impatiently, once=True)
    landing.append(batch_of(user(1, 1)))
    assert landed_ids(engine) == [user_id(1)]


@contextmanager
def service(org: SalesforceSimulator, engine: Engine) -> Iterator[UserSyncService]:
    settings = SalesforceSettings.from_environment(org.environment())
    with RestUserService(settings) as rest:
        yield UserSyncService(engine, rest)


def sync(
    org: SalesforceSimulator, engine: Engine, progress: Callable[[Progress], None] | None = None
) -> SyncUsersResult:
    with service(org, engine) as users:
        return users.sync_users(window=SyncWindow(None, ORG_MADE_AT + timedelta(days=1)), progress=progress)


@pytest.fixture
def org(salesforce: SalesforceSimulator) -> SalesforceSimulator:
    salesforce.clock.set(datetime(2026, 6, 2, 12, tzinfo=UTC))
    salesforce.org.largest_page = 20
    return salesforce


@pytest.mark.slow
def test_a_run_outlives_the_end_of_all_its_connections_between_two_pages(
    org: SalesforceSimulator, engine: Engine, kill: Kill
) -> None:
    result = sync(org, engine, lambda _progress: kill())
    assert result.counts.inserted == FEW_PEOPLE
    assert len(landed_ids(engine)) == FEW_PEOPLE


@pytest.mark.slow
def test_a_run_that_loses_its_connection_within_a_page_is_taken_up_by_the_next_one(
    org: SalesforceSimulator, engine: Engine, kill: Kill
) -> None:
    def strike_in_the_next_page(_progress: Progress) -> None:
        killing_before(engine, "INTO user_sync.checkpoints", kill).__enter__()

    with pytest.raises(UnreachableError):
        sync(org, engine, strike_in_the_next_page)
    result = sync(org, engine)
    assert result.landing.resumed
    assert result.counts.inserted == FEW_PEOPLE
    assert len(landed_ids(engine)) == FEW_PEOPLE
