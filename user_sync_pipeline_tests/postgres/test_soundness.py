"""Figures about the tables as they are: who was left out, how old the watermark is, what is there twice or gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.soundness import (
    ChangedColumn,
    Rejection,
    SharedExternalIds,
    WatermarkAge,
    changed_columns,
    most_api_calls,
    rejected_users,
    shared_external_ids,
    watermark_age,
)
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline_tests.postgres.users import begin, days, user, user_id
from user_sync_pipeline_tests.postgres.whole_runs import finish, land, reject


def rejections(engine: Engine) -> list[Rejection]:
    with engine.connect() as connection:
        return rejected_users(connection)


def age(engine: Engine) -> WatermarkAge | None:
    with engine.connect() as connection:
        return watermark_age(connection)


def up_to(moment: datetime) -> SyncWindow:
    return SyncWindow(None, moment)


def test_who_was_left_out_counts_until_he_is_stored(warehouse: Engine) -> None:
    finish(warehouse, first := land(warehouse, user(1)))
    assert rejections(warehouse) == []
    reject(warehouse, first, user_id(1))
    reject(warehouse, first, user_id(2))
    reject(warehouse, first, user_id(2), field="Email")  # the newest note of a user counts
    reject(warehouse, first, user_id(3), field="Email")
    assert rejections(warehouse) == [
        Rejection("Email", "Email is missing", 2, (user_id(2), user_id(3))),
        Rejection("Username", "Username is missing", 1, (user_id(1),)),
    ]
    finish(warehouse, land(warehouse, user(1, 2), user(2, 2), window=days(2, 3)), days(2, 3))
    assert rejections(warehouse) == [Rejection("Email", "Email is missing", 1, (user_id(3),))]


def test_who_has_no_id_counts_for_the_newest_run_alone_and_a_cleaned_value_never(warehouse: Engine) -> None:
    first = land(warehouse)
    reject(warehouse, first, None)
    reject(warehouse, first, user_id(9), row_stored=True)
    assert rejections(warehouse) == [Rejection("Username", "Username is missing", 1, ())]
    land(warehouse)
    assert rejections(warehouse) == []


def test_ten_ids_are_named_at_most(warehouse: Engine) -> None:
    run_id = land(warehouse)
    for number in range(12):
        reject(warehouse, run_id, user_id(number))
    [rejection] = rejections(warehouse)
    assert (rejection.users, len(rejection.salesforce_ids)) == (12, 10)


def test_without_a_run_over_all_days_there_is_no_watermark(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse, window=days(2, 3)), days(2, 3))
    assert age(warehouse) is None


def test_the_age_of_the_watermark_is_counted_from_now(warehouse: Engine) -> None:
    two_days_ago = datetime.now(UTC) - timedelta(days=2)
    window = up_to(two_days_ago)
    finish(warehouse, land(warehouse, window=window), window)
    found = age(warehouse)
    assert found is not None
    assert timedelta(days=2) < found.age < timedelta(days=2, hours=1)
    assert (found.watermark, found.held_reason, found.stuck, found.gap) == (two_days_ago, None, False, False)


def test_why_a_watermark_stays_is_told_apart(warehouse: Engine) -> None:
    window = days(None, 3)
    finish(warehouse, land(warehouse, window=window, covered_until=days(None, 2).until, held_reason="Why"), window)
    held = age(warehouse)
    assert held is not None
    assert (held.held_reason, held.stuck, held.gap, held.newest_outcome) == ("Why", False, False, "complete")

    finish(warehouse, land(warehouse, window=days(2, 4), closing_count=5), days(2, 4))
    incomplete = age(warehouse)
    assert incomplete is not None
    assert (incomplete.stuck, incomplete.gap) == (True, False)

    finish(warehouse, land(warehouse, window=days(5, 6)), days(5, 6))
    behind_a_gap = age(warehouse)
    assert behind_a_gap is not None
    assert (behind_a_gap.stuck, behind_a_gap.gap) == (True, True)

    finish(warehouse, land(warehouse, window=days(2, 6)), days(2, 6))
    moved = age(warehouse)
    assert moved is not None
    assert (moved.stuck, moved.gap, moved.held_reason) == (False, False, None)


def test_a_run_over_old_days_does_not_make_a_watermark_stuck(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse, window=days(None, 5)), days(None, 5))
    finish(warehouse, land(warehouse, window=days(1, 2)), days(1, 2))
    found = age(warehouse)
    assert found is not None
    assert not found.stuck


def test_external_ids_are_compared_as_the_links_compare_them(warehouse: Engine) -> None:
    finish(
        warehouse,
        land(
            warehouse,
            user(1, external_id="ABC"),
            user(2, external_id=" abc "),
            user(3, external_id="abc"),
            user(4, external_id="other"),
            user(5, external_id=" "),
            user(6, external_id=" "),
            user(7),
            user(8),
        ),
    )
    with warehouse.connect() as connection:
        assert shared_external_ids(connection) == SharedExternalIds(1, 3, (user_id(1), user_id(2), user_id(3)))


def test_nobody_shares_an_external_id_in_an_empty_table(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        assert shared_external_ids(connection) == SharedExternalIds(0, 0, ())


def test_columns_are_as_the_migrations_made_them_until_somebody_changes_them(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        assert changed_columns(connection) == []
        connection.execute(text("ALTER TABLE public.sf_users DROP COLUMN fax"))
        connection.execute(text("ALTER TABLE public.sf_users ALTER COLUMN title TYPE varchar(80)"))
        connection.execute(text("ALTER TABLE user_sync.salesforce_users_raw ADD COLUMN note text"))
        assert changed_columns(connection) == [
            ChangedColumn("public.sf_users", "title", "text", "character varying(80)"),
            ChangedColumn("public.sf_users", "fax", "text", None),
        ]
        connection.rollback()


def test_the_dearest_run_of_a_while_is_found(warehouse: Engine) -> None:
    week = timedelta(days=7)
    with warehouse.connect() as connection:
        assert most_api_calls(connection, week) is None
    for calls in (3, 8, 5):
        land(warehouse, api_calls=calls)
    land(warehouse, api_calls=100, limit=1)
    broken_off = begin(warehouse)
    with warehouse.begin() as connection:
        ledger.finish_run(connection, broken_off, outcome="failed", counts=None, api_calls=100)
        connection.execute(
            text("UPDATE user_sync.sync_runs SET started_at = now() - interval '9 days' WHERE api_calls = 8")
        )
    with warehouse.connect() as connection:
        assert most_api_calls(connection, week) == 5
