from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import InvalidTextRepresentation
from sqlalchemy import Engine, text

from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline_tests.postgres.users import (
    EVERYTHING,
    Row,
    batch_of,
    begin,
    day,
    days,
    land,
    landed_users,
    query,
    user,
    user_id,
)

AWKWARD_TEXTS = [
    None,
    "",
    " ",
    '"',
    '""',
    "a,b",
    "two\r\nlines",
    "\n",
    "\\",
    "\\.",
    "\\N",
    "NULL",
    "tab\there",
    "Zoë 😀 漢字",
    "'; DROP TABLE x --",
]


def days_landed(engine: Engine) -> list[tuple[str, datetime]]:
    return [(row["id"], row["system_modstamp"]) for row in landed_users(engine)]


def test_every_awkward_text_arrives_as_it_was_sent(warehouse: Engine) -> None:
    land(warehouse, *(user(number, title=value) for number, value in enumerate(AWKWARD_TEXTS)))
    assert [row["title"] for row in landed_users(warehouse)] == AWKWARD_TEXTS


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_any_text_without_nul_arrives_as_it_was_sent(warehouse: Engine, titles: list[str]) -> None:
    land(warehouse, *(user(number, title=title) for number, title in enumerate(titles)))
    assert [row["title"] for row in landed_users(warehouse)] == titles


def test_moments_keep_their_microseconds_and_json_and_flags_their_kind(warehouse: Engine) -> None:
    moment = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC)
    address = {"street": 'Main "1",\nback', "city": "Zürich", "latitude": 47.25, "state": None}
    run_id = land(
        warehouse,
        user(1, last_login_date=moment, address=json.dumps(address), is_active=False),
        user(2, address=None, is_active=None),
    )
    first, second = landed_users(warehouse)
    assert (first["last_login_date"], first["address"], first["is_active"]) == (moment, address, False)
    assert (second["last_login_date"], second["address"], second["is_active"]) == (None, None, None)
    assert {first["sync_run_id"], second["sync_run_id"]} == {run_id}


def test_a_batch_is_committed_with_its_rejects_and_its_checkpoint(warehouse: Engine) -> None:
    run_id = begin(warehouse)
    landing = Landing(warehouse, run_id, EVERYTHING)
    landing.append(batch_of(user(1, 1), user(2, 2)), [RejectedValue(user_id(3), "Title", "is too long", False)])
    landing.append(batch_of(user(4, 3)))
    assert query(warehouse, "SELECT run_id, system_modstamp, id, landed_rows FROM user_sync.checkpoints") == [
        {"run_id": run_id, "system_modstamp": day(3), "id": user_id(4), "landed_rows": 3}
    ]
    assert query(
        warehouse, "SELECT run_id, salesforce_id, field, reason, row_stored FROM user_sync.rejected_records"
    ) == [
        {
            "run_id": run_id,
            "salesforce_id": user_id(3),
            "field": "Title",
            "reason": "is too long",
            "row_stored": False,
        }
    ]


def test_a_batch_that_fails_leaves_nothing_behind_and_the_earlier_ones_stay(warehouse: Engine) -> None:
    landing = Landing(warehouse, begin(warehouse), EVERYTHING)
    landing.append(batch_of(user(1, 1)))
    broken = batch_of(user(2, 2), user(3, 3, address="{not json"))
    with pytest.raises(InvalidTextRepresentation):
        landing.append(broken, [RejectedValue(user_id(4), "Title", "is too long", False)])
    assert days_landed(warehouse) == [(user_id(1), day(1))]
    assert query(warehouse, "SELECT id, landed_rows FROM user_sync.checkpoints") == [
        {"id": user_id(1), "landed_rows": 1}
    ]
    assert query(warehouse, "SELECT FROM user_sync.rejected_records") == []


def test_a_page_of_which_no_row_could_be_stored_leaves_its_rejects_only(warehouse: Engine) -> None:
    landing = Landing(warehouse, begin(warehouse), EVERYTHING)
    landing.append(batch_of(), [RejectedValue(None, "Id", "is missing", False)])
    assert landed_users(warehouse) == []
    assert query(warehouse, "SELECT salesforce_id FROM user_sync.rejected_records") == [{"salesforce_id": None}]
    assert query(warehouse, "SELECT FROM user_sync.checkpoints") == []


def test_old_and_new_rows_lie_side_by_side_until_the_run_is_finished(warehouse: Engine) -> None:
    land(warehouse, user(1, 1), user(2, 2))
    landing = Landing(warehouse, begin(warehouse), EVERYTHING)
    landing.append(batch_of(user(1, 1), user(2, 5)))
    assert days_landed(warehouse) == [
        (user_id(1), day(1)),
        (user_id(1), day(1)),
        (user_id(2), day(2)),
        (user_id(2), day(5)),
    ]
    landing.finish(limited=False)
    assert days_landed(warehouse) == [(user_id(1), day(1)), (user_id(2), day(5))]
    assert {row["sync_run_id"] for row in landed_users(warehouse)} == {landing.run_id}
    assert query(warehouse, "SELECT FROM user_sync.checkpoints") == []


def test_rows_outside_the_window_are_not_touched(warehouse: Engine) -> None:
    land(warehouse, user(1, 1), user(2, 2), user(3, 3), user(4, 4))
    land(warehouse, user(3, 3), window=days(2, 4))
    assert days_landed(warehouse) == [(user_id(1), day(1)), (user_id(3), day(3)), (user_id(4), day(4))]


def test_a_window_in_which_salesforce_holds_nothing_is_emptied(warehouse: Engine) -> None:
    land(warehouse, user(1, 1), user(2, 2))
    land(warehouse, window=days(None, 2))
    assert days_landed(warehouse) == [(user_id(2), day(2))]


def test_a_limited_run_replaces_only_up_to_its_last_stored_row(warehouse: Engine) -> None:
    earlier = land(warehouse, user(1, 1), user(2, 2), user(3, 2), user(4, 3))
    landing = Landing(warehouse, begin(warehouse, limit=2), EVERYTHING)
    landing.append(batch_of(user(1, 1), user(2, 2)))
    landing.finish(limited=True)
    assert [(row["id"], row["sync_run_id"]) for row in landed_users(warehouse)] == [
        (user_id(1), landing.run_id),
        (user_id(2), landing.run_id),
        (user_id(3), earlier),
        (user_id(4), earlier),
    ]


def test_a_limited_run_that_stored_nothing_replaces_nothing(warehouse: Engine) -> None:
    land(warehouse, user(1, 1))
    Landing(warehouse, begin(warehouse, limit=1), EVERYTHING).finish(limited=True)
    assert days_landed(warehouse) == [(user_id(1), day(1))]


def test_a_run_that_ends_late_keeps_the_rows_of_one_that_started_after_it(warehouse: Engine) -> None:
    slow = Landing(warehouse, begin(warehouse), EVERYTHING)
    slow.append(batch_of(user(1, 1)))
    land(warehouse, user(1, 4), user(2, 2))
    slow.finish(limited=False)
    assert days_landed(warehouse) == [(user_id(2), day(2)), (user_id(1), day(4))]


def test_landing_takes_a_connection_as_well_and_leaves_its_transaction_alone(warehouse: Engine) -> None:
    run_id = begin(warehouse)
    with warehouse.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT 1"))
        Landing(connection, run_id, EVERYTHING).append(batch_of(user(1)))
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 1
    assert len(landed_users(warehouse)) == 1


def test_columns_that_a_page_does_not_know_stay_null(warehouse: Engine) -> None:
    row: Row = user(1)
    land(warehouse, row)
    (landed,) = landed_users(warehouse)
    assert all(landed[name] == value for name, value in row.items())
    assert landed["title"] is landed["custom_fields"] is None
