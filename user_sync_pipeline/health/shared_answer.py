"""One answer for all who ask within a while, so that polling costs nothing and no slow server is asked twice.

What belongs here: how long an answer is given again, and how long a new one is waited for.
What does not: what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from user_sync_pipeline.core.own_thread import in_own_thread
from user_sync_pipeline.health.report import Cause, Report

_log = logging.getLogger(__name__)


# A good answer that took long is kept for so many times as long, so that polling never keeps a server busy.
_REST = 10


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: an answer is `fresh` for so long, a new one is waited for with so much `patience`.

    While a new one takes longer than that, a former one that was fresh at most `grace` ago is given.
    """

    fresh: float
    patience: float
    grace: float = 0.0


class Aged(NamedTuple):
    """A report and its age in seconds."""

    report: Report
    age: float


class _Answer(NamedTuple):
    """A report, when it came, and until when it is fresh, by the clock."""

    report: Report
    came: float
    fresh_until: float


class SharedAnswer:
    """Asks in a thread of its own, one at a time however many wait; an asker that hangs hangs alone.

    `ask` returns a report; one that raises counts as an internal error. `slow` is the cause while nothing comes.
    """

    def __init__(
        self, ask: Callable[[], Report], times: Times, *, slow: Cause, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._times = times
        self._slow = Report(slow)
        self._clock = clock
        self._lock = Lock()
        self._running: Future[_Answer] | None = None
        self._last: _Answer | None = None

    async def get(self) -> Aged:
        """Return a report that is fresh, or the best there is when patience ends."""
        if self._last is not None and self._clock() < self._last.fresh_until:
            return self._aged(self._last)
        # Cancelling who waits does not cancel what runs: others wait for it too.
        waiting = asyncio.wrap_future(self._start())
        done, _ = await asyncio.wait([waiting], timeout=self._times.patience)
        if done:
            return self._aged(waiting.result())
        waiting.cancel()
        if self._last is not None and self._clock() < self._last.fresh_until + self._times.grace:
            return self._aged(self._last)
        return Aged(self._slow, 0.0)

    def _start(self) -> Future[_Answer]:
        """Return the asking that is under way, or has just brought an answer; a new one when there is none."""
        with self._lock:
            if self._running is None or (self._running.done() and self._clock() >= self._running.result().fresh_until):
                self._running = in_own_thread(self._examine)
            return self._running

    def _examine(self) -> _Answer:
        began = self._clock()
        try:
            report = self._ask()
        except Exception as error:  # a fault of ours; its text may hold anything
            _log.error("an examination failed with %s", type(error).__qualname__)
            report = Report("internal_error")
        now = self._clock()
        rest = _REST * (now - began) if report.is_healthy else 0.0
        self._last = _Answer(report, now, now + max(self._times.fresh, rest))
        return self._last

    def _aged(self, answer: _Answer) -> Aged:
        return Aged(answer.report, self._clock() - answer.came)
