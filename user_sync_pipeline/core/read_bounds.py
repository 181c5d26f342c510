"""How far a window can be read by now, and up to when Salesforce vouches for what it shows.

What belongs here: both moments, by Salesforce's clock. What does not: reading (`extraction.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import RestUserService

# Salesforce shows a committed change after one to three seconds; nothing younger than this is read.
VISIBILITY_LAG = timedelta(seconds=60)
# A clock that is off by more is worth a warning; Salesforce's own is the one that counts.
TOLERATED_SKEW = timedelta(seconds=30)
# When Salesforce does not say up to when it vouches: longer than it lets a transaction run.
LONGEST_TRANSACTION = timedelta(hours=2)
OPEN_TRANSACTIONS = "Open transactions in Salesforce may still add changes from before read_until."


@dataclass(frozen=True, slots=True)
class ReadBounds:
    """How far a window is read, up to when Salesforce vouches for that, and why that is earlier, if it is."""

    read_until: datetime
    vouched_until: datetime
    held_reason: str | None


def read_until(window: SyncWindow, now: datetime) -> datetime:
    """Return how far a window can be read at the moment `now` of Salesforce's clock."""
    return min(window.until, now - VISIBILITY_LAG)


def ask_for_the_time(rest: RestUserService) -> tuple[datetime, tuple[str, ...]]:
    """Return Salesforce's clock, and a warning when that of this machine is far from it."""
    before = datetime.now(UTC)
    now = rest.server_time()
    skew = before + (datetime.now(UTC) - before) / 2 - now
    if abs(skew) <= TOLERATED_SKEW:
        return now, ()
    side = "ahead of" if skew > timedelta() else "behind"
    seconds = abs(round(skew.total_seconds()))
    return now, (f"The clock of this machine is {seconds:,} seconds {side} Salesforce's; set it right.",)


def ask_for_bounds(rest: RestUserService, window: SyncWindow, now: datetime) -> ReadBounds:
    """Ask Salesforce how far a window can be read at the moment `now` of its clock."""
    until = read_until(window, now)
    vouched_for = rest.latest_date_covered(now)
    if vouched_for is None:
        reason = "Salesforce does not say up to when its answers are whole, so a transaction may still be open."
        return ReadBounds(until, min(until, now - LONGEST_TRANSACTION), reason)
    if vouched_for >= until:
        return ReadBounds(until, until, None)
    return ReadBounds(until, vouched_for, OPEN_TRANSACTIONS)
