"""What is old goes by and by, but nothing that anybody still needs."""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.settings import Retention, retention
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse import retention as forgetting
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline_tests.postgres.users import (
    EVERYTHING,
    Row,
    batch_of,
    begin,
    days,
    land,
    landed_users,
    merge,
    query,
    user,
    user_id,
)

OLD = timedelta(days=50)
A_MONTH = Retention(raw_days=30, run_days=30)


def run(engine: Engine, *users: Row, first: float | None = None, last: float = 9, merged: bool = True) -> UUID:
    """Land users of these days, and merge them."""
    window = days(first, last)
    run_id = land(engine, *users, window=window)
    with engine.begin() as connection:
        ledger.record_landing(
            connection,
            run_id,
            read_until=window.until,
            covered_until=window.until,
            held_reason=None,
            fetched=len(users),
            rejected=0,
            api_calls=1,
        )
    if merged:
        counts = merge(engine, run_id, window)
        with engine.begin() as connection:
            ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
    return run_id


def age(engine: Engine) -> None:
    """Let everything that is there have happened fifty days ago."""
    with engine.begin() as connection:
        for table, columns in (
            ("sync_runs", ("started_at", "landed_at", "finished_at")),
            ("salesforce_users_raw", ("landed_at",)),
            ("rejected_records", ("noted_at",)),
        ):
            changes = ", ".join(f"{column} = {column} - CAST(:age AS interval)" for column in columns)
            connection.execute(text(f"UPDATE user_sync.{table} SET {changes}"), {"age": OLD})


def forget(engine: Engine, kept: Retention = A_MONTH, *, after: UUID | None = None) -> None:
    forgetting.forget_what_is_old(engine, kept, after or begin(engine))


def landed(engine: Engine) -> list[tuple[str, object]]:
    return [(row["id"], row["system_modstamp"]) for row in landed_users(engine)]


def runs(engine: Engine) -> set[UUID]:
    return {row["run_id"] for row in query(engine, "SELECT run_id FROM user_sync.sync_runs WHERE outcome <> 'running'")}


def test_landed_rows_go_when_sf_users_holds_them_or_newer_ones(warehouse: Engine) -> None:
    run(warehouse, user(1, 1), last=3)
    run(warehouse, user(1, 4), user(2, 5), first=3)
    age(warehouse)
    today = run(warehouse, user(3, 10), first=9, last=11)
    assert len(landed(warehouse)) == 4
    forget(warehouse, after=today)
    assert [row for row, _ in landed(warehouse)] == [user_id(3)]


def test_a_row_that_was_not_merged_never_goes(warehouse: Engine) -> None:
    run(warehouse, user(1, 1, title="old"), last=3)
    run(warehouse, user(1, 4), user(2, 4), first=3, merged=False)
    run(warehouse, user(3, 9.5, username=None), first=9, last=10)
    age(warehouse)
    forget(warehouse)
    assert [row for row, _ in landed(warehouse)] == [user_id(1), user_id(2), user_id(3)]
    assert query(warehouse, "SELECT title FROM public.sf_users") == [{"title": "old"}]


def test_an_equally_new_answer_that_was_not_merged_never_goes(warehouse: Engine) -> None:
    run(warehouse, user(1, 1))
    run(warehouse, user(1, 1, title="visible now"), merged=False)
    age(warehouse)
    forget(warehouse)
    assert [row["title"] for row in landed_users(warehouse)] == ["visible now"]


def test_a_run_that_broke_off_keeps_what_has_landed_since_it_began(warehouse: Engine) -> None:
    run(warehouse, user(1, 1), last=3)
    age(warehouse)
    broken_off = Landing(warehouse, begin(warehouse), EVERYTHING)
    broken_off.append(batch_of(user(2, 4)))
    with warehouse.begin() as connection:
        connection.execute(
            text("UPDATE user_sync.sync_runs SET started_at = now() - interval '20 days' WHERE run_id = :run_id"),
            {"run_id": broken_off.run_id},
        )
        connection.execute(text("UPDATE user_sync.salesforce_users_raw SET landed_at = now() - interval '10 days'"))
    forget(warehouse, Retention(raw_days=1))
    assert len(landed(warehouse)) == 2


def test_a_run_goes_with_its_notes_when_nothing_refers_to_it(warehouse: Engine) -> None:
    with_notes = run(warehouse, user(1, 1), user(2, 1, username=None))
    watermark = run(warehouse, user(1, 1), user(2, 2))
    with warehouse.begin() as connection:
        ledger.advance_watermark(connection, watermark)
    forgotten = run(warehouse, user(1, 1), user(2, 2), last=8)
    with_rows = run(warehouse, user(1, 1), user(2, 2), last=8)
    age(warehouse)
    newest = run(warehouse, first=9, last=10)
    forget(warehouse, Retention(raw_days=None, run_days=60), after=newest)
    assert runs(warehouse) == {with_notes, watermark, forgotten, with_rows, newest}
    forget(warehouse, Retention(raw_days=None, run_days=30), after=newest)
    assert runs(warehouse) == {watermark, with_rows, newest}
    assert query(warehouse, "SELECT FROM user_sync.rejected_records") == []


def test_the_newest_run_that_landed_stays_however_old(warehouse: Engine) -> None:
    """It says whose users these are, and which organisation is refused."""
    run(warehouse)
    newest = run(warehouse)
    age(warehouse)
    forget(warehouse)
    assert runs(warehouse) == {newest}


def test_old_notes_of_a_run_that_stays_go_and_its_count_does_not(warehouse: Engine) -> None:
    run_id = run(warehouse, user(1, 1), user(2, 1, username=None))
    age(warehouse)
    forget(warehouse, Retention(raw_days=None, run_days=30))
    assert query(warehouse, "SELECT FROM user_sync.rejected_records") == []
    with warehouse.begin() as connection:
        ledger.finish_run(connection, run_id, outcome="complete", counts=None)
    assert query(warehouse, "SELECT rejected FROM user_sync.sync_runs WHERE finished_at IS NOT NULL") == [
        {"rejected": 1}
    ]


def test_large_heaps_go_in_small_bites(warehouse: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "ROWS_IN_A_BITE", 3)
    run(warehouse, *(user(number) for number in range(10)))
    age(warehouse)
    monkeypatch.setattr(forgetting, "SECONDS_A_DAY", 0.0)
    forget(warehouse)
    assert len(landed(warehouse)) == 10
    monkeypatch.setattr(forgetting, "SECONDS_A_DAY", 60.0)
    forget(warehouse)
    assert landed(warehouse) == []


def test_it_is_done_once_a_day_and_the_tables_are_left_alone_otherwise(warehouse: Engine) -> None:
    run(warehouse, user(1, 1))
    age(warehouse)
    first = run(warehouse, first=9, last=10)
    second = run(warehouse, first=9, last=10)
    forget(warehouse, after=second)
    assert len(landed(warehouse)) == 1
    with warehouse.begin() as connection:
        connection.execute(
            text("UPDATE user_sync.sync_runs SET finished_at = now() - interval '1 day' WHERE run_id = :run_id"),
            {"run_id": first},
        )
    forget(warehouse, after=second)
    assert landed(warehouse) == []


@pytest.mark.slow
def test_a_table_that_is_locked_costs_a_second_and_no_run(warehouse: Engine, caplog: pytest.LogCaptureFixture) -> None:
    run(warehouse, user(1, 1))
    age(warehouse)
    with warehouse.begin() as other, caplog.at_level(logging.WARNING):
        other.execute(text("LOCK TABLE user_sync.salesforce_users_raw"))
        forget(warehouse)
    assert "could not be removed today (55P03); the run is complete" in caplog.text
    assert len(landed(warehouse)) == 1


def test_settings_say_how_long() -> None:
    assert retention({}) == Retention(raw_days=None, run_days=400)
    zero = {"USER_SYNC_RAW_RETENTION_DAYS": "0", "USER_SYNC_RUN_RETENTION_DAYS": "0"}
    assert retention(zero) == Retention(raw_days=None, run_days=None)
    assert retention({"USER_SYNC_RAW_RETENTION_DAYS": "90"}) == Retention(raw_days=90, run_days=400)
    with pytest.raises(ConfigurationError, match="USER_SYNC_RUN_RETENTION_DAYS is 'a year'; give a whole number"):
        retention({"USER_SYNC_RUN_RETENTION_DAYS": "a year"})
