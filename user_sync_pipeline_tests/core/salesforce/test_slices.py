"""Where a window is cut: everything in exactly one slice, evenly, and with few counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.salesforce.slices import Slice, cut, halves
from user_sync_pipeline.core.windows import SyncWindow

START = datetime(2016, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
ALL_SECONDS = int((END - START).total_seconds())


class Org:
    """Moments of change, in seconds after `START`."""

    def __init__(self, seconds: Sequence[int]) -> None:
        self.moments = sorted(START + timedelta(seconds=second) for second in seconds)
        self.counts = 0

    def count_many(self, windows: Sequence[SyncWindow]) -> list[int]:
        self.counts += len(windows)
        return [self.count(window) for window in windows]

    def count(self, window: SyncWindow) -> int:
        first = 0 if window.since is None else bisect_left(self.moments, window.since)
        return bisect_left(self.moments, window.until) - first

    def cut(self, pieces: int, *, since: datetime | None = None, most_counts: int = 40) -> tuple[Slice, ...]:
        return cut(
            SyncWindow(since, END),
            len(self.moments),
            pieces,
            oldest=self.moments[0],
            count_many=self.count_many,
            most_counts=most_counts,
        )


def spread(rows: int, kind: str) -> list[int]:
    """As organisations are: evenly, mostly of late, or nearly all by one mass update."""
    random = Random(1)  # noqa: S311
    if kind == "evenly":
        return [random.randrange(ALL_SECONDS) for _ in range(rows)]
    if kind == "mostly of late":
        return [int(ALL_SECONDS * (1 - random.random() ** 6)) - 1 for _ in range(rows)]
    by_day = ALL_SECONDS // 2
    return [by_day + random.randrange(7200) if random.random() < 0.9 else random.randrange(by_day) for _ in range(rows)]


@pytest.mark.parametrize("kind", ["evenly", "mostly of late", "by a mass update"])
@pytest.mark.parametrize("pieces", [2, 4, 16])
def test_slices_hold_about_equally_many_users(kind: str, pieces: int) -> None:
    org = Org(spread(50_000, kind))
    slices = org.cut(pieces, most_counts=12 * pieces)
    assert len(slices) == pieces
    assert max(slice_.rows for slice_ in slices) <= 1.2 * 50_000 / pieces


@pytest.mark.parametrize(("kind", "counts"), [("mostly of late", 8), ("evenly", 10), ("by a mass update", 36)])
def test_few_counts_are_needed_and_fewest_where_most_changes_are_recent(kind: str, counts: int) -> None:
    org = Org(spread(50_000, kind))
    org.cut(4)
    assert org.counts <= counts


def test_no_more_counts_are_spent_than_allowed() -> None:
    org = Org(spread(50_000, "by a mass update"))
    slices = org.cut(4, most_counts=5)
    assert org.counts == 5
    assert sum(slice_.rows for slice_ in slices) == 50_000


def test_users_of_one_second_stay_together() -> None:
    org = Org([1000] * 5000 + [10, 2000])
    slices = org.cut(4)
    assert [slice_.rows for slice_ in slices] in ([1, 5001], [5001, 1], [1, 5000, 1])


@pytest.mark.slow
@given(
    seconds=st.lists(
        st.one_of(st.integers(0, 100), st.integers(0, ALL_SECONDS - 1), st.just(77)), min_size=1, max_size=60
    ),
    pieces=st.integers(2, 16),
    most_counts=st.integers(0, 30),
    is_open=st.booleans(),
)
def test_slices_cover_the_window_without_a_gap_and_tell_their_rows(
    seconds: list[int], pieces: int, most_counts: int, is_open: bool
) -> None:
    org = Org(seconds)
    since = None if is_open else START - timedelta(days=1)
    slices = org.cut(pieces, since=since, most_counts=most_counts)
    assert (slices[0].window.since, slices[-1].window.until) == (since, END)
    assert all(first.window.until == second.window.since for first, second in pairwise(slices))
    assert [slice_.rows for slice_ in slices] == [org.count(slice_.window) for slice_ in slices]
    assert len(slices) <= pieces
    assert org.counts <= most_counts


@given(st.integers(61, ALL_SECONDS), st.booleans())
def test_halves_are_the_whole(seconds: int, is_open: bool) -> None:
    since = END - timedelta(seconds=seconds)
    window = SyncWindow(None if is_open else since, END)
    first, second = halves(window, since)
    assert (first.since, first.until, second.until) == (since, second.since, END)
    assert since < first.until < END
