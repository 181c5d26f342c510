"""One answer for all who poll: how long it is given again, and what becomes of those who wait for a slow one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from user_sync_pipeline.health.report import Cause, Report
from user_sync_pipeline.health.shared_answer import SharedAnswer, Times

FRESH = 60.0


class Asked:
    """Counts how often it is asked, and waits until it is let go; `takes` seconds by its own clock."""

    def __init__(self) -> None:
        self.times = 0
        self.let_go = threading.Event()
        self.error: Exception | None = None
        self.cause: Cause | None = None
        self.takes = 0.0
        self.now = 0.0

    def __call__(self) -> Report:
        self.times += 1
        self.let_go.wait(60)
        self.now += self.takes
        if self.error is not None:
            raise self.error
        return Report(self.cause, {"asked": self.times})

    def clock(self) -> float:
        return self.now


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    asked.let_go.set()


def shared(ask: Asked, *, patience: float = 60, grace: float = 0) -> SharedAnswer:
    return SharedAnswer(ask, Times(FRESH, patience, grace), slow="database_slow", clock=ask.clock)


def test_a_hundred_who_ask_at_once_share_one_examination(asked: Asked) -> None:
    answer = shared(asked)

    async def all_of_them() -> list[Report]:
        waiting = [asyncio.create_task(answer.get()) for _ in range(100)]
        await asyncio.sleep(0)
        asked.let_go.set()
        return [aged.report for aged in await asyncio.gather(*waiting)]

    assert asyncio.run(all_of_them()) == [Report(figures={"asked": 1})] * 100
    asyncio.run(answer.get())
    assert asked.times == 1


def test_an_answer_that_is_no_longer_fresh_is_asked_for_again(asked: Asked) -> None:
    asked.let_go.set()
    answer = shared(asked)
    given = []
    for asked.now in (0.0, FRESH - 1, FRESH, 2 * FRESH - 1, 2 * FRESH):
        report, age = asyncio.run(answer.get())
        given.append((report.figures["asked"], age))
    assert given == [(1, 0), (1, FRESH - 1), (2, 0), (2, FRESH - 1), (3, 0)]


@pytest.mark.parametrize(("cause", "asked_again"), [(None, False), ("database_unreachable", True)])
def test_what_took_long_is_kept_longer_unless_something_is_wrong(
    asked: Asked, cause: Cause | None, asked_again: bool
) -> None:
    asked.let_go.set()
    asked.cause, asked.takes = cause, FRESH
    answer = shared(asked)
    asyncio.run(answer.get())
    asked.now += 2 * FRESH
    asyncio.run(answer.get())
    assert (asked.times == 2) is asked_again


def test_who_waits_too_long_is_told_so_and_nobody_asks_a_second_time_meanwhile(asked: Asked) -> None:
    answer = shared(asked, patience=0.01)
    for _ in range(5):
        assert asyncio.run(answer.get()).report == Report("database_slow")
    assert asked.times == 1


def test_what_comes_late_is_given_to_those_who_ask_then(asked: Asked) -> None:
    answer = shared(asked, patience=0.01)
    assert asyncio.run(answer.get()).report.cause == "database_slow"
    asked.let_go.set()
    for _ in range(6000):
        if (aged := asyncio.run(answer.get())).report.is_healthy:
            break
    assert aged.report.figures == {"asked": 1}


def test_a_former_answer_is_given_for_a_while_when_a_new_one_takes_its_time(asked: Asked) -> None:
    asked.let_go.set()
    answer = shared(asked, patience=0.01, grace=FRESH)
    while not asyncio.run(answer.get()).report.is_healthy:
        pass
    asked.let_go.clear()
    asked.now = 2 * FRESH - 1
    assert asyncio.run(answer.get()).report.figures == {"asked": 1}
    asked.now = 2 * FRESH
    assert asyncio.run(answer.get()).report == Report("database_slow")
    assert asked.times == 2


def test_one_who_gives_up_waiting_spoils_it_for_nobody(asked: Asked) -> None:
    answer = shared(asked)

    async def one_of_two_gives_up() -> Report:
        impatient, patient = (asyncio.create_task(answer.get()) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        asked.let_go.set()
        return (await patient).report

    assert asyncio.run(one_of_two_gives_up()).is_healthy


def test_a_fault_of_ours_is_an_internal_error_whose_text_goes_nowhere(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    asked.error = RuntimeError("ann@example.com")
    asked.let_go.set()
    with caplog.at_level(logging.DEBUG):
        assert asyncio.run(shared(asked).get()).report == Report("internal_error")
    assert "RuntimeError" in caplog.text
    assert "example.com" not in caplog.text
