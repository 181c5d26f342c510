"""Kinds of option that several commands share; a value that cannot be meant is refused with one sentence."""

from __future__ import annotations

from typing import Any

import click

from user_sync_pipeline.core.errors import UsageError

MOST_SANDBOX_USERS = 1_000_000


class WholeNumber(click.ParamType[int]):
    """A whole number between two bounds, both included."""

    name = "number"

    def __init__(self, minimum: int, maximum: int | None = None) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; raises `UsageError` naming the option and the bounds."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or number < self._minimum or (self._maximum is not None and number > self._maximum):
            bounds = (
                f"{self._minimum:,} or more" if self._maximum is None else f"{self._minimum:,} to {self._maximum:,}"
            )
            option = param.opts[0] if param is not None else "The option"
            raise UsageError(f"{option} is {str(value)!r}; give a whole number, {bounds}.")
        return number


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
users = click.option(
    "--users",
    type=WholeNumber(1, MOST_SANDBOX_USERS),
    metavar="N",
    help="How many Salesforce users to invent.  [default: 5000]",
)
