"""Reading one stretch of users in order, whatever befalls its query on the way.

What belongs here: which query comes next after pages, lost cursors, timeouts and vanished fields.
What does not: sessions and single requests (`rest.py`), several stretches at once (`parallel.py`).

Pages are read by Salesforce's own cursor. When that is lost, or its result turns out to change while it is read, a new
query goes on behind the last record; when a query takes too long, its window is halved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.positions import Position, last_position
from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage, read_envelope
from user_sync_pipeline.core.salesforce.selection import VisibleFields
from user_sync_pipeline.core.salesforce.slices import NOTHING_BEFORE, halves
from user_sync_pipeline.core.windows import SyncWindow

# A window that is not longer is not halved any more.
SHORTEST_WINDOW = timedelta(minutes=1)


class Client(Protocol):
    """What sends queries: the part of simple-salesforce that is used here."""

    def query(self, query: str) -> bytes:
        """Return the first page of a query."""

    def query_more(self, next_records_identifier: str, identifier_is_url: bool) -> bytes:
        """Return a further page."""


class _Change(msgspec.Struct):
    SystemModstamp: str


class _Changes(msgspec.Struct):
    records: list[_Change]


def oldest_change(client: Client, window: SyncWindow) -> datetime | None:
    """Ask for the first SystemModstamp in a window; None when nothing changed in it.

    When even that takes Salesforce too long, it is a moment before which nothing changed.
    """
    try:
        answer = client.query(soql.select_users(["SystemModstamp"], window, limit=1))
    except RefusedError as refused:
        if refused.decision is not Decision.HALVE:
            raise
        return window.since or NOTHING_BEFORE
    try:
        found = msgspec.json.decode(answer, type=_Changes).records
        return datetime.fromisoformat(found[0].SystemModstamp).astimezone(UTC) if found else None
    except ValueError:
        raise UnreachableError(
            "Salesforce answered a query with something that is not a page of records; run again."
        ) from None


class UserReader:
    """Reads the users that changed in `window`, ordered by SystemModstamp and Id, behind `after` if it is given.

    `settled_until` is the moment up to which Salesforce vouches for its answers: only behind records that were changed
    before it can one go on without leaving something out (`core/positions.py`).
    """

    def __init__(
        self,
        client: Client,
        fields: VisibleFields,
        window: SyncWindow,
        *,
        limit: int | None = None,
        after: Position | None = None,
        settled_until: datetime | None = None,
    ) -> None:
        self._client = client
        self._fields = fields
        self._selection = fields.selection()
        self._window = window
        self._left = limit
        self._after = after
        self._settled_until = min(window.until, settled_until or window.until)
        self._lost_at: Position | None = None
        self._has_lost = False

    def pages(self) -> Generator[UserPage, None, None]:
        """Yield at least one page, maybe empty. While a page is used, the next one is being fetched."""
        parts = [self._window]
        while parts:
            part = parts.pop()
            try:
                result_is_whole = yield from self._read(part)
            except RefusedError as refused:
                parts += self._parts_after(refused, part)
            else:
                if not result_is_whole:
                    parts.append(part)
            if self._left == 0:
                return

    def _read(self, part: SyncWindow) -> Generator[UserPage, None, bool]:
        """Read one query to its end; returns False when its result changed, so that it was left before."""
        decoder = PageDecoder(self._selection)
        began_after = self._after
        after = soql.Cursor(*began_after) if began_after else None
        query = soql.select_users(self._selection.soql_names, part, limit=self._left, after=after)
        pending: Future[bytes] | None = _in_background(self._client.query, query)
        first_total: int | None = None
        while pending is not None:
            body = pending.result()
            total, next_url = read_envelope(body)
            if first_total not in (None, total) and self._after != began_after:
                # A result that shrinks moves up, and its next page begins behind records that nobody has seen.
                return False
            first_total = total
            pending = _in_background(self._client.query_more, next_url, True) if next_url else None
            page = decoder.decode(body)
            if self._left is not None:
                self._left -= page.fetched
            self._after = last_position(page.batch, self._settled_until) or self._after
            yield page
        return True

    def _parts_after(self, refused: RefusedError, part: SyncWindow) -> list[SyncWindow]:
        """Return the windows to read in place of `part`, last one first; raises `refused` when there is no way on."""
        match refused.decision:
            case Decision.KEYSET if not self._has_lost or self._after != self._lost_at:
                self._has_lost, self._lost_at = True, self._after
                return [part]
            case Decision.HALVE:
                return self._halves(part, refused)
            case Decision.REDESCRIBE:
                self._selection = self._fields.look_again(self._selection, refused)
                return [part]
            case _:
                raise refused

    def _halves(self, part: SyncWindow, refused: RefusedError) -> list[SyncWindow]:
        since = part.since
        if self._after is not None and (since is None or since < self._after.system_modstamp):
            since = self._after.system_modstamp
        since = since or oldest_change(self._client, part)
        if since is None or part.until - since <= SHORTEST_WINDOW:
            raise refused
        first, second = halves(part, since)
        return [second, first]


def _in_background(fetch: Callable[..., bytes], *arguments: Any) -> Future[bytes]:
    """Call `fetch` in a thread that does not keep the program from ending; its result or error is in the future."""
    future: Future[bytes] = Future()

    def call() -> None:
        try:
            future.set_result(fetch(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="salesforce-page", daemon=True).start()
    return future
