"""When to read recent changes: the decisions of a sensor that may ask Salesforce one question a tick.

What belongs here: from what has been read, the latest runs and one answer of Salesforce to what is to be run, as pure
functions. What does not: asking (`salesforce/coverage.py`), reading (`user_sync.py`), and runs (`sensors.py`).

The watermark in the ledger is the truth about what has been read, and it moves only when rows are stored. What was
asked of a run therefore counts for nothing: while the run has not stored its rows, for whatever reason, the same
changes lie behind the watermark and are found again. The cursor of the sensor only spares looking twice at a stretch
of which Salesforce vouches that nothing happened in it, so that losing it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from user_sync_pipeline.core.read_bounds import VISIBILITY_LAG
from user_sync_pipeline.core.windows import ONE_DAY, format_moment

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.coverage import ChangedUsers
    from user_sync_pipeline.core.warehouse.ledger import ReadSoFar

RunState = Literal["in progress", "succeeded", "failed", "canceled", "paused"]

# While an open transaction holds the watermark back, what lies behind it is read again so often.
REREAD_EVERY = timedelta(minutes=10)
# How long to wait after a run that failed; twice as long after each further one. A run that was paused may have come
# further, but one that its own budget pauses every time may just as well not.
FIRST_WAIT, LONGEST_WAIT, LONGEST_WAIT_WHEN_PAUSED = timedelta(minutes=5), timedelta(hours=6), timedelta(hours=1)
# Long enough for Salesforce to answer.
SHORTEST_QUESTION = timedelta(minutes=2)

NOTHING_READ = "Nothing has been read yet; launch the job user_sync once over all days, then changes are followed."


@dataclass(frozen=True, slots=True)
class Days:
    """The UTC days from `first` to `last`, both included."""

    first: date
    last: date

    def covers(self, other: Days) -> bool:
        """Whether all days of `other` are among these."""
        return self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        return f"{self.first}...{self.last}"


class PastRun(NamedTuple):
    """A run of the job: its days, what became of it, and when it ended; None while it goes on."""

    days: Days
    state: RunState
    ended_at: datetime | None = None


class Cursor(msgspec.Struct, frozen=True):
    """Nobody has changed between `watermark` and `quiet_until`, and nothing can be committed there any more."""

    watermark: Annotated[datetime, msgspec.Meta(tz=True)]
    quiet_until: Annotated[datetime, msgspec.Meta(tz=True)]

    def dump(self) -> str:
        """Return the text that `read_cursor` reads."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask, and what depends on the answer.

    `since` is where changes are asked from; `gapless`: all before it has been read. `recent` are the days to read if
    there are changes, `paused` those of a run to go on with if there is quota. One of both may be None.
    """

    since: datetime
    gapless: bool
    watermark: datetime | None
    recent: Days | None
    paused: Days | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The days of a run to launch, or None, and why; and the cursor to keep, None to leave it as it is."""

    days: Days | None
    reason: str
    cursor: Cursor | None = None


def read_cursor(cursor: str | None) -> Cursor | None:
    """Return a stored cursor; None when there is none or it cannot be read, which only costs a second look."""
    try:
        return msgspec.json.decode(cursor, type=Cursor) if cursor else None
    except ValueError:
        return None


def days_behind(watermark: datetime, today: date, horizon: date) -> Days:
    """Return the days that may hold changes which have not been read: at least two, from the day before the watermark.

    They begin with the same day for as long as the watermark stands still, so that a run that was paused can be gone
    on with, and early enough for the watermark to move: it does only when there is no gap.
    """
    return Days(max(min(watermark.astimezone(UTC).date(), today) - ONE_DAY, horizon), today)


def what_to_ask(
    read: ReadSoFar | None,
    runs: Sequence[PastRun],
    cursor: Cursor | None,
    *,
    now: datetime,
    today: date,
    horizon: date,
) -> Question | str:
    """Return the question of this tick, or why there is none.

    `runs` are the latest ones, newest first; `now` is Salesforce's clock, `today` the last day of the axis.
    """
    paused = paused_days(runs, today)
    recent = days_behind(read.watermark, today, horizon) if read else None
    reasons = {days: reason_to_wait(days, runs, now) for days in (paused, recent) if days}
    if paused and reasons[paused]:
        paused = None
    if read and recent and reasons[recent] is None:
        since, gapless = _since(read, cursor, now)
        return Question(since, gapless, read.watermark, recent, paused)
    if paused:
        return Question(now, gapless=False, watermark=None, recent=None, paused=paused)
    return next((reason for reason in reasons.values() if reason), None) or _nothing_read(runs)


def decide(question: Question, changes: ChangedUsers | None, *, now: datetime, calls_left: int | None) -> Decision:
    """Return what is to be run.

    `changes` is None when Salesforce cannot list them, because they are too many or too old; `calls_left` is how many
    API calls its reserve leaves, None when that is not known.
    """
    changed = question.recent is not None and (changes is None or changes.users > 0)
    cursor = None
    if question.gapless and question.watermark is not None and changes is not None and not changes.users:
        quiet_until = min(changes.covered_until, now - VISIBILITY_LAG)
        cursor = Cursor(question.watermark, max(quiet_until, question.since))
    since = format_moment(question.since.replace(microsecond=0))
    if question.paused is None and not changed:
        return Decision(None, f"Nobody has changed since {since}.", cursor)
    days = question.paused or question.recent
    reason = f"The run of {days} was paused" if question.paused else f"Users have changed since {since}"
    if calls_left == 0:
        return Decision(None, f"{reason}, but Salesforce's quota is still used up.", cursor)
    return Decision(days, f"{reason}: reading {days}.", cursor)


def paused_days(runs: Sequence[PastRun], today: date) -> Days | None:
    """Return the days of the newest paused run that no later one has taken up; one that a person canceled is left.

    They begin as they did, so that the run is gone on with; if they went up to the present day, they do so again.
    """
    for number, run in enumerate(runs):
        taken_up = any(later.days.covers(run.days) and later.state != "failed" for later in runs[:number])
        if run.state == "paused" and not taken_up:
            ended_on = run.ended_at.astimezone(UTC).date() if run.ended_at else today
            return Days(run.days.first, today if ended_on <= run.days.last <= today else run.days.last)
    return None


def reason_to_wait(days: Days, runs: Sequence[PastRun], now: datetime) -> str | None:
    """Return why no run of these days is launched now: one is on its way, or they did not succeed a short while ago."""
    for run in runs:
        if run.state == "in progress" and run.days.covers(days):
            return f"A run of {run.days} is on its way."
    attempts = [run for run in runs if run.ended_at and run.days.first <= days.first <= run.days.last]
    in_vain = list(takewhile(lambda run: run.state in ("failed", "canceled", "paused"), attempts))
    if not in_vain:
        return None
    newest = in_vain[0]
    longest = LONGEST_WAIT_WHEN_PAUSED if newest.state == "paused" else LONGEST_WAIT
    again = (newest.ended_at or now) + min(FIRST_WAIT * 2 ** min(len(in_vain) - 1, 10), longest)
    if now >= again:
        return None
    times = "once" if len(in_vain) == 1 else f"{len(in_vain)} times in a row"
    return f"The run of {newest.days} ended {times} as {newest.state}; the next one starts after {_minute(again)}."


def run_key(days: Days, now: datetime, every: timedelta) -> str:
    """Return a key that is the same for the same days within a bucket of time: Dagster launches each key once.

    The days alone would not do, because Dagster remembers a key for ever.
    """
    midnight = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    return f"{days} at {_minute(midnight + (now - midnight) // every * every)}"


def _since(read: ReadSoFar, cursor: Cursor | None, now: datetime) -> tuple[datetime, bool]:
    """Return where to ask from, and whether all before that has been read."""
    if read.read_until and read.watermark < read.read_until and now - read.read_until < REREAD_EVERY:
        # Salesforce names users and no moments: those between the two would be found at every tick.
        return read.read_until, False
    if cursor is not None and cursor.watermark == read.watermark and cursor.quiet_until < now:
        return max(cursor.quiet_until, read.watermark), True
    return read.watermark, True


def _nothing_read(runs: Sequence[PastRun]) -> str:
    on_their_way = [run for run in runs if run.state == "in progress"]
    return f"A run of {on_their_way[0].days} is on its way." if on_their_way else NOTHING_READ


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
