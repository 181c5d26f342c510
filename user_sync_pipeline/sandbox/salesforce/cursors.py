"""Server-side cursors: what a query found, to be read page by page.

A query fixes which users it found and their order at its first request; later pages show each of these users as it
is when the page is read. A cursor lives two days, by the virtual clock, and the oldest gives way when there are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock
from user_sync_pipeline.sandbox.salesforce.errors import ApiError
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline.sandbox.salesforce.soql import Query
from user_sync_pipeline.sandbox.salesforce.users import User

LIFE = timedelta(days=2)
MOST_OPEN = 100
_PREFIX = "0r8"


@dataclass(frozen=True, slots=True)
class Cursor:
    """An open result: the statement, and the users that it found."""

    locator: str
    query: Query
    users: Sequence[User]
    opened: datetime


class CursorStore:
    """The open cursors of an organisation, by locator."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._opened = 0
        self._cursors: dict[str, Cursor] = {}

    def open(self, query: Query, users: Sequence[User]) -> Cursor:
        """Keep what a query found."""
        self._opened += 1
        cursor = Cursor(salesforce_id(_PREFIX, self._opened), query, users, self._clock.now())
        self._cursors[cursor.locator] = cursor
        if len(self._cursors) > MOST_OPEN:
            del self._cursors[next(iter(self._cursors))]
        return cursor

    def find(self, locator: str, offset: int) -> Cursor:
        """Return the cursor for a page that starts at `offset`; raises `ApiError` when there is no such page."""
        cursor = self._cursors.get(locator)
        if cursor is None or offset > len(cursor.users) or self._clock.now() - cursor.opened > LIFE:
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return cursor
