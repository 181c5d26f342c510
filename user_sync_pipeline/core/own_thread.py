"""Work that may hang for ever, done where it keeps nobody: in a thread that the end of the program does not wait for.

What belongs here: starting such work. What does not: how long its outcome is waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Outcome = TypeVar("Outcome")


def in_own_thread(work: Callable[[], Outcome]) -> Future[Outcome]:
    """Start `work` and return what will hold its outcome; it cannot be cancelled, only left alone."""
    future: Future[Outcome] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(outcome)

    threading.Thread(target=run, daemon=True).start()
    return future
