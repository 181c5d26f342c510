"""Kinds of option that several commands share; a value that cannot be meant is refused with one sentence."""

from __future__ import annotations

from typing import Any
from uuid import UUID

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


class UuidValue(click.ParamType[UUID]):
    """The id of something, as Postgres writes ids."""

    name = "uuid"

    def __init__(self, what: str, where: str) -> None:
        self._what = what
        self._where = where

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """Return the id; raises `UsageError` saying where it is found."""
        try:
            return value if isinstance(value, UUID) else UUID(value)
        except ValueError:
            raise UsageError(f"{str(value)!r} is not the id of a {self._what}; give a UUID, {self._where}.") from None


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
users = click.option(
    "--users",
    type=WholeNumber(1, MOST_SANDBOX_USERS),
    metavar="N",
    help="How many Salesforce users to invent.  [default: 5000]",
)
