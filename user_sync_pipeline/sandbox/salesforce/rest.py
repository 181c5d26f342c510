"""What the REST interface answers about users: describe, queries and their plans, `updated`, `deleted`, limits.

What belongs here: from a request that was let through to the body of its answer. What does not: paths, tokens, quota
and headers (`api.py`), and what a query finds (`evaluator.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import msgspec
from starlette.requests import Request

from user_sync_pipeline.sandbox.salesforce.answers import Answer
from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.cursors import Consistency
from user_sync_pipeline.sandbox.salesforce.errors import ApiError
from user_sync_pipeline.sandbox.salesforce.evaluator import names_in
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.quirks import CountRecords
from user_sync_pipeline.sandbox.salesforce.soql import Query, parse
from user_sync_pipeline.sandbox.salesforce.users import Record

SMALLEST_PAGE, LARGEST_PAGE = 200, 2_000
RETIRED_VERSIONS, VERSIONS = range(21, 31), range(31, 69)
OLDEST_UPDATE, OLDEST_DELETION = timedelta(days=30), timedelta(days=15)
SHORTEST_DELETION = timedelta(minutes=1)

_BATCH_SIZE = re.compile(r"batchSize=(\d+)")
_encode = msgspec.json.Encoder().encode


class RestHandlers:
    """Answers out of an organisation; every method raises `ApiError` for what Salesforce refuses."""

    def __init__(self, org: Org) -> None:
        self._org = org

    async def versions(self, _: Request) -> Answer:
        """List the API versions, as everybody may see them."""
        versions = [
            {"label": _season(version), "url": f"/services/data/v{version}.0", "version": f"{version}.0"}
            for version in VERSIONS
        ]
        return _json({"versions": versions} if self._org.quirks.versions_in_object else versions)

    async def describe(self, request: Request) -> Answer:
        """Describe User, without the fields that are hidden, unless nothing of it has changed since a given moment."""
        with self._org.lock:
            headers = {"Last-Modified": format_datetime(self._org.described_since, usegmt=True)}
            with suppress(ValueError):
                if parsedate_to_datetime(request.headers.get("if-modified-since", "")) >= self._org.described_since:
                    return Answer(status=304, headers=headers)
            return Answer(_encode(self._org.describe()), headers=headers)

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
        with self._org.lock:
            start, end = self._span(request, OLDEST_UPDATE)
            covered = self._org.latest_date_covered(end)
            if self._org.quirks.coverage_stays_in_span:
                covered = max(covered, start)
            ids = self._org.changed_between(start, end)
            most = self._org.most_updated_ids
        if len(ids) > most:
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"cannot return more than {most} ids")
        return _json({"ids": ids, "latestDateCovered": wire_time(covered)})

    async def deleted(self, request: Request) -> Answer:
        """Name the users who were deleted in a span: none, ever."""
        with self._org.lock:
            start, end = self._span(request, OLDEST_DELETION)
            if end - start < SHORTEST_DELETION:
                raise ApiError(400, "INVALID_REPLICATION_DATE", "endDate must be at least one minute after startDate")
            earliest = self._org.now() - OLDEST_DELETION
            covered = self._org.latest_date_covered(end)
        return _json(
            {
                "deletedRecords": [],
                "earliestDateAvailable": wire_time(earliest),
                "latestDateCovered": wire_time(covered),
            }
        )

    async def query(self, request: Request) -> Answer:
        """Answer the first page of a query, a count, or the plan of a query instead of its records."""
        if "explain" in request.query_params:
            return self._plan(parse(request.query_params["explain"]))
        query = parse(request.query_params.get("q", ""))
        with self._org.lock:
            if query.fields:
                return self._page(request, query, self._org.find(query))
            records: dict[CountRecords, dict[str, Any]] = {
                CountRecords.EMPTY: {"records": []},
                CountRecords.NULL: {"records": None},
            }
            counted: dict[str, Any] = {"totalSize": self._org.count(query), "done": True}
            return _json(counted | records.get(self._org.quirks.count_records, {}))

    def _plan(self, query: Query) -> Answer:
        """Tell how many records a query is expected to find, and that SystemModstamp and Id are indexed."""
        with self._org.lock:
            cardinality, total = self._org.count(query), self._org.total(query)
        bounded = [name for name in ("SystemModstamp", "Id") if name.lower() in names_in(query.where)]
        plan = {
            "cardinality": cardinality,
            "fields": bounded,
            "leadingOperationType": "Index" if bounded else "TableScan",
            "notes": [],
            "relativeCost": round(cardinality / max(1, total), 3),
            "sobjectCardinality": total,
            "sobjectType": "User",
        }
        return _json({"plans": [plan]})

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
        is_odd = wanted is not None and not SMALLEST_PAGE <= int(wanted[1]) <= LARGEST_PAGE
        if is_odd and self._org.quirks.odd_page_sizes_are_refused:
            raise ApiError(400, "INVALID_BATCH_SIZE", f"batchSize must be from {SMALLEST_PAGE} to {LARGEST_PAGE}")
        size = min(max(int(wanted[1]), SMALLEST_PAGE), LARGEST_PAGE) if wanted else LARGEST_PAGE
        return size if self._org.largest_page is None else min(size, self._org.largest_page)

    def _span(self, request: Request, oldest: timedelta) -> tuple[datetime, datetime]:
        """Read `start` and `end` of the query string, without their seconds; raises `ApiError`."""
        start, end = _moment(request, "start"), _moment(request, "end")
        if self._org.quirks.updated_cuts_seconds:
            start, end = (moment.replace(second=0) for moment in (start, end))
        if start >= end:
            raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate must be before endDate")
        if start < self._org.clock.now() - oldest:
            raise ApiError(400, "INVALID_REPLICATION_DATE", f"startDate cannot be more than {oldest.days} days ago")
        return start, end


def _json(content: Any) -> Answer:
    return Answer(_encode(content))


def _moment(request: Request, name: str) -> datetime:
    """Read a moment of the query string, in whole seconds; raises `ApiError`."""
    try:
        moment = datetime.fromisoformat(request.query_params.get(name, ""))
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise ApiError(400, "INVALID_REPLICATION_DATE", f"{name} is not a dateTime") from None
    return moment.replace(microsecond=0)


def _season(version: int) -> str:
    """Return the name of a release: 66 is Spring '26, and three make a year."""
    years, season = divmod(version - 66, 3)
    return f"{('Spring', 'Summer', 'Winter')[season]} '{26 + years + (season == 2)}"
