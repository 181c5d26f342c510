"""Server-side cursors: what a query found, to be read page by page.

What belongs here: how long a cursor lives, and what it remembers of its result. What does not: pages (`rest.py`).
Salesforce documents neither for certain, so both can be switched.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock
from user_sync_pipeline.sandbox.salesforce.errors import usual_error
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline.sandbox.salesforce.soql import Query
from user_sync_pipeline.sandbox.salesforce.users import Record

_PREFIX = "0r8"


@dataclass(frozen=True, slots=True)
class CursorRules:
    """How long a cursor lives after its query and after its last use; of more than `most_open` the oldest goes."""

    life: timedelta
    idle: timedelta
    most_open: int


PRESENT_RULES = CursorRules(life=timedelta(days=2), idle=timedelta(days=2), most_open=100)
OLDER_RULES = CursorRules(life=timedelta(days=2), idle=timedelta(minutes=15), most_open=10)


class Consistency(Enum):
    """What the pages after the first one show."""

    IDS_FIXED = auto()
    """The records that the query found, each as it is when its page is read."""
    SNAPSHOT = auto()
    """The records that the query found, as they were then."""
    LIVE = auto()
    """What the query would find now."""


@dataclass(slots=True)
class Cursor:
    """An open result: the statement, and the records that it found."""

    locator: str
    query: Query
    records: Sequence[Record]
    opened: datetime
    last_used: datetime


class CursorStore:
    """The open cursors of the integration user, by locator."""

    def __init__(self, clock: VirtualClock) -> None:
        self.rules = PRESENT_RULES
        self.consistency = Consistency.IDS_FIXED
        self._clock = clock
        self._opened = 0
        self._cursors: dict[str, Cursor] = {}

    def open(self, query: Query, records: Sequence[Record]) -> Cursor:
        """Keep what a query found."""
        self._opened += 1
        if self.consistency is Consistency.SNAPSHOT:
            records = [copy(record) for record in records]
        now = self._clock.now()
        cursor = Cursor(salesforce_id(_PREFIX, self._opened), query, records, now, now)
        self._cursors[cursor.locator] = cursor
        while len(self._cursors) > self.rules.most_open:
            del self._cursors[next(iter(self._cursors))]
        return cursor

    def find(self, locator: str, offset: int) -> Cursor:
        """Return the cursor for a page that starts at `offset`; raises `ApiError` when there is no such page."""
        cursor, now = self._cursors.get(locator), self._clock.now()
        if (
            cursor is None
            or offset > len(cursor.records)
            or now - cursor.opened > self.rules.life
            or now - cursor.last_used > self.rules.idle
        ):
            raise usual_error("INVALID_QUERY_LOCATOR")
        cursor.last_used = now
        return cursor

    def release_all(self) -> None:
        """Let every open cursor be gone."""
        self._cursors.clear()
