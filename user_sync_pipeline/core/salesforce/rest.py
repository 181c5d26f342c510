"""`RestUserService`: everything that the pipeline asks Salesforce.

What belongs here: which requests answer which question, and whether users are read page by page or by Bulk.
What does not: sign-in, tries, SOQL, decoding, the way through a query; each has its module. There is no way here to
write, or to send a query of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.positions import Position
from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.budget import ApiBudget
from user_sync_pipeline.core.salesforce.bulk import RECORDS_WORTH_A_JOB, BulkReader, Patience, expected_calls
from user_sync_pipeline.core.salesforce.client import RawSalesforce
from user_sync_pipeline.core.salesforce.columns import complete_id
from user_sync_pipeline.core.salesforce.coverage import ChangedUsers, changed_since, latest_date_covered
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.own_jobs import OwnJobs
from user_sync_pipeline.core.salesforce.parallel import in_parallel
from user_sync_pipeline.core.salesforce.read_only import READING, VERSIONS_PATH, AllowedRequest, ReadOnlyAdapter
from user_sync_pipeline.core.salesforce.reader import SHORTEST_WINDOW, UserReader, oldest_change
from user_sync_pipeline.core.salesforce.records import UserPage, read_envelope
from user_sync_pipeline.core.salesforce.rights import ASKING_FOR_RIGHTS, AccountRights, read_rights
from user_sync_pipeline.core.salesforce.selection import FieldSelection, VisibleFields
from user_sync_pipeline.core.salesforce.slices import Slice, cut, halves
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession, server_time
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import LARGEST_PAGE, SMALLEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow

__all__ = ["ApiUsage", "RestUserService"]

# Windows of up to this many records are read in the smallest pages, larger ones in the largest.
SMALL_WINDOW = 2000
# A window is cut only into slices of at least so many pages: finding where to cut costs requests as well.
PAGES_WORTH_A_SLICE = 6
# One count for so many pages is spent at most on finding where to cut: some three a cut where most changes are recent.
PAGES_FOR_A_COUNT = 2
# Salesforce decides how large the pages of a Bulk job are, and each is held while it is read: two keep both sides busy.
BULK_PAGES_AT_ONCE = 2


class _OrganizationRecord(msgspec.Struct):
    Id: str


class _Organizations(msgspec.Struct):
    records: list[_OrganizationRecord]


class RestUserService:
    """Reads users from one Salesforce organisation; signs in on first use.

    For one thread; pages are fetched ahead by a thread of its own. All methods raise `ConfigurationError`,
    `UnreachableError` or `PausedError` with a sentence for people. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        settings: SalesforceSettings | None = None,
        *,
        retry: RetryPolicy | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings or SalesforceSettings.from_environment()
        self._retry = retry
        self._patience = patience or Patience()
        self._authenticator = Authenticator(self._settings, retry)
        self._usage = ApiUsage()
        self._budget = ApiBudget.from_settings(self._settings)
        self._open_client: RawSalesforce | None = None
        self._fields = VisibleFields(self._describe, self._settings.extra_fields)
        self._org_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._open_client is not None:
            self._open_client.session.close()
            self._open_client = None

    @property
    def org_id(self) -> str:
        """The 18-character id of the organisation."""
        if self._org_id is None:
            self._org_id = self._authenticator.sign_in().org_id or self._ask_for_organization()
        return self._org_id

    @property
    def usage(self) -> ApiUsage:
        """Requests made by this object, and the organisation's quota; the same object throughout."""
        return self._usage

    @property
    def calls_left(self) -> int | None:
        """How many requests the reserve leaves of the organisation's quota; None while Salesforce has not told."""
        return self._budget.available(self._usage)

    def server_time(self) -> datetime:
        """Return Salesforce's clock, cut to the second, by a request that costs nothing of the quota."""
        client = self._client()
        return server_time(client.session.get(f"https://{client.sf_instance}{VERSIONS_PATH}"))

    def selected_fields(self) -> FieldSelection:
        """Return the fields that Salesforce shows to us: asked once, and once more when one of them vanishes."""
        return self._fields.selection()

    def account_rights(self) -> AccountRights:
        """Return what the integration user may do, by four requests that are no part of a sync."""
        with self._session(ASKING_FOR_RIGHTS, retry=self._retry) as session:
            return read_rights(self._over(session))

    def count_users(self, window: SyncWindow | None = None, *, created_before: datetime | None = None) -> int:
        """Return the number of users changed in `window` (None: ever) and created before a moment."""
        return _count(self._client(), window, created_before)

    def latest_date_covered(self, until: datetime) -> datetime | None:
        """Return up to when every change is visible by now, at most about `until`; later commits come later.

        None when Salesforce cannot say: for a moment more than 30 days ago, or when too many users changed before it.
        """
        return latest_date_covered(self._client(), until)

    def changed_since(self, since: datetime, *, until: datetime) -> ChangedUsers | None:
        """Return how many users changed from `since`, or up to two minutes earlier, to about `until`, by one request.

        None when Salesforce cannot list them, because `since` is more than 30 days ago or they are too many.
        """
        return changed_since(self._client(), since, until)

    def page_size_for(self, records: int) -> int:
        """Return how many records a page is asked to hold when that many are to be read."""
        if self._settings.page_size is not None:
            return self._settings.page_size
        return SMALLEST_PAGE if records <= SMALL_WINDOW else LARGEST_PAGE

    def plan_slices(self, window: SyncWindow, rows: int | None = None) -> tuple[Slice, ...]:
        """Cut `window` where many users changed in it (counted unless given); slices come in order, without a gap."""
        rows = self.count_users(window) if rows is None else rows
        pages = math.ceil(rows / self.page_size_for(rows))
        pieces = min(self._settings.parallel_requests, pages // PAGES_WORTH_A_SLICE)
        oldest = oldest_change(self._client(), window) if pieces > 1 else None
        if oldest is None:
            return (Slice(window, rows),)
        clients = [self._connect(SMALLEST_PAGE) for _ in range(pieces - 1)]

        def count_many(windows: Sequence[SyncWindow]) -> Sequence[int]:
            with ThreadPoolExecutor(len(windows)) as pool:
                return list(pool.map(_count, clients, windows))

        try:
            most_counts = pages // PAGES_FOR_A_COUNT
            return cut(window, rows, pieces, oldest=oldest, count_many=count_many, most_counts=most_counts)
        finally:
            for client in clients:
                client.session.close()

    def fetch_users(
        self,
        window: SyncWindow,
        *,
        limit: int | None = None,
        after: Position | None = None,
        settled_until: datetime | None = None,
        page_size: int | None = None,
    ) -> Generator[UserPage, None, None]:
        """Yield the users changed in `window`, ordered by SystemModstamp and Id: at least one page, maybe empty.

        `limit` stops after that many records; with `after` it goes on behind that record. `settled_until` is the
        moment up to which Salesforce vouches for its answers; the window's end when not given. Without a `page_size`,
        the limit or else the number of users decides. While a page is used, the next one is being fetched.
        """
        self.selected_fields()  # what is wrong with the fields is better known before anything is counted
        if page_size is None:
            known = limit is not None or self._settings.page_size is not None
            page_size = self.page_size_for((limit or 0) if known else self.count_users(window))
        client = self._connect(page_size)
        try:
            reader = UserReader(client, self._fields, window, limit=limit, after=after, settled_until=settled_until)
            yield from reader.pages()
        finally:
            client.session.close()

    def fetch_slices(
        self, slices: Sequence[tuple[SyncWindow, Position | None]], *, settled_until: datetime, page_size: int
    ) -> Generator[tuple[int, UserPage | None], None, None]:
        """Yield (number of the slice, page) of several windows, each read behind a position, as the pages come.

        As many as SALESFORCE_PARALLEL_REQUESTS are read at once. (number, None) tells that a slice was read to its end.
        """
        sources = [
            self.fetch_users(window, after=after, settled_until=settled_until, page_size=page_size)
            for window, after in slices
        ]
        return in_parallel(sources, workers=self._settings.parallel_requests)

    def transport_for(self, rows: int) -> Literal["rest", "bulk"]:
        """Return what so many users are read by, as SALESFORCE_TRANSPORT says; nobody is never worth a job."""
        least = {"rest": math.inf, "auto": RECORDS_WORTH_A_JOB, "bulk": 1}
        return "bulk" if rows >= least[self._settings.transport] else "rest"

    def bulk_calls_for(self, rows: int) -> int:
        """Return how many API calls a Bulk job of so many users takes; how often it is looked at is a guess."""
        return expected_calls(rows, self._patience)

    def fetch_slices_by_bulk(
        self, slices: Sequence[tuple[SyncWindow, Position | None]]
    ) -> Generator[tuple[int, UserPage | None], None, None]:
        """Yield as `fetch_slices` does, from a Bulk job a slice, one after the other; the users come in no order.

        Raises `BulkRefusedError` when they must be read by `fetch_slices`, maybe in the middle of a slice.
        """
        jobs = OwnJobs()

        def connect(*, tries: int | None = None) -> SalesforceSession:
            retry = self._retry or RetryPolicy()
            return self._session(jobs.allowed, retry=replace(retry, tries=tries) if tries else retry)

        origin = self._authenticator.sign_in().instance_url
        reader = BulkReader(
            connect,
            self._fields,
            jobs_url=f"{origin}/services/data/v{self._settings.api_version}/jobs/query",
            workers=min(self._settings.parallel_requests, BULK_PAGES_AT_ONCE),
            patience=self._patience,
        )
        for number, (window, after) in enumerate(slices):
            with closing(reader.pages(window, after)) as pages:
                for page in pages:
                    yield number, page
            yield number, None

    def _describe(self) -> bytes:
        return self._client().restful("sobjects/User/describe") or b""

    def _ask_for_organization(self) -> str:
        answer = self._client().query(soql.SELECT_ORGANIZATION_ID)
        try:
            return complete_id(msgspec.json.decode(answer, type=_Organizations).records[0].Id)
        except (ValueError, IndexError):
            raise ConfigurationError(
                "Salesforce does not tell its organisation to the integration user; "
                "an administrator must grant read access to Organization."
            ) from None

    def _client(self) -> RawSalesforce:
        if self._open_client is None:
            self._open_client = self._connect(self._settings.page_size or SMALLEST_PAGE)
        return self._open_client

    def _connect(self, page_size: int) -> RawSalesforce:
        """Return a client with a session of its own: a session serves one thread."""
        return self._over(self._session(READING, page_size=page_size, retry=self._retry))

    def _over(self, session: SalesforceSession) -> RawSalesforce:
        return RawSalesforce(
            session_id="put on by the session",
            instance_url=self._authenticator.sign_in().instance_url,
            version=self._settings.api_version,
            session=session,
        )

    def _session(
        self, allowed: tuple[AllowedRequest, ...], *, retry: RetryPolicy | None, page_size: int | None = None
    ) -> SalesforceSession:
        origin = self._authenticator.sign_in().instance_url
        return SalesforceSession(
            self._settings,
            ReadOnlyAdapter(origin, allowed, self._usage, self._budget),
            tokens=self._authenticator,
            page_size=page_size,
            retry=retry,
        )


def _count(client: RawSalesforce, window: SyncWindow | None, created_before: datetime | None = None) -> int:
    """Count users; a window that takes Salesforce too long is counted in halves."""
    try:
        total, _ = read_envelope(client.query(soql.count_users(window, created_before=created_before)))
        return total
    except RefusedError as refused:
        if window is None or refused.decision is not Decision.HALVE:
            raise
        since = window.since or oldest_change(client, window)
        if since is None or window.until - since <= SHORTEST_WINDOW:
            raise
        first, second = halves(window, since)
        return _count(client, first, created_before) + _count(client, second, created_before)
