"""A `user-sync` that runs until it is told to stop, as in a terminal of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from user_sync_pipeline_tests.conftest import assert_only_read

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
SECONDS_TO_STOP = 60


class RunningCommand:
    """The command, whose standard error is read line by line; a context manager, which stops it politely."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        command = [USER_SYNC, *arguments]
        self.process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def read_until(self, words: str) -> None:
        """Read what it says up to a line with these words; a command that ends without them fails the test."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return
        pytest.fail("".join(self.said))

    def stop(self, by: signal.Signals) -> int:
        """Send it a signal, read the rest of what it says and return its exit code."""
        self.process.send_signal(by)
        code = self.process.wait(SECONDS_TO_STOP)
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)
        self.process.stderr.close()
        assert_only_read("".join(self.said))
        return code
