"""The one daily axis, and what a partition means here.

A partition is a UTC day of SystemModstamp. The first one, the horizon, is open to the past: it stands for that
day and everything before, so a range from the first to the last key is a full sync, the last N keys are a
recent one, and any other range is a custom one. The axis ends with the present day, which is still growing.

What belongs here: the axis, ranges as run tags, and the way from a run to its window.
What does not: the rules of windows (`core/windows.py`).
"""

from datetime import UTC, date, datetime

import dagster as dg

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.windows import Mode, PartitionContext, SyncWindow

# Dagster reads a range of a run from these two tags, and does not check them.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


def daily_partitions(horizon: date) -> dg.DailyPartitionsDefinition:
    """Return the axis from `horizon` to the present day, both included (`end_offset=1`)."""
    return dg.DailyPartitionsDefinition(start_date=horizon.isoformat(), timezone="UTC", end_offset=1)


def first_day(partitions: dg.DailyPartitionsDefinition) -> date:
    """Return the horizon of an axis, the day whose partition is open to the past."""
    return partitions.start.date()


def range_tags(first: date, last: date) -> dict[str, str]:
    """Return the run tags that ask for the days from `first` to `last`, both included, in one run.

    Raises `UsageError` for a reversed range, which Dagster would run and mark as done.
    """
    if last < first:
        raise UsageError(f"The range ends on {last}, before it starts on {first}; give the earlier day first.")
    return {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}


def window_of(context: PartitionContext, partitions: dg.DailyPartitionsDefinition) -> SyncWindow:
    """Return the window that a run of these partitions asks for; raises `UsageError` before any I/O."""
    return SyncWindow.from_context(context, horizon=first_day(partitions), now=datetime.now(UTC))


def mode_of(window: SyncWindow, *, now: datetime | None = None) -> Mode:
    """Return what a person would call this window."""
    if window.since is None:
        return "full"
    return "recent" if window.until > (now or datetime.now(UTC)) else "custom"
