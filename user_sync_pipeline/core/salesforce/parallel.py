"""Several iterators at once, each in a thread of its own, and their items in one stream.

What belongs here: threads, the bound on what they hold, and how they end together.
What does not: what is iterated over.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class _End(NamedTuple):
    """A worker has nothing more to do, or met an error."""

    error: BaseException | None = None


def in_parallel(sources: Sequence[Iterable[T]], workers: int) -> Generator[tuple[int, T | None], None, None]:
    """Yield (number of the source, item) as they come, and (number, None) behind the last item of each source.

    Items of one source keep their order. At most `workers` items wait here, and each worker may hold one more. An
    error stops all workers; it is raised once what they have begun was yielded. Closing this generator does not wait.
    """
    if workers == 1 or len(sources) == 1:
        for number, source in enumerate(sources):
            for item in source:
                yield number, item
            yield number, None
        return
    numbers = iter(range(len(sources)))
    next_number = threading.Lock()
    slots = threading.Semaphore(workers)
    stopped = threading.Event()
    items: SimpleQueue[tuple[int, T | None] | _End] = SimpleQueue()

    def put(number: int, item: T | None) -> bool:
        slots.acquire()
        items.put((number, item))
        return not stopped.is_set()

    def work() -> None:
        try:
            while not stopped.is_set():
                with next_number:
                    number = next(numbers, None)
                if number is None or not all(put(number, item) for item in sources[number]) or not put(number, None):
                    break
            items.put(_End())
        except BaseException as error:
            items.put(_End(error))

    threads = min(workers, len(sources))
    for _ in range(threads):
        threading.Thread(target=work, name="salesforce-slice", daemon=True).start()
    first_error: BaseException | None = None
    try:
        while threads:
            arrived = items.get()
            if isinstance(arrived, _End):
                threads -= 1
                if arrived.error is not None:
                    first_error = first_error or arrived.error
                    stopped.set()
            else:
                yield arrived
                slots.release()
    finally:
        stopped.set()
        slots.release(workers)
    if first_error is not None:
        raise first_error
