"""What the commands say, and where: results on standard output, everything else on standard error.

What belongs here: JSON, tables, timed lines and progress, on a terminal and without one.
What does not: the texts of one command, nor the status block (`core/profiles/report.py`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_PLAIN_LINES = 5.0
_WIDTH_WITHOUT_TERMINAL = 110


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, the only thing that a command with `--json` writes to standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table on standard output; None shows as an empty cell, a `rich.text.Text` in its style."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1])
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
    console.print(f"\n[bold]{title}[/bold]")
    console.print(table)


def say(text: str = "") -> None:
    """Write a line for the person at the keyboard on standard error, above a line that moves."""
    if Activity.display is None:
        click.echo(text, err=True)
    else:
        Activity.display.console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_done(seconds: float, text: str) -> None:
    """Write what has been done and how long it took."""
    say(f"{seconds:7.1f} s  {text}")


def percent(share: float) -> str:
    """Format a share between 0 and 1, `12.5%`, small ones without pretending to be nothing."""
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


class Activity:
    """Work that takes a while: a moving line on a terminal, a plain line every few seconds without one.

    Leaves nothing behind on a terminal; what came of the work is said afterwards. One at a time.
    """

    display: ClassVar[Progress | None] = None

    def __init__(self, text: str) -> None:
        self.text = text
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BETWEEN_PLAIN_LINES
        self._first_told: tuple[float, int] | None = None
        self._task: TaskID | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the work, or the present part of it, began."""
        return time.monotonic() - self._started

    def begin(self, text: str) -> None:
        """Turn to the next part of the work, of which nothing is done yet."""
        self.text = text
        self._started = time.monotonic()
        self._first_told = None
        if self.display is not None and self._task is not None:
            self.display.reset(self._task, description=text, total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell how many of `total` are done; rate and time left are worked out here.

        Both are measured from the first time it is told: what was done before may be the work of an earlier run.
        """
        note = ", ".join(filter(None, (self._pace(done, total), note)))
        if self.display is not None and self._task is not None:
            self.display.update(self._task, completed=done, total=max(total, done, 1), note=note)
        elif self.display is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_PLAIN_LINES
            say(f"{self.text}: {note}")

    def __enter__(self) -> Activity:
        if sys.stderr.isatty():
            Activity.display = _moving_line()
            Activity.display.start()
            self._task = Activity.display.add_task(self.text, total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if Activity.display is not None:
            Activity.display.stop()
            Activity.display = None

    def _pace(self, done: int, total: int) -> str:
        figures = [f"{done:,} of {total:,}"]
        now = time.monotonic()
        since, before = self._first_told = self._first_told or (now, done)
        if done > before and now - since > 1:
            rate = (done - before) / (now - since)
            figures.append(f"{rate:,.0f}/s")
            if done < total:
                figures.append(f"{timedelta(seconds=round((total - done) / rate))} left")
        return ", ".join(figures)


def _moving_line() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
