"""A row of the doctor's table, and how a look that fails becomes one.

What belongs here: states, rows, and the making of rows from looks. What does not: what is looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from user_sync_pipeline.core.errors import PausedError, UnreachableError, UserSyncError

State = Literal["ok", "warning", "broken", "not configured"]

LARGEST_SKEW = timedelta(seconds=30)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look brought: `mend` is one sentence, what to do, empty where nothing is to be done."""

    state: State
    detail: str
    mend: str = ""
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One row. Neither text holds a secret or the e-mail address of anybody."""

    area: str
    name: str
    finding: Finding

    def as_json(self) -> dict[str, Any]:
        """Return the keys of one entry of `checks`."""
        found = asdict(self.finding)
        del found["unreachable"]
        return {"area": self.area, "name": self.name, **found}


class Look(NamedTuple):
    """One thing to look at. Without what is `needed`, the looks behind it make no sense and are left out."""

    name: str
    at: Callable[[], Finding | Sequence[Check]]
    needed: bool = False


def ok(detail: str) -> Finding:
    """Return a finding with nothing to be done about."""
    return Finding("ok", detail)


def warning(detail: str, mend: str) -> Finding:
    """Return a finding with which the pipeline works, but not as it should, or not for ever."""
    return Finding("warning", detail, mend)


def broken(detail: str, mend: str) -> Finding:
    """Return a finding with which something does not work."""
    return Finding("broken", detail, mend)


def not_configured(detail: str, mend: str = "") -> Finding:
    """Return a finding about something that nobody asked for."""
    return Finding("not configured", detail, mend)


def take(looks: Sequence[Look], area: str, into: list[Check]) -> None:
    """Take one look after the other and put the rows `into` a list; a look that fails is a row of its own."""
    for look in looks:
        try:
            found = look.at()
        except Exception as error:
            found = _failed(error)
        if isinstance(found, Finding):
            found = [Check(area, look.name, found)]
        into.extend(found)
        if look.needed and any(check.finding.state in ("broken", "not configured") for check in found):
            return


def clock_finding(theirs: datetime, before: datetime, after: datetime) -> Finding:
    """Judge a clock that was read between two moments of this machine's."""
    ours = before + (after - before) / 2
    skew = theirs - ours
    seconds = abs(round(skew.total_seconds()))
    if abs(skew) <= LARGEST_SKEW + (after - before) / 2:
        return ok(f"within {max(seconds, 1)} s of this machine's")
    side = "ahead of" if skew > timedelta() else "behind"
    return warning(f"{seconds} s {side} this machine's", "Let a time service (NTP) set the clock of this machine.")


def now() -> datetime:
    """Return this machine's clock, in UTC."""
    return datetime.now(UTC)


def _failed(error: Exception) -> Finding:
    """Put a failure into a row: sentences for people say what is wrong, then, behind a semicolon, what to do."""
    if not isinstance(error, UserSyncError):
        _log.error("a look of the doctor failed with %s", type(error).__qualname__)
        return broken(f"This could not be looked at ({type(error).__name__}).", "Report this as a fault of user-sync.")
    detail, _, mend = str(error).rpartition("; ")
    detail, mend = (f"{detail}.", mend) if detail else (mend, "Mend this, then run the doctor again.")
    unreachable = isinstance(error, UnreachableError)
    state: State = "warning" if isinstance(error, PausedError) else "broken"
    return Finding(state, detail, mend[:1].upper() + mend[1:], unreachable)
