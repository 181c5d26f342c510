from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.merge import MergeCounts, merge_window
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline_tests.postgres.users import (
    EVERYTHING,
    Row,
    batch_of,
    begin,
    clear_tables,
    day,
    days,
    land,
    merge,
    query,
    stored_users,
    sync,
    user,
    user_id,
)

WITHOUT_TITLE = [column for column in USER_COLUMNS if column != "title"]
CONTENT = ", ".join((*USER_COLUMNS, "deactivated_at IS NULL AS present"))


def title_of(engine: Engine, number: int = 1) -> str | None:
    (row,) = query(engine, "SELECT title FROM public.sf_users WHERE id = :id", id=user_id(number))
    title: str | None = row["title"]
    return title


def rejects(engine: Engine) -> list[tuple[str, str, str]]:
    notes = query(
        engine,
        "SELECT salesforce_id, field, reason FROM user_sync.rejected_records WHERE NOT row_stored "
        "ORDER BY salesforce_id, field",
    )
    return [(note["salesforce_id"], note["field"], note["reason"]) for note in notes]


def test_new_users_are_inserted_with_all_their_values(warehouse: Engine) -> None:
    values: Row = {"title": "", "last_login_date": day(0.5), "custom_fields": json.dumps({"Team__c": "Blue"})}
    run_id = land(warehouse, user(1, **values), user(2))
    assert merge(warehouse, run_id) == MergeCounts(2, 0, 0, 0)
    first, second = stored_users(warehouse)
    assert (first["title"], first["last_login_date"], first["custom_fields"]) == ("", day(0.5), {"Team__c": "Blue"})
    assert (second["title"], second["last_login_date"], second["custom_fields"]) == (None, None, None)
    assert first["sync_run_id"] == run_id
    assert first["first_seen_at"] == first["synced_at"]
    assert first["deactivated_at"] is None


def test_the_newer_version_wins_whatever_comes_last(warehouse: Engine) -> None:
    sync(warehouse, user(1, 2, title="second"))
    assert sync(warehouse, user(1, 3, title="third")) == MergeCounts(0, 1, 0, 0)
    assert sync(warehouse, user(1, 1, title="first")) == MergeCounts(0, 0, 1, 0)
    assert title_of(warehouse) == "third"


def test_a_user_that_did_not_change_is_not_rewritten(warehouse: Engine) -> None:
    sync(warehouse, user(1, title="same"), user(2, title="other"))
    place = "SELECT id, ctid::text, xmin::text, xmax::text FROM public.sf_users ORDER BY id"
    before = query(warehouse, place)
    assert sync(warehouse, user(1, title="same"), user(2, title="other")) == MergeCounts(0, 0, 2, 0)
    assert query(warehouse, place) == before


def test_equally_new_but_different_content_is_updated(warehouse: Engine) -> None:
    sync(warehouse, user(1, title=None))
    assert sync(warehouse, user(1, title="now visible")) == MergeCounts(0, 1, 0, 0)
    assert title_of(warehouse) == "now visible"


def test_of_several_landed_versions_the_newest_is_stored_and_counted_once(warehouse: Engine) -> None:
    run_id = land(warehouse, user(1, 1, title="first"), user(1, 3, title="third"), user(1, 2, title="second"))
    assert merge(warehouse, run_id) == MergeCounts(1, 0, 0, 0)
    assert title_of(warehouse) == "third"


def test_of_equally_new_versions_the_one_that_landed_last_is_stored(warehouse: Engine) -> None:
    land(warehouse, user(1, title="before"))
    landing = Landing(warehouse, begin(warehouse), EVERYTHING)
    landing.append(batch_of(user(1, title="after")))
    assert merge(warehouse, landing.run_id) == MergeCounts(1, 0, 0, 0)
    assert title_of(warehouse) == "after"


def test_only_rows_of_the_window_are_merged(warehouse: Engine) -> None:
    run_id = land(warehouse, user(1, 1), user(2, 2), user(3, 3))
    assert merge(warehouse, run_id, days(2, 3)) == MergeCounts(1, 0, 0, 0)
    assert [row["id"] for row in stored_users(warehouse)] == [user_id(2)]


def test_an_update_keeps_the_first_sight_and_carries_its_own_run(warehouse: Engine) -> None:
    sync(warehouse, user(1, 1))
    (before,) = stored_users(warehouse)
    run_id = land(warehouse, user(1, 2))
    merge(warehouse, run_id)
    (after,) = stored_users(warehouse)
    assert after["first_seen_at"] == before["first_seen_at"]
    assert after["synced_at"] > before["synced_at"]
    assert after["sync_run_id"] == run_id


def test_a_column_that_was_hidden_from_the_run_is_left_as_it_is(warehouse: Engine) -> None:
    sync(warehouse, user(1, 1, title="kept", phone="1"))
    assert sync(warehouse, user(1, 2, phone="2"), columns=WITHOUT_TITLE) == MergeCounts(0, 1, 0, 0)
    (stored,) = stored_users(warehouse)
    assert (stored["title"], stored["phone"]) == ("kept", "2")
    assert sync(warehouse, user(1, 2, phone="2"), columns=WITHOUT_TITLE) == MergeCounts(0, 0, 1, 0)


def test_runs_that_saw_different_columns_are_merged_side_by_side(warehouse: Engine) -> None:
    sync(warehouse, user(1, 1, title="kept"), user(2, 1, title="replaced"))
    land(warehouse, user(1, 3, phone="1"), window=days(3, 4), columns=WITHOUT_TITLE)
    run_id = land(warehouse, user(2, 5, title=None, phone="2"), window=days(5, 6))
    assert merge(warehouse, run_id) == MergeCounts(0, 2, 0, 0)
    assert [(row["title"], row["phone"]) for row in stored_users(warehouse)] == [("kept", "1"), (None, "2")]


def test_a_user_who_leaves_is_marked_and_one_who_returns_is_not(warehouse: Engine) -> None:
    def deactivated() -> object:
        return stored_users(warehouse)[0]["deactivated_at"]

    sync(warehouse, user(1, 1))
    assert deactivated() is None
    sync(warehouse, user(1, 2, is_active=False))
    left = deactivated()
    assert left is not None
    sync(warehouse, user(1, 3, is_active=False, title="retired"))
    assert deactivated() == left
    sync(warehouse, user(1, 4))
    assert deactivated() is None


def test_a_user_who_is_inactive_at_first_sight_is_marked_at_once(warehouse: Engine) -> None:
    sync(warehouse, user(1, is_active=False))
    (stored,) = stored_users(warehouse)
    assert stored["deactivated_at"] == stored["first_seen_at"]


@pytest.mark.parametrize(
    ("broken", "field", "reason"),
    [
        ({"id": "00500000000000B"}, "Id", "Id is not an 18-character Salesforce id"),
        ({"username": None}, "Username", "Username is missing"),
        ({"is_active": None}, "IsActive", "IsActive is missing"),
        ({"created_date": None}, "CreatedDate", "CreatedDate is missing"),
        ({"address": "[]"}, "Address", "Address is not a JSON object"),
        ({"custom_fields": '"text"'}, "custom_fields", "custom_fields is not a JSON object"),
    ],
)
def test_a_row_that_sf_users_would_refuse_costs_no_other_row(
    warehouse: Engine, broken: Row, field: str, reason: str
) -> None:
    bad = {**user(2), **broken}
    run_id = land(warehouse, user(1), bad, user(3))
    assert merge(warehouse, run_id) == MergeCounts(2, 0, 0, 1)
    assert [row["id"] for row in stored_users(warehouse)] == [user_id(1), user_id(3)]
    assert rejects(warehouse) == [(bad["id"], field, reason)]

    assert merge(warehouse, run_id) == MergeCounts(0, 0, 2, 1)
    assert len(rejects(warehouse)) == 1, "a merge that is repeated notes nothing twice"


def test_a_required_column_that_is_hidden_costs_only_the_new_users(warehouse: Engine) -> None:
    sync(warehouse, user(1, 1, title="old"))
    columns = [column for column in USER_COLUMNS if column != "created_date"]
    counts = sync(
        warehouse,
        user(1, 2, title="new", created_date=None),
        user(2, 2, created_date=None),
        columns=columns,
    )
    assert counts == MergeCounts(0, 1, 0, 1)
    assert title_of(warehouse) == "new"
    assert rejects(warehouse) == [(user_id(2), "CreatedDate", "CreatedDate is hidden from us and the user is new")]


def test_rows_of_a_forgotten_run_are_left_alone(warehouse: Engine) -> None:
    forgotten = land(warehouse, user(1, 1))
    with warehouse.begin() as connection:
        connection.execute(text("DELETE FROM user_sync.sync_runs WHERE run_id = :run_id"), {"run_id": forgotten})
    assert merge(warehouse, forgotten) == MergeCounts(0, 0, 0, 0)
    assert stored_users(warehouse) == []


def test_a_merge_that_is_rolled_back_leaves_nothing(warehouse: Engine) -> None:
    run_id = land(warehouse, user(1), user(2, username=None))
    with warehouse.connect() as connection:
        merge_window(connection, EVERYTHING, run_id)
        connection.rollback()
    assert stored_users(warehouse) == []
    assert rejects(warehouse) == []


def test_two_merges_at_once_store_and_count_each_user_once(warehouse: Engine) -> None:
    run_id = land(warehouse, *(user(number) for number in range(500)))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: merge(warehouse, run_id), range(2)))
    assert sorted(counts.inserted for counts in both) == [0, 500]
    assert sorted(counts.unchanged for counts in both) == [0, 500]
    assert len(stored_users(warehouse)) == 500


# Properties ---------------------------------------------------------------------------------------------------

LAST_DAY = 9
# A user changes, for a few into something that cannot be stored, and then somebody reads a window.
steps = st.tuples(
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(["sync", "first page only", "stop before finish", "stop before merge", "end very late"]),
    st.none() | st.integers(0, LAST_DAY - 1),
    st.integers(1, LAST_DAY),
)


class Org:
    """Users of which Salesforce shows the newest version only; a day passes with each change."""

    def __init__(self) -> None:
        self.users: dict[int, Row] = {}
        self.today = 0

    def change(self, number: int, is_active: bool, is_broken: bool) -> None:
        self.today += 1
        self.users[number] = user(number, self.today, is_active=is_active, title=f"since day {self.today}")
        if is_broken:
            self.users[number]["username"] = None

    @property
    def broken(self) -> set[str]:
        """Ids of those whose newest version cannot be stored."""
        return {row["id"] for row in self.users.values() if row["username"] is None}

    def within(self, window: SyncWindow) -> list[Row]:
        since = window.since or day(-1)
        return [row for row in self.users.values() if since <= row["system_modstamp"] < window.until]


def fetch(engine: Engine, org: Org, kind: str, since: int | None, until: int) -> Callable[[], None]:
    """Read the window now, and return what is left to do with the answer."""
    window = days(since, max(until, (since or 0) + 1))
    limited = kind == "first page only"
    page = batch_of(*org.within(window))[: 1 if limited else None]
    landing = Landing(engine, begin(engine, window, limit=1 if limited else None), window)

    def store() -> None:
        landing.append(page)
        if kind != "stop before finish":
            landing.finish(limited=limited)
            if kind != "stop before merge":
                merge(engine, landing.run_id, window)

    def store_and_keep_what_was_seen_first() -> None:
        before = marks(engine)
        store()
        after = marks(engine)
        for who, (first_seen, deactivated, synced, version) in before.items():
            assert after[who][0] == first_seen
            if deactivated and after[who][1]:
                assert after[who][1] == deactivated
            assert (after[who][2] == synced) == (after[who][3] == version)

    return store_and_keep_what_was_seen_first


def marks(engine: Engine) -> dict[str, tuple[object, object, object, object]]:
    """What the pipeline itself notes of each user, and the version that is stored."""
    return {
        row["id"]: (row["first_seen_at"], row["deactivated_at"], row["synced_at"], row["system_modstamp"])
        for row in stored_users(engine)
    }


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=st.lists(steps, min_size=1, max_size=LAST_DAY),
    cuts=st.lists(st.integers(1, LAST_DAY), unique=True, max_size=3).map(sorted),
    order=st.randoms(use_true_random=False),
)
def test_any_order_and_repetition_of_windows_ends_in_the_same_users_as_one_full_load(
    warehouse: Engine, story: list[tuple[int, bool, bool, str, int | None, int]], cuts: list[int], order: Random
) -> None:
    clear_tables(warehouse)
    org = Org()
    late: list[Callable[[], None]] = []
    for number, is_active, is_broken, kind, since, until in story:
        org.change(number, is_active, is_broken)
        store = fetch(warehouse, org, kind, since, until)
        if kind == "end very late":
            late.append(store)
        else:
            store()
    pieces = list(pairwise([None, *cuts, LAST_DAY + 1]))
    order.shuffle(pieces)
    for start, end in pieces:
        fetch(warehouse, org, "sync", start, end or LAST_DAY + 1)()
    for store in late:
        store()
    piecemeal = stored_users(warehouse, CONTENT)
    noted = {salesforce_id for salesforce_id, _, _ in rejects(warehouse)}

    clear_tables(warehouse)
    fetch(warehouse, org, "sync", None, LAST_DAY + 1)()
    assert [row for row in piecemeal if row["id"] not in org.broken] == stored_users(warehouse, CONTENT)
    assert len(stored_users(warehouse)) == len(org.users) - len(org.broken)
    assert all(row["username"] is not None for row in piecemeal), "who broke later is kept as before"
    assert noted >= org.broken
    assert rejects(warehouse) == [(broken, "Username", "Username is missing") for broken in sorted(org.broken)]
