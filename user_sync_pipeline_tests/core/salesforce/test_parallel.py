"""Several sources at once: nothing lost, nothing out of order, bounded, and one end for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from user_sync_pipeline.core.salesforce.parallel import in_parallel


def slice_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "salesforce-slice"]


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_all_items_come_in_order_and_then_the_end_of_their_source(workers: int) -> None:
    sources = [range(number * 10) for number in range(5)]
    arrived = list(in_parallel(sources, workers))
    for number, source in enumerate(sources):
        assert [item for of, item in arrived if of == number] == [*source, None]


def test_as_many_sources_as_there_are_workers_are_read_at_once() -> None:
    together = threading.Barrier(3, timeout=60)

    def source() -> Iterator[str]:
        together.wait()
        yield "met"

    assert [item for _, item in in_parallel([source() for _ in range(3)], 3) if item] == ["met"] * 3


def test_no_more_items_wait_than_twice_the_workers() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    stream = in_parallel([source(), source()], 2)
    next(stream)
    time.sleep(0.1)
    assert len(made) <= 1 + 2 * 2
    stream.close()
    wait_until(lambda: not slice_threads())


def test_the_first_error_ends_all_and_is_raised_once_behind_what_was_begun() -> None:
    other_has_begun, broke = threading.Event(), threading.Event()

    def breaks() -> Iterator[str]:
        assert other_has_begun.wait(60)
        broke.set()
        raise ConnectionError("broken")
        yield

    def goes_on() -> Iterator[str]:
        other_has_begun.set()
        assert broke.wait(60)
        time.sleep(0.05)
        yield "was under way"
        yield "must not be asked for"

    arrived: list[object] = []
    stream = in_parallel([breaks(), goes_on()], 2)
    with pytest.raises(ConnectionError, match="broken"):
        arrived.extend(stream)
    assert arrived == [(1, "was under way")]
    wait_until(lambda: not slice_threads())
    assert list(stream) == []


def test_closing_leaves_no_thread_behind() -> None:
    stream = in_parallel([iter(range(100)) for _ in range(4)], 4)
    next(stream)
    stream.close()
    wait_until(lambda: not slice_threads())
