from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.recent_changes import (
    FIRST_WAIT,
    LONGEST_WAIT,
    NOTHING_READ,
    REREAD_EVERY,
    Cursor,
    Days,
    PastRun,
    Question,
    days_behind,
    decide,
    paused_days,
    read_cursor,
    reason_to_wait,
    run_key,
    what_to_ask,
)
from user_sync_pipeline.core.salesforce.coverage import ChangedUsers
from user_sync_pipeline.core.warehouse.ledger import ReadSoFar

HORIZON = date(2026, 1, 1)
TODAY = date(2026, 6, 15)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WATERMARK = NOW - timedelta(minutes=30)
READ = ReadSoFar(WATERMARK, WATERMARK)
RECENT = Days(date(2026, 6, 14), TODAY)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


def ask(
    read: ReadSoFar | None = READ, runs: list[PastRun] | None = None, cursor: Cursor | None = None
) -> Question | str:
    return what_to_ask(read, runs or [], cursor, now=NOW, today=TODAY, horizon=HORIZON)


def question(read: ReadSoFar = READ, runs: list[PastRun] | None = None, cursor: Cursor | None = None) -> Question:
    asked = ask(read, runs, cursor)
    assert isinstance(asked, Question)
    return asked


def before(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


# What is asked ------------------------------------------------------------------------------------------------------


def test_changes_are_asked_from_the_watermark() -> None:
    assert question() == Question(WATERMARK, gapless=True, watermark=WATERMARK, recent=RECENT, paused=None)


def test_a_stretch_in_which_nothing_happened_is_not_asked_about_again() -> None:
    assert question(cursor=Cursor(WATERMARK, before(3))).since == before(3)


def test_the_cursor_of_another_watermark_says_nothing() -> None:
    assert question(cursor=Cursor(WATERMARK + timedelta(hours=1), before(3))).since == WATERMARK


def test_a_cursor_from_the_future_is_no_cursor() -> None:
    assert question(cursor=Cursor(WATERMARK, NOW + timedelta(days=1))).since == WATERMARK


@pytest.mark.parametrize("text", [None, "", "what is this", "{}", '{"watermark": 1, "quiet_until": 2}', "[]"])
def test_a_cursor_that_cannot_be_read_is_no_cursor(text: str | None) -> None:
    assert read_cursor(text) is None


def test_a_cursor_without_a_time_zone_is_no_cursor() -> None:
    naive = NOW.replace(tzinfo=None)
    assert read_cursor(Cursor(naive, naive).dump()) is None


def test_a_stored_cursor_comes_back_as_it_was() -> None:
    cursor = Cursor(WATERMARK, before(3.3))
    assert read_cursor(cursor.dump()) == cursor


def test_behind_a_watermark_that_is_held_back_only_what_is_new_is_asked_for_and_all_of_it_every_ten_minutes() -> None:
    held = ReadSoFar(before(60), before(5))
    assert question(held).since == before(5)
    assert not question(held).gapless
    long_ago = ReadSoFar(before(60), NOW - REREAD_EVERY)
    assert question(long_ago).since == before(60)
    assert question(long_ago).gapless


def test_without_a_first_full_run_nothing_is_asked() -> None:
    assert ask(read=None) == NOTHING_READ
    assert ask(read=None, runs=[PastRun(Days(HORIZON, TODAY), "in progress")]) == (
        "A run of 2026-01-01...2026-06-15 is on its way."
    )


# Which days ---------------------------------------------------------------------------------------------------------


@given(MOMENTS, st.dates(date(2026, 1, 2), date(2027, 1, 1)))
def test_the_days_join_the_watermark_and_are_at_least_two_on_the_axis(watermark: datetime, today: date) -> None:
    days = days_behind(watermark, today, HORIZON)
    assert HORIZON <= days.first < days.last == today
    assert days.first == HORIZON or datetime(*days.first.timetuple()[:3], tzinfo=UTC) <= watermark


@given(MOMENTS, st.dates(date(2026, 1, 2), date(2026, 12, 1)), st.integers(0, 30))
def test_the_days_begin_with_the_same_one_while_the_watermark_stands_still(
    watermark: datetime, today: date, later: int
) -> None:
    if watermark.date() <= today:
        first = days_behind(watermark, today, HORIZON).first
        assert days_behind(watermark, today + timedelta(days=later), HORIZON).first == first


def test_on_the_first_day_of_the_axis_there_is_only_that_one() -> None:
    assert days_behind(NOW, HORIZON, HORIZON) == Days(HORIZON, HORIZON)


# Runs that are there already ----------------------------------------------------------------------------------------


def test_no_second_run_is_launched_while_one_of_these_days_is_on_its_way() -> None:
    wider = Days(HORIZON, TODAY)
    for days in (RECENT, wider):
        assert ask(runs=[PastRun(days, "in progress")]) == f"A run of {days} is on its way."


@pytest.mark.parametrize(
    "days", [Days(HORIZON, date(2026, 6, 14)), Days(TODAY, TODAY), Days(date(2026, 2, 1), date(2026, 2, 3))]
)
def test_a_run_that_leaves_out_some_of_these_days_keeps_nothing_waiting(days: Days) -> None:
    assert question(runs=[PastRun(days, "in progress")]).recent == RECENT


def test_after_failures_the_next_try_waits_twice_as_long_each_time_up_to_six_hours() -> None:
    waits = []
    for failures in range(1, 12):
        runs = [PastRun(RECENT, "failed", before(10 * number)) for number in range(failures)]
        runs.append(PastRun(RECENT, "succeeded", before(1000)))
        wait = timedelta()
        while reason_to_wait(RECENT, runs, NOW + wait):
            wait += timedelta(minutes=1)
        waits.append(wait)
    assert waits[:4] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT


def test_a_run_that_is_paused_again_and_again_waits_for_an_hour_at_most() -> None:
    runs = [PastRun(RECENT, "paused", before(10 * number)) for number in range(12)]
    assert reason_to_wait(RECENT, runs, NOW + timedelta(minutes=59))
    assert reason_to_wait(RECENT, runs, NOW + timedelta(minutes=60)) is None


def test_failures_before_a_success_or_of_other_days_count_for_nothing() -> None:
    others = Days(date(2026, 2, 1), date(2026, 2, 3))
    runs = [
        PastRun(others, "failed", before(1)),
        PastRun(RECENT, "succeeded", before(2)),
        PastRun(RECENT, "failed", before(3)),
    ]
    assert reason_to_wait(RECENT, runs, NOW) is None


def test_a_run_that_failed_yesterday_counts_though_it_ended_a_day_earlier() -> None:
    yesterdays = Days(RECENT.first, RECENT.first)
    reason = reason_to_wait(RECENT, [PastRun(yesterdays, "canceled", before(2))], NOW)
    assert reason == (
        "The run of 2026-06-14...2026-06-14 ended once as canceled; the next one starts after 2026-06-15T12:03Z."
    )


# Paused runs --------------------------------------------------------------------------------------------------------


def test_a_paused_run_is_gone_on_with_from_its_first_day_up_to_today_if_it_went_that_far() -> None:
    yesterday = Days(HORIZON, date(2026, 6, 14))
    assert paused_days([PastRun(yesterday, "paused", NOW - timedelta(days=1))], TODAY) == Days(HORIZON, TODAY)
    past = Days(date(2026, 2, 1), date(2026, 2, 3))
    assert paused_days([PastRun(past, "paused", NOW - timedelta(days=1))], TODAY) == past


def test_a_paused_run_is_gone_on_with_even_before_anything_has_been_read() -> None:
    full = Days(HORIZON, TODAY)
    asked = ask(read=None, runs=[PastRun(full, "paused", before(5))])
    assert isinstance(asked, Question)
    assert (asked.paused, asked.recent) == (full, None)
    assert decide(asked, ChangedUsers(0, NOW), now=NOW, calls_left=100).days == full
    assert decide(asked, None, now=NOW, calls_left=0).days is None


@pytest.mark.parametrize("state", ["succeeded", "in progress", "canceled"])
def test_a_paused_run_that_a_later_one_has_taken_up_is_done_with(state: str) -> None:
    runs = [PastRun(RECENT, state, before(1)), PastRun(RECENT, "paused", before(2))]  # type: ignore[arg-type]
    assert paused_days(runs, TODAY) is None


def test_a_paused_run_whose_continuation_failed_is_tried_again_after_a_while() -> None:
    past = Days(date(2026, 2, 1), date(2026, 2, 3))
    runs = [PastRun(past, "failed", before(9)), PastRun(past, "paused", before(20))]
    assert question(runs=runs).paused is None
    assert question(runs=runs).recent == RECENT
    runs[0] = PastRun(past, "failed", before(10))
    assert question(runs=runs).paused == past


# What follows -------------------------------------------------------------------------------------------------------


def test_when_nobody_has_changed_the_cursor_moves_up_to_where_salesforce_vouches_for_it() -> None:
    quiet = decide(question(), ChangedUsers(0, before(7)), now=NOW, calls_left=None)
    assert quiet.days is None
    assert quiet.cursor == Cursor(WATERMARK, before(7))
    assert quiet.reason == "Nobody has changed since 2026-06-15T11:30:00Z."
    just_now = decide(question(), ChangedUsers(0, NOW), now=NOW, calls_left=None)
    assert just_now.cursor == Cursor(WATERMARK, before(1))  # what was committed this minute may not be seen yet


def test_the_cursor_never_moves_when_somebody_has_changed_or_a_gap_was_left_out() -> None:
    changed = decide(question(), ChangedUsers(3, NOW), now=NOW, calls_left=100)
    assert (changed.days, changed.cursor) == (RECENT, None)
    gap = question(ReadSoFar(before(60), before(5)))
    assert decide(gap, ChangedUsers(0, NOW), now=NOW, calls_left=100).cursor is None


def test_changes_that_cannot_be_listed_are_changes() -> None:
    assert decide(question(), None, now=NOW, calls_left=100).days == RECENT


def test_nothing_is_launched_while_the_quota_is_used_up() -> None:
    waiting = decide(question(), ChangedUsers(3, NOW), now=NOW, calls_left=0)
    assert waiting.days is None
    assert "quota" in waiting.reason


def test_the_key_of_a_run_is_the_same_within_a_bucket_of_time_only() -> None:
    bucket = timedelta(minutes=5)
    key = run_key(RECENT, NOW, bucket)
    assert key == "2026-06-14...2026-06-15 at 2026-06-15T12:00Z"
    assert run_key(RECENT, NOW + timedelta(seconds=299), bucket) == key
    assert run_key(RECENT, NOW + bucket, bucket) != key
    assert run_key(Days(HORIZON, TODAY), NOW, bucket) != key
