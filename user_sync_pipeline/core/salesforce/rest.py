"""`RestUserService`: everything that the pipeline asks Salesforce, over REST.

What belongs here: which requests answer which question, and pages in order with the next one fetched ahead.
What does not: sign-in, tries, SOQL, decoding; each has its module. There is no way here to write, or to send
a query of one's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NoReturn, Self

import msgspec
from requests import Response
from simple_salesforce.api import Salesforce

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.budget import ApiBudget
from user_sync_pipeline.core.salesforce.columns import complete_id
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError, RefusedError
from user_sync_pipeline.core.salesforce.read_only import READING, VERSIONS_PATH, ReadOnlyAdapter
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage, read_envelope
from user_sync_pipeline.core.salesforce.selection import FieldSelection, select_fields
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession, server_time
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import LARGEST_PAGE, SMALLEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow

__all__ = ["ApiUsage", "RestUserService"]

# Windows of up to this many records are read in the smallest pages, larger ones in the largest.
SMALL_WINDOW = 2000
# How far before the bound the question for `latestDateCovered` starts: longer than Salesforce lets a transaction
# run, and short enough that few ids come with the answer.
LOOK_BACK = timedelta(hours=2)
_CANNOT_SAY = frozenset({"INVALID_REPLICATION_DATE", "EXCEEDED_ID_LIMIT"})


class _RawSalesforce(Salesforce):
    """simple-salesforce, except that it hands over the bytes of an answer: they go straight into typed decoding."""

    @property
    def mdapi(self) -> NoReturn:
        """Refuse the metadata client, which would bring a session of its own."""
        raise NotReadOnlyError("The metadata API was not called, because only users are read here.")

    def parse_result_to_json(self, result: Response) -> bytes:
        return result.content


class _OrganizationRecord(msgspec.Struct):
    Id: str


class _Organizations(msgspec.Struct):
    records: list[_OrganizationRecord]


class _Updated(msgspec.Struct):
    latestDateCovered: str  # noqa: N815


class RestUserService:
    """Reads users from one Salesforce organisation; signs in on first use.

    For one thread; pages are fetched ahead by a thread of its own. All methods raise `ConfigurationError`,
    `UnreachableError` or `PausedError` with a sentence for people. Close it, or use it in a `with` statement.
    """

    def __init__(self, settings: SalesforceSettings | None = None, *, retry: RetryPolicy | None = None) -> None:
        self._settings = settings or SalesforceSettings.from_environment()
        self._retry = retry
        self._authenticator = Authenticator(self._settings, retry)
        self._usage = ApiUsage()
        self._budget = ApiBudget.from_settings(self._settings)
        self._open_client: _RawSalesforce | None = None
        self._selection: FieldSelection | None = None
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

    def server_time(self) -> datetime:
        """Return Salesforce's clock, cut to the second, by a request that costs nothing of the quota."""
        client = self._client()
        return server_time(client.session.get(f"https://{client.sf_instance}{VERSIONS_PATH}"))

    def selected_fields(self) -> FieldSelection:
        """Return the fields that Salesforce shows to us; asked once, then kept."""
        if self._selection is None:
            described = self._client().restful("sobjects/User/describe") or b""
            self._selection = select_fields(described, self._settings.extra_fields)
        return self._selection

    def count_users(self, window: SyncWindow | None = None, *, created_before: datetime | None = None) -> int:
        """Return the number of users changed in `window` (None: ever) and created before a moment."""
        total, _ = read_envelope(self._client().query(soql.count_users(window, created_before=created_before)))
        return total

    def latest_date_covered(self, until: datetime) -> datetime | None:
        """Return up to when every change is visible by now, at most about `until`; later commits come later.

        None when Salesforce cannot say, as for a moment more than 30 days ago.
        """
        end = until.astimezone(UTC)
        if end.microsecond:
            end = end.replace(microsecond=0) + timedelta(seconds=1)
        parameters = {"start": _second(end - LOOK_BACK), "end": _second(end)}
        try:
            answer = self._client().restful("sobjects/User/updated/", params=parameters) or b""
        except RefusedError as refused:
            if refused.code in _CANNOT_SAY:
                return None
            raise
        try:
            return datetime.fromisoformat(msgspec.json.decode(answer, type=_Updated).latestDateCovered).astimezone(UTC)
        except ValueError:
            raise UnreachableError("Salesforce did not say up to when its changes are visible; run again.") from None

    def page_size_for(self, records: int) -> int:
        """Return how many records a page is asked to hold when that many are to be read."""
        if self._settings.page_size is not None:
            return self._settings.page_size
        return SMALLEST_PAGE if records <= SMALL_WINDOW else LARGEST_PAGE

    def fetch_users(self, window: SyncWindow, *, limit: int | None = None) -> Generator[UserPage, None, None]:
        """Yield the users changed in `window`, ordered by SystemModstamp and Id: at least one page, maybe empty.

        `limit` stops after that many records. While a page is used, the next one is being fetched.
        """
        selection = self.selected_fields()
        query = soql.select_users(selection.soql_names, window, limit=limit)
        decoder = PageDecoder(selection)
        client = self._connect(self._page_size(window, limit))
        try:
            pending: Future[bytes] | None = _in_background(client.query, query)
            while pending is not None:
                body = pending.result()
                _, next_url = read_envelope(body)
                pending = _in_background(client.query_more, next_url, True) if next_url else None
                yield decoder.decode(body)
        finally:
            client.session.close()

    def _page_size(self, window: SyncWindow, limit: int | None) -> int:
        """Choose the page size, by a count only where the answer depends on it."""
        known = self._settings.page_size is not None or (limit is not None and limit <= SMALL_WINDOW)
        return self.page_size_for(0 if known else self.count_users(window))

    def _ask_for_organization(self) -> str:
        answer = self._client().query(soql.SELECT_ORGANIZATION_ID)
        try:
            return complete_id(msgspec.json.decode(answer, type=_Organizations).records[0].Id)
        except (ValueError, IndexError):
            raise ConfigurationError(
                "Salesforce does not tell its organisation to the integration user; "
                "an administrator must grant read access to Organization."
            ) from None

    def _client(self) -> _RawSalesforce:
        if self._open_client is None:
            self._open_client = self._connect(self._settings.page_size or SMALLEST_PAGE)
        return self._open_client

    def _connect(self, page_size: int) -> _RawSalesforce:
        """Return a client with a session of its own: a session serves one thread."""
        sign_in = self._authenticator.sign_in()
        session = SalesforceSession(
            self._settings,
            ReadOnlyAdapter(sign_in.instance_url, READING, self._usage, self._budget),
            tokens=self._authenticator,
            page_size=page_size,
            retry=self._retry,
        )
        return _RawSalesforce(
            session_id="put on by the session",
            instance_url=sign_in.instance_url,
            version=self._settings.api_version,
            session=session,
        )


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


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
