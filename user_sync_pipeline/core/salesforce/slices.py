"""Cutting a window of time into slices that hold about equally many users.

What belongs here: where to cut, found with few COUNT() queries, and cutting a window in two.
What does not: reading the slices (`reader.py`), at the same time (`parallel.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from user_sync_pipeline.core.windows import SyncWindow

# A cut may miss its place by this part of a slice.
TOLERANCE = 0.1
# SystemModstamp is in whole seconds, so nothing shorter can be cut.
ONE_SECOND = timedelta(seconds=1)
# There was no Salesforce yet.
NOTHING_BEFORE = datetime(1999, 1, 1, tzinfo=UTC)
# Most changes are recent, so time is measured by the logarithm of age: evenly within a day, by orders of size beyond.
EVENLY_WITHIN = timedelta(days=1)

CountMany = Callable[[Sequence[SyncWindow]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a window, and how many users it held when it was counted."""

    window: SyncWindow
    rows: int


class _Mark(NamedTuple):
    """A moment, and how many users changed before it."""

    moment: datetime
    rows: int


def halves(window: SyncWindow, since: datetime) -> tuple[SyncWindow, SyncWindow]:
    """Return the window from `since` on, before which nothing of it matters, as two of the same length."""
    middle = (since + (window.until - since) / 2).replace(microsecond=0)
    return SyncWindow(since, middle), SyncWindow(middle, window.until)


def cut(
    window: SyncWindow, rows: int, pieces: int, *, oldest: datetime, count_many: CountMany, most_counts: int
) -> tuple[Slice, ...]:
    """Return up to `pieces` slices, in order, that cover `window` without a gap and hold about equally many users.

    `rows` is how many there are in all, `oldest` their first SystemModstamp; `count_many` counts the users of several
    windows at once, and is asked for `most_counts` of them altogether. Users who changed within one second cannot be
    parted, so there may be fewer slices.
    """
    goals = [rows * number / pieces for number in range(1, pieces)]
    marks = [_Mark(oldest, 0), _Mark(window.until, rows)]
    by_share, counted = False, 0
    while moments := _moments_to_try(marks, goals, TOLERANCE * rows / pieces, by_share)[: most_counts - counted]:
        counts = count_many([SyncWindow(window.since, moment) for moment in moments])
        for mark in map(_Mark, moments, counts):
            insort(marks, mark)
        counted += len(moments)
        by_share = not by_share
    cuts = {min(marks, key=lambda mark: abs(mark.rows - goal)) for goal in goals} - {marks[0], marks[-1]}
    bounds = [_Mark(oldest, 0), *sorted(cuts), _Mark(window.until, rows)]
    return tuple(
        Slice(SyncWindow(window.since if first is bounds[0] else first.moment, last.moment), last.rows - first.rows)
        for first, last in pairwise(bounds)
    )


def _moments_to_try(marks: Sequence[_Mark], goals: Sequence[float], tolerance: float, by_share: bool) -> list[datetime]:
    """Return where to count next, for the goals that no mark is near to.

    By turns the stretch between the two marks around a goal is divided evenly among its goals, which is safe, and the
    place is guessed as if users were spread evenly over it, which is quick.
    """
    open_goals: dict[int, list[float]] = {}
    for goal in goals:
        if all(abs(mark.rows - goal) > tolerance for mark in marks):
            open_goals.setdefault(bisect_right([mark.rows for mark in marks], goal), []).append(goal)
    moments: list[datetime] = []
    for place, within in open_goals.items():
        before, after = marks[place - 1], marks[place]
        for number, goal in enumerate(within, start=1):
            share = (goal - before.rows) / (after.rows - before.rows) if by_share else number / (len(within) + 1)
            moment = _between(before.moment, after.moment, share, end=marks[-1].moment).replace(microsecond=0)
            moment = max(moment, before.moment.replace(microsecond=0) + ONE_SECOND)
            if moment < after.moment and moment not in moments:
                moments.append(moment)
    return moments


def _between(first: datetime, last: datetime, share: float, *, end: datetime) -> datetime:
    """Return the moment at that share of the way from `first` to `last`, by the logarithm of the age at `end`."""
    from_, to = (math.log1p((end - moment) / EVENLY_WITHIN) for moment in (first, last))
    return end - math.expm1(from_ + (to - from_) * share) * EVENLY_WITHIN
