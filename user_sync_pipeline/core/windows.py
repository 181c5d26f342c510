"""Windows of time on SystemModstamp, and how the three modes become windows.

A window is half-open: `since <= SystemModstamp < until`, in UTC. `since=None` is open to the past.
Everything is checked here, before any request or statement, so that a window that cannot be meant
never reads, writes or marks a partition as done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol

from user_sync_pipeline.core.errors import UsageError

Mode = Literal["full", "recent", "custom"]
MODES: tuple[Mode, ...] = ("full", "recent", "custom")
DEFAULT_RECENT_DAYS = 30
ONE_DAY = timedelta(days=1)


class _TimeWindow(Protocol):
    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...


class PartitionContext(Protocol):
    """The one property of a Dagster context that a window needs."""

    @property
    def partition_time_window(self) -> _TimeWindow:
        """Start and end of the run's partitions, end excluded."""
        ...


@dataclass(frozen=True, slots=True)
class SyncWindow:
    """The half-open window `[since, until)` on SystemModstamp; both ends aware, in UTC."""

    since: datetime | None
    until: datetime

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and moment.tzinfo is None:
                raise UsageError(
                    f"The window's {name} has no time zone; give one, for example {moment.isoformat()}+00:00."
                )
        if self.since is not None:
            object.__setattr__(self, "since", self.since.astimezone(UTC))
        object.__setattr__(self, "until", self.until.astimezone(UTC))
        if self.since is not None and self.since >= self.until:
            raise UsageError(
                f"The window starts at {format_moment(self.since)} but ends at {format_moment(self.until)}; "
                "give a start that lies before the end."
            )

    @classmethod
    def full(cls, *, now: datetime) -> SyncWindow:
        """Everything up to the end of the present day."""
        return cls(None, _end_of_day(now))

    @classmethod
    def recent(cls, days: int, *, now: datetime) -> SyncWindow:
        """The last `days` UTC days, the present one included."""
        if days < 1:
            raise UsageError(f"--days is {days}; give a number of days that is 1 or more.")
        until = _end_of_day(now)
        try:
            since = until - timedelta(days=days)
        except OverflowError:
            raise UsageError(f"--days is {days}, which reaches back before the calendar; use --mode full.") from None
        return cls(since, until)

    @classmethod
    def custom(cls, start: datetime, end: datetime | None, *, now: datetime) -> SyncWindow:
        """From `start` up to, but not including, `end`; without `end`, up to the end of the present day."""
        _refuse_future_start(start, now)
        return cls(start, end if end is not None else _end_of_day(now))

    @classmethod
    def from_context(cls, context: PartitionContext, *, horizon: date, now: datetime) -> SyncWindow:
        """Build the window of a Dagster run from its partitions.

        The partition of `horizon` is open to the past. Raises `UsageError` for a reversed range, one that
        starts in the future or before the horizon, and for a run without partitions.
        """
        try:
            bounds = context.partition_time_window
        except Exception as error:
            raise UsageError(
                "This run has no partitions; choose a range of days, for example the last three."
            ) from error
        start, end = bounds.start.astimezone(UTC), bounds.end.astimezone(UTC)
        opening = datetime.combine(horizon, time(), UTC)
        if start < opening:
            raise UsageError(
                f"The range starts at {start.date()}, before the first partition {horizon}; "
                "start there (it stands for everything before as well) or set USER_SYNC_HORIZON."
            )
        window = cls(start, end)
        _refuse_future_start(start, now)
        return cls(None, end) if start == opening else window

    def days(self) -> float | None:
        """Length in days, or None when the window is open to the past."""
        return None if self.since is None else (self.until - self.since) / ONE_DAY


def parse_start(text: str) -> datetime:
    """Read `2024-01-31` (midnight UTC) or an ISO date-time with a zone; raises `UsageError`."""
    return _parse(text, "--start-date")


def parse_end(text: str) -> datetime:
    """Read an end as a person means it: `2024-01-31` includes that whole day; raises `UsageError`."""
    moment = _parse(text, "--end-date")
    try:
        return moment + ONE_DAY if _is_date(text) else moment
    except OverflowError:
        raise UsageError(f"--end-date is {text!r}, the last day there is; leave it out to go on to today.") from None


def format_moment(moment: datetime) -> str:
    """Format as ISO 8601 in UTC with `Z`: seconds, or microseconds where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _refuse_future_start(start: datetime, now: datetime) -> None:
    # A start without a zone is left to the window itself, which refuses it with its own sentence.
    if start.tzinfo is not None and start > now:
        raise UsageError(
            f"The window starts at {format_moment(start)}, which lies in the future; "
            f"give a start before {format_moment(now.replace(microsecond=0))}."
        )


def _end_of_day(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(UTC).date(), time(), UTC) + ONE_DAY


def _is_date(text: str) -> bool:
    return len(text.strip()) == len("2024-01-31")


def _parse(text: str, option: str) -> datetime:
    hint = "write a day as 2024-01-31, or a moment with its zone as 2024-01-31T09:00:00Z."
    try:
        if _is_date(text):
            return datetime.combine(date.fromisoformat(text.strip()), time(), UTC)
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}, which is not a date; {hint}") from None
    if moment.tzinfo is None:
        raise UsageError(f"{option} is {text!r}, which has no time zone; {hint}")
    return moment.astimezone(UTC)
