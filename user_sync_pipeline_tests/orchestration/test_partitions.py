from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.assets.metadata import rows_per_key
from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.partitions import daily_partitions, first_day, mode_of, range_tags, window_of

HORIZON = date(2026, 1, 1)
AXIS = daily_partitions(HORIZON)
days_back = st.integers(min_value=0, max_value=120)


@dataclass
class RunOfPartitions:
    partition_time_window: dg.TimeWindow


def run_over(first: date, last: date) -> RunOfPartitions:
    """What Dagster hands to an asset whose run has these two range tags."""
    first_window = AXIS.time_window_for_partition_key(first.isoformat())
    last_window = AXIS.time_window_for_partition_key(last.isoformat())
    return RunOfPartitions(dg.TimeWindow(first_window.start, last_window.end))


@pytest.mark.parametrize(
    ("now", "last_key"),
    [
        (datetime(2026, 3, 20, 23, 59, 59, tzinfo=UTC), "2026-03-20"),
        (datetime(2026, 3, 21, 0, 0, 0, tzinfo=UTC), "2026-03-21"),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), "2028-02-29"),
    ],
)
def test_the_axis_ends_with_the_present_day_of_utc(now: datetime, last_key: str) -> None:
    with dg.partition_loading_context(effective_dt=now):
        assert AXIS.get_last_partition_key() == last_key


def test_the_axis_starts_with_the_horizon() -> None:
    assert AXIS.get_first_partition_key() == "2026-01-01"
    assert first_day(AXIS) == HORIZON


def test_the_first_partition_stands_for_everything_before_as_well() -> None:
    window = window_of(run_over(HORIZON, HORIZON), AXIS)
    assert window == SyncWindow(None, datetime(2026, 1, 2, tzinfo=UTC))


@given(length=days_back, age=days_back)
def test_any_other_range_is_exactly_its_days(length: int, age: int) -> None:
    last = datetime.now(UTC).date() - timedelta(days=age)
    first = max(last - timedelta(days=length), HORIZON + timedelta(days=1))
    window = window_of(run_over(first, last), AXIS)
    assert window.since == datetime(first.year, first.month, first.day, tzinfo=UTC)
    assert window.days() == (last - first).days + 1


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (date(2026, 3, 9), date(2026, 3, 1), "give a start that lies before the end"),
        (date(2025, 12, 1), date(2026, 3, 1), "before the first partition 2026-01-01"),
        (date(2999, 1, 1), date(2999, 1, 3), "lies in the future"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused_with_a_sentence(first: date, last: date, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        window_of(run_over(first, last), AXIS)


def test_range_tags_are_the_two_that_dagster_reads() -> None:
    assert range_tags(date(2026, 3, 1), date(2026, 3, 3)) == {
        "dagster/asset_partition_range_start": "2026-03-01",
        "dagster/asset_partition_range_end": "2026-03-03",
    }


def test_range_tags_refuse_a_reversed_range() -> None:
    with pytest.raises(UsageError, match="give the earlier day first"):
        range_tags(date(2026, 3, 3), date(2026, 3, 1))


def test_a_window_has_the_name_that_a_person_would_give_it() -> None:
    now = datetime(2026, 3, 20, 12, tzinfo=UTC)
    tonight = datetime(2026, 3, 21, tzinfo=UTC)
    assert mode_of(SyncWindow(None, tonight), now=now) == "full"
    assert mode_of(SyncWindow(tonight - timedelta(days=3), tonight), now=now) == "recent"
    assert mode_of(SyncWindow(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 20, tzinfo=UTC)), now=now) == "custom"


def test_rows_from_before_the_first_day_count_to_it() -> None:
    rows = {date(2019, 5, 1): 40, date(2026, 1, 1): 2, date(2026, 1, 3): 1}
    assert rows_per_key(rows, ["2026-01-01", "2026-01-02", "2026-01-03"]) == {
        "2026-01-01": 42,
        "2026-01-02": 0,
        "2026-01-03": 1,
    }
