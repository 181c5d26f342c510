from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.windows import SyncWindow, format_moment, parse_end, parse_start

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
HORIZON = date(2026, 1, 1)


def context(start: datetime, end: datetime) -> SimpleNamespace:
    return SimpleNamespace(partition_time_window=SimpleNamespace(start=start, end=end))


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_full_is_open_to_the_past_and_ends_with_the_present_day() -> None:
    assert SyncWindow.full(now=NOW) == SyncWindow(None, MIDNIGHT)


def test_recent_one_day_is_today_since_midnight() -> None:
    assert SyncWindow.recent(1, now=NOW) == SyncWindow(day("2026-11-21"), MIDNIGHT)


@given(st.integers(1, 3000))
def test_recent_holds_exactly_the_days_that_were_asked_for(days: int) -> None:
    window = SyncWindow.recent(days, now=NOW)
    assert window.days() == days
    assert window.until == MIDNIGHT


@pytest.mark.slow
@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2026, 11, 20)))
def test_a_custom_window_without_end_reaches_to_the_end_of_today(start: datetime) -> None:
    assert SyncWindow.custom(start, None, now=NOW).until == MIDNIGHT


def test_an_end_day_is_included() -> None:
    window = SyncWindow.custom(parse_start("2024-01-01"), parse_end("2024-01-31"), now=NOW)
    assert window == SyncWindow(day("2024-01-01"), day("2024-02-01"))


def test_an_end_moment_is_excluded_as_given() -> None:
    assert parse_end("2024-01-31T12:00:00+02:00") == datetime(2024, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize("days", [0, -1])
def test_fewer_than_one_day_is_refused_by_naming_the_option(days: int) -> None:
    with pytest.raises(UsageError, match="--days"):
        SyncWindow.recent(days, now=NOW)


def test_more_days_than_the_calendar_has_is_refused() -> None:
    with pytest.raises(UsageError, match="--mode full"):
        SyncWindow.recent(10**7, now=NOW)


def test_a_start_after_now_is_refused() -> None:
    with pytest.raises(UsageError, match="future"):
        SyncWindow.custom(NOW + timedelta(seconds=1), NOW + timedelta(days=2), now=NOW)


@pytest.mark.parametrize("end", ["2024-01-02", "2023-12-31"])
def test_an_end_that_is_not_after_the_start_is_refused(end: str) -> None:
    with pytest.raises(UsageError, match="before the end"):
        SyncWindow(day("2024-01-02"), day(end))


def test_the_last_days_of_the_calendar_are_refused_and_no_accident() -> None:
    with pytest.raises(UsageError, match="--end-date"):
        parse_end("9999-12-31")
    with pytest.raises(UsageError, match="future"):
        SyncWindow.custom(parse_start("9999-12-31"), None, now=NOW)


def test_a_moment_without_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="no time zone"):
        SyncWindow(datetime(2024, 1, 1), NOW)


def test_other_zones_become_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert SyncWindow(datetime(2024, 1, 1, 9, tzinfo=tokyo), NOW).since == day("2024-01-01")


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "2024-02-30", "", "2024-01-01T00:00:00", "20240101"])
def test_what_is_not_a_date_is_refused_by_naming_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--start-date"):
        parse_start(text)


def test_a_partition_range_becomes_the_same_window() -> None:
    window = SyncWindow.from_context(context(day("2026-11-01"), day("2026-11-11")), horizon=HORIZON, now=NOW)
    assert window == SyncWindow(day("2026-11-01"), day("2026-11-11"))


def test_the_first_partition_is_open_to_the_past() -> None:
    window = SyncWindow.from_context(context(day("2026-01-01"), MIDNIGHT), horizon=HORIZON, now=NOW)
    assert window == SyncWindow.full(now=NOW)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        ("2026-11-11", "2026-11-01", "before the end"),
        ("2026-11-22", "2026-11-23", "future"),
        ("2025-12-31", "2026-11-01", "first partition"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(start: str, end: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SyncWindow.from_context(context(day(start), day(end)), horizon=HORIZON, now=NOW)


def test_a_run_without_partitions_is_refused() -> None:
    with pytest.raises(UsageError, match="no partitions"):
        SyncWindow.from_context(SimpleNamespace(), horizon=HORIZON, now=NOW)  # type: ignore[arg-type]


def test_moments_are_written_in_utc_with_z() -> None:
    assert format_moment(datetime(2026, 1, 8, 12, 30, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-08T10:30:00Z"
