"""Histories of an organisation and of the runs that follow it: what can happen, and how a history is made up.

What belongs here: the steps, as plain data that reads well in a failure, and the strategies that draw them.
What does not: playing them (`history_player.py`), and the right answer (`committed_history.py`).

Nothing in a step depends on what happened before: a user or a transaction is meant by a number that is taken modulo
how many there are then, and a step that has nobody to act on does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

Change = Literal["insert", "edit", "deactivate", "reactivate", "rename", "swap user names"]
Changes = Sequence[tuple[Change, int]]
Window = Literal["since the watermark", "full", "recent", "as before"]
SINCE_THE_WATERMARK: Window = "since the watermark"


@dataclass(frozen=True, slots=True)
class Wait:
    """Time goes by."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Write:
    """A transaction makes these changes in one moment, each to a user.

    It ends at once, is left open, or is committed at once and seen `seen_after` seconds later.
    """

    changes: Changes
    then: Literal["commit", "leave open"] = "commit"
    seen_after: int = 0


@dataclass(frozen=True, slots=True)
class WriteMore:
    """A transaction that was left open makes more changes."""

    transaction: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class End:
    """A transaction that was left open ends."""

    transaction: int
    how: Literal["commit", "roll back"] = "commit"


@dataclass(frozen=True, slots=True)
class LoseCursors:
    """Salesforce forgets all results that are being read."""


@dataclass(frozen=True, slots=True)
class SetLocalClock:
    """The clock of this machine is ahead of Salesforce's by so many minutes."""

    minutes: int


Happening = Wait | Write | WriteMore | End | LoseCursors


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Something happens when the given request of a run arrives, counted from one, before it is answered."""

    request: int
    what: Happening


@dataclass(frozen=True, slots=True)
class Break:
    """A run ends before its time, at the given request or commit, counted from one."""

    how: Literal["killed at request", "killed at commit", "network lost at request", "quota used up at request"]
    number: int


@dataclass(frozen=True, slots=True)
class Hours:
    """A window given by dates: hours from the beginning of the history."""

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Run:
    """A process starts, lands a window and, unless it is told not to, merges it.

    `as before` is the window of the run before, or everything. `vouched`: whether Salesforce says up to when its
    answers are whole.
    """

    window: Window | Hours = SINCE_THE_WATERMARK
    limit: int | None = None
    merges: bool = True
    vouched: bool = True
    meanwhile: Sequence[Meanwhile] = ()
    broken: Break | None = None

    @property
    def loses_cursors(self) -> int:
        """How often it loses its place."""
        return sum(each.what == LoseCursors() for each in self.meanwhile)

    @property
    def may_break_off(self) -> bool:
        """Whether it may end without a result: who loses the place twice before getting ahead gives up."""
        return self.broken is not None or self.loses_cursors > 1


@dataclass(frozen=True, slots=True)
class MergeLanded:
    """The merge of a window is made up for, as by somebody who starts again what had failed."""

    window: Window | Hours


Step = Wait | Write | WriteMore | End | SetLocalClock | Run | MergeLanded


@dataclass(frozen=True, slots=True)
class History:
    """What happens, one step after another, to an organisation of so many users, made in one moment.

    A run reads pages of `page` users, in up to `slices` slices at once.
    """

    users: int
    steps: Sequence[Step]
    page: int = 2
    slices: int = 1


# Making them up -----------------------------------------------------------------------------------------------------


def _one_of(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw from one of the strategies, from one that is named twice twice as often."""
    return st.integers(0, len(strategies) - 1).flatmap(strategies.__getitem__)


_MANY = st.integers(0, 30)
# Within a second, within the lag, within the overlap, beyond what a transaction may last; and odd fractions of it.
_WAITS = st.builds(
    Wait, st.sampled_from([0.4, 1, 1.7, 20, 59.9, 61, 150.25, 599, 601, 1_800, 3_601.5, 3 * 3_600, 9 * 3_600])
)
_CHANGE = st.tuples(st.sampled_from(["edit", "insert", "deactivate", "reactivate", "rename", "swap user names"]), _MANY)
# Some wider than a page, so that they are one stamp across its border.
_CHANGES = st.lists(_CHANGE, min_size=1, max_size=5)
_WRITES = st.builds(Write, _CHANGES, st.sampled_from(["leave open", "commit"]), st.sampled_from([0, 0, 1, 3]))
_ENDS = st.builds(End, st.integers(0, 3), st.sampled_from(["commit", "commit", "commit", "roll back"]))
_WRITES_MORE = st.builds(WriteMore, st.integers(0, 3), _CHANGES)
_MEANWHILE = st.builds(
    Meanwhile, st.integers(3, 16), _one_of(_WRITES, _ENDS, _WAITS, _WRITES_MORE, st.just(LoseCursors()))
)
_BREAKS = st.one_of(
    st.builds(
        Break,
        st.sampled_from(["killed at request", "network lost at request", "quota used up at request"]),
        st.integers(3, 14),
    ),
    st.builds(Break, st.just("killed at commit"), st.integers(1, 12)),
)
_HOURS = st.tuples(st.integers(-1, 5), st.sampled_from([1, 1, 2, 3, 12])).map(lambda drawn: Hours(drawn[0], sum(drawn)))
_WINDOWS = _one_of(
    st.just(SINCE_THE_WATERMARK), st.just(SINCE_THE_WATERMARK), st.sampled_from(["full", "recent"]), _HOURS
)
_RUNS = st.builds(
    Run,
    _WINDOWS,
    limit=_one_of(st.none(), st.none(), st.integers(1, 5)),
    merges=st.sampled_from([True, True, True, False]),
    vouched=st.sampled_from([True, True, True, False]),
    meanwhile=st.lists(_MEANWHILE, max_size=3),
)
_BROKEN_RUNS = st.builds(
    Run,
    _WINDOWS,
    vouched=st.sampled_from([True, True, True, False]),
    meanwhile=st.lists(_MEANWHILE, max_size=2),
    broken=_BREAKS,
)
_ONE_STEP = _one_of(
    _WRITES,
    _WRITES,
    _WAITS,
    _WAITS,
    _RUNS,
    _RUNS,
    _BROKEN_RUNS,
    _ENDS,
    _WRITES_MORE,
    st.builds(SetLocalClock, st.integers(-60, 60)),
    st.builds(MergeLanded, _WINDOWS),
).map(lambda step: [step])
# A run that broke off, what happened then, and the run that goes on.
_RUN_IN_TWO = st.tuples(
    _BROKEN_RUNS, st.lists(_one_of(_WRITES, _WAITS, _ENDS, _RUNS), max_size=2), st.just(Run("as before"))
).map(lambda parts: [parts[0], *parts[1], parts[2]])
# A window that was landed and not merged, what happened then, and its merge.
_MERGED_LATER = _HOURS.flatmap(
    lambda hours: st.lists(_one_of(_WRITES, _WAITS, _RUNS), min_size=1, max_size=4).map(
        lambda between: [Run(hours, merges=False), *between, MergeLanded(hours)]
    )
)
_STEPS = st.lists(_one_of(*[_ONE_STEP] * 6, _RUN_IN_TWO, _MERGED_LATER), min_size=2, max_size=7).map(
    lambda groups: [step for group in groups for step in group]
)

HISTORIES = st.builds(
    History, st.integers(2, 8), _STEPS, page=st.sampled_from([2, 1, 2, 3]), slices=st.sampled_from([1, 1, 2, 3])
)
