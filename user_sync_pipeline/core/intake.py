"""The pages of one extraction, from Salesforce into the landing table, over REST or by Bulk 2.0.

What belongs here: into which slices a window is planned, by what they are read, and what becomes of each page.
What does not: how far is read, and what is written down at the end (`extraction.py`).

A slice that REST was reading when a run broke off goes on behind its last page. Pages of Bulk come in no order, so
that no place in it says what has been read: a slice that Bulk was reading begins anew, after a break as well as when
Bulk is refused and REST takes over, and what has landed of it is removed before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from user_sync_pipeline.core.positions import Position
from user_sync_pipeline.core.results import LandingResult
from user_sync_pipeline.core.salesforce.errors import BulkRefusedError
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.landing import Checkpoint, Landing
from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.records import UserPage
    from user_sync_pipeline.core.salesforce.rest import RestUserService

Plan = list[tuple[SyncWindow, int]]
Pages = Generator[tuple[int, "UserPage | None"], None, None]


def plan(rest: RestUserService, window: SyncWindow, limit: int | None = None) -> Plan:
    """Return the slices that `window` is read in, each with how many users it holds; one when it has a `limit`."""
    if limit is not None:
        return [(window, limit)]
    rows = rest.count_users(window)
    # What a Bulk job reads is cut by Salesforce itself.
    return [(window, rows)] if rest.transport_for(rows) == "bulk" else _cut(rest, window, rows)


class Intake:
    """Reads the planned slices of a landing that are not finished, and tells `result` what came of it.

    `columns` are those that the run has fetched so far, `settled_until` is the moment up to which Salesforce vouches
    for its answers. `on_page` is told behind each page how many users there are in all.
    """

    def __init__(
        self,
        engine: Engine,
        rest: RestUserService,
        landing: Landing,
        result: LandingResult,
        *,
        columns: tuple[str, ...],
        settled_until: datetime,
        limit: int | None,
        on_page: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._rest = rest
        self._landing = landing
        self._result = result
        self._columns = columns
        self._selection = rest.selected_fields()
        self._settled_until = settled_until
        self._limit = limit
        self._on_page = on_page

    def land(self) -> None:
        """Land all pages; raises the classes of `core/errors.py`, with every page before the trouble committed."""
        self._count_landed()
        slices = self._unfinished()
        if self._limit is not None:
            self._land_some(slices[0], self._limit)
            return
        if self._rest.transport_for(sum(slice_.rows_left for slice_ in slices)) == "bulk":
            slices = self._land_by_bulk(slices)
        if slices:
            page_size = self._rest.page_size_for(self._planned())
            stretches = _stretches(slices)
            pages = self._rest.fetch_slices(stretches, settled_until=self._settled_until, page_size=page_size)
            self._land_pages(slices, pages)
        self._count_landed()

    def _land_some(self, slice_: Checkpoint, limit: int) -> None:
        pages = self._rest.fetch_users(slice_.window, limit=limit, settled_until=self._settled_until)
        self._land_pages([slice_], ((0, page) for page in pages))
        self._result.limited = self._result.fetched >= limit

    def _land_by_bulk(self, slices: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Return the slices that are left to REST: none unless Bulk is refused."""
        self._result.transport = "bulk"
        try:
            self._land_pages(slices, self._rest.fetch_slices_by_bulk(_stretches(slices)), in_order=False)
        except BulkRefusedError as refused:
            self._result.transport = "rest"
            self._result.warnings += (f"The users were read over REST, not by Bulk 2.0: {refused}.",)
            self._landing.go_back_to_checkpoints()
            for slice_ in self._unfinished():
                if slice_.position is None:
                    self._landing.cut(slice_, _cut(self._rest, slice_.window, slice_.counted_rows))
            self._count_landed()
        return self._unfinished()

    def _land_pages(self, slices: Sequence[Checkpoint], pages: Pages, *, in_order: bool = True) -> None:
        result, planned = self._result, self._planned()
        with closing(pages):
            for number, page in pages:
                slice_ = slices[number]
                if page is None:
                    self._landing.finish_slice(slice_.slice)
                    continue
                self._note_lost_fields()
                self._landing.append(page.batch, page.rejected, slice_=slice_, in_order=in_order)
                result.fetched += page.fetched
                result.rejected.extend(page.rejected)
                self._on_page(page.total if self._limit is not None else max(planned, result.fetched))

    def _note_lost_fields(self) -> None:
        """Tell the ledger before a page is stored that a field has vanished: what is stored of it must stay."""
        selection, before = self._rest.selected_fields(), self._selection
        if selection is before:
            return
        self._selection = selection
        self._columns = tuple(column for column in self._columns if column in selection.columns)
        lost = tuple(name for name in before.soql_names if name not in selection.soql_names)
        self._result.lost_fields += lost
        self._result.hidden_fields = selection.hidden
        with self._engine.begin() as connection:
            ledger.record_lost_fields(
                connection,
                self._result.run_id,
                fields=selection.soql_names,
                columns=self._columns,
                lost=self._result.lost_fields,
            )

    def _count_landed(self) -> None:
        """Take from the tables what the run has landed so far, also before it broke off, each note once."""
        self._result.rejected = self._landing.rejected()
        landed = sum(slice_.landed_rows for slice_ in self._landing.checkpoints())
        self._result.fetched = landed + self._result.rows_not_stored

    def _unfinished(self) -> list[Checkpoint]:
        return [slice_ for slice_ in self._landing.checkpoints() if not slice_.finished]

    def _planned(self) -> int:
        return sum(slice_.counted_rows for slice_ in self._landing.checkpoints())


def _cut(rest: RestUserService, window: SyncWindow, rows: int) -> Plan:
    return [(slice_.window, slice_.rows) for slice_ in rest.plan_slices(window, rows)]


def _stretches(slices: Sequence[Checkpoint]) -> list[tuple[SyncWindow, Position | None]]:
    return [(slice_.window, slice_.position) for slice_ in slices]
