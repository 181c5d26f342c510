"""What the REST interface answers about users: describe, queries page by page, `updated`, limits, versions.

What belongs here: from a request that was let through to the body of its answer. What does not: paths, tokens, quota
and headers (`api.py`), and what a query finds (`evaluator.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from starlette.requests import Request

from user_sync_pipeline.sandbox.salesforce.answers import Answer
from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.cursors import Consistency
from user_sync_pipeline.sandbox.salesforce.errors import ApiError
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.soql import Query, parse
from user_sync_pipeline.sandbox.salesforce.users import Record

SMALLEST_PAGE, LARGEST_PAGE = 200, 2_000
RETIRED_VERSIONS, VERSIONS = range(21, 31), range(31, 69)
OLDEST_UPDATE = timedelta(days=30)

_BATCH_SIZE = re.compile(r"batchSize=(\d+)")
_encode = msgspec.json.Encoder().encode


class RestHandlers:
    """Answers out of an organisation; every method raises `ApiError` for what Salesforce refuses."""

    def __init__(self, org: Org) -> None:
        self._org = org

    async def versions(self, _: Request) -> Answer:
        """List the API versions, as everybody may see them."""
        return _json(
            [
                {"label": _season(version), "url": f"/services/data/v{version}.0", "version": f"{version}.0"}
                for version in VERSIONS
            ]
        )

    async def describe(self, _: Request) -> Answer:
        """Describe User, without the fields that are hidden."""
        with self._org.lock:
            return _json(self._org.describe())

    async def limits(self, _: Request) -> Answer:
        """Tell what is left of the quotas."""
        self._org.permissions.require_setup()
        with self._org.lock:
            quota, jobs = self._org.quota, self._org.jobs
            return _json(
                {
                    "DailyApiRequests": {"Max": quota.limit, "Remaining": quota.remaining},
                    "DailyBulkApiBatches": {"Max": 15_000, "Remaining": 15_000},
                    "DailyBulkV2QueryFileStorageMB": {"Max": 976_562, "Remaining": 976_562},
                    "DailyBulkV2QueryJobs": {"Max": jobs.settings.daily_jobs, "Remaining": jobs.remaining},
                }
            )

    async def updated(self, request: Request) -> Answer:
        """Name the users who changed in a span, and up to when that is certain."""
        start, end = _cut_moment(request, "start"), _cut_moment(request, "end")
        if start >= end:
            raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate must be before endDate")
        with self._org.lock:
            if start < self._org.clock.now() - OLDEST_UPDATE:
                raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate cannot be more than 30 days ago")
            covered = self._org.latest_date_covered(end)
            ids = self._org.changed_between(start, end)
            most = self._org.most_updated_ids
        if len(ids) > most:
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"cannot return more than {most} ids")
        return _json({"ids": ids, "latestDateCovered": wire_time(covered)})

    async def query(self, request: Request) -> Answer:
        """Answer the first page of a query, or a count."""
        query = parse(request.query_params.get("q", ""))
        with self._org.lock:
            if not query.fields:
                return _json({"totalSize": self._org.count(query), "done": True, "records": []})
            return self._page(request, query, self._org.find(query))

    async def next_page(self, request: Request) -> Answer:
        """Answer a further page of a query."""
        locator, offset = request.path_params["locator"], request.path_params["offset"]
        with self._org.lock:
            cursors = self._org.cursors
            cursor = cursors.find(locator, offset)
            live = cursors.consistency is Consistency.LIVE
            records = self._org.find(cursor.query) if live else cursor.records
            return self._page(request, cursor.query, records, offset, locator)

    def _page(
        self, request: Request, query: Query, records: Sequence[Record], offset: int = 0, locator: str | None = None
    ) -> Answer:
        """Write one page of what a query found, opening a cursor for the rest when it has none yet."""
        version = request.path_params["version"]
        writer = self._org.writer(version, query)
        end = min(offset + self._page_size(request), max(offset, len(records)))
        done = end >= len(records) and not (self._org.empty_last_page and end > offset)
        head: dict[str, Any] = {"totalSize": len(records), "done": done}
        if not done:
            locator = locator or self._org.cursors.open(query, records).locator
            head["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{end}"
        texts = b",".join(writer.write(record) for record in records[offset:end])
        return Answer(b'%b,"records":[%b]}' % (_encode(head)[:-1], texts))

    def _page_size(self, request: Request) -> int:
        """Return how many records a page holds at most; Salesforce takes a number out of range as the nearest."""
        wanted = _BATCH_SIZE.search(request.headers.get("sforce-query-options", ""))
        size = min(max(int(wanted[1]), SMALLEST_PAGE), LARGEST_PAGE) if wanted else LARGEST_PAGE
        return size if self._org.largest_page is None else min(size, self._org.largest_page)


def _json(content: Any) -> Answer:
    return Answer(_encode(content))


def _cut_moment(request: Request, name: str) -> datetime:
    """Read a moment of the query string, without its seconds; raises `ApiError`."""
    try:
        moment = datetime.fromisoformat(request.query_params.get(name, ""))
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise ApiError(400, "INVALID_REPLICATION_DATE", f"{name} is not a dateTime") from None
    return moment.replace(second=0, microsecond=0)


def _season(version: int) -> str:
    """Return the name of a release: 66 is Spring '26, and three make a year."""
    years, season = divmod(version - 66, 3)
    return f"{('Spring', 'Summer', 'Winter')[season]} '{26 + years + (season == 2)}"
