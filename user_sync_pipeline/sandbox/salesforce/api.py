"""The REST interface: which paths there are, and what goes with every answer.

What belongs here: routes, authentication, quota, headers, pages, the journal. What does not: what a query finds.
Every request passes `SalesforceApi.answer`: whatever may befall a request, whichever it is, has its place there.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, QueryError
from user_sync_pipeline.sandbox.salesforce.journal import Journal
from user_sync_pipeline.sandbox.salesforce.oauth import OAuthError, TokenService
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.soql import Query, parse
from user_sync_pipeline.sandbox.salesforce.users import User

SMALLEST_PAGE, LARGEST_PAGE = 200, 2_000
RETIRED_VERSIONS, VERSIONS = range(21, 31), range(31, 69)
LONGEST_ADDRESS = 16_384  # bytes of path and query
MOST_UPDATED_IDS = 600_000
OLDEST_UPDATE = timedelta(days=30)

_SMALLEST_COMPRESSED = 2_048
_DATA = "/services/data/v{version}"
_BATCH_SIZE = re.compile(r"batchSize=(\d+)")
_encode = msgspec.json.Encoder().encode

Handler = Callable[[Request], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One path as an ASGI application: the only method that it allows, and what answers it.

    An `open` path needs no token and counts against no quota.
    """

    api: SalesforceApi
    method: str
    handler: Handler
    open: bool = False
    known: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.api.answer(Request(scope, receive), self)
        await response(scope, receive, send)


class SalesforceApi:
    """Answers requests out of an organisation. `url` is what the token answer gives as `instance_url`."""

    def __init__(self, org: Org, tokens: TokenService, journal: Journal, *, url: Callable[[], str]) -> None:
        self._org = org
        self._tokens = tokens
        self._journal = journal
        self._url = url

    def application(self) -> Router:
        """Return the ASGI application."""
        return Router(
            [
                self._route("/services/oauth2/token", self._token, method="POST", open=True),
                self._route("/services/data", self._versions, open=True),
                self._route("/services/data/", self._versions, open=True),
                self._route(f"{_DATA}/sobjects/User/describe", self._describe),
                self._route(f"{_DATA}/sobjects/User/describe/", self._describe),
                self._route(f"{_DATA}/sobjects/User/updated", self._updated),
                self._route(f"{_DATA}/sobjects/User/updated/", self._updated),
                self._route(f"{_DATA}/limits", self._limits),
                self._route(f"{_DATA}/limits/", self._limits),
                *(
                    route
                    for query in ("query", "queryAll")
                    for route in (
                        self._route(f"{_DATA}/{query}", self._query),
                        self._route(f"{_DATA}/{query}/", self._query),
                        self._route(f"{_DATA}/{query}/{{locator}}-{{offset:int}}", self._next_page),
                    )
                ),
            ],
            redirect_slashes=False,
            default=_Endpoint(self, "", self._unknown, open=True, known=False),
        )

    async def answer(self, request: Request, endpoint: _Endpoint) -> Response:
        """Return the answer to any request, and write it down."""
        headers: dict[str, str] = {}
        try:
            body = await self._admitted(request, endpoint)
            status = 200
        except OAuthError as error:
            status, body = 400, _encode(error.body)
        except ApiError as error:
            status, body = error.status, _encode(error.body) if error.code else b""
            if status == 401:
                headers["WWW-Authenticate"] = "Token"
        if not endpoint.open and status != 401 and (status == 200 or self._org.quota.header_on_errors):
            limit_info = self._org.quota.header_value()
            headers |= {"Sforce-Limit-Info": limit_info} if limit_info else {}
        if len(body) >= _SMALLEST_COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, 1)
        violation = not endpoint.known or request.method != endpoint.method
        query = unquote_plus(request.url.query)
        self._journal.note(request.method, request.url.path, query, request.headers, status, violation=violation)
        return Response(body, status, headers | self._general_headers())

    async def _admitted(self, request: Request, endpoint: _Endpoint) -> bytes:
        """Answer a request that may be answered; raises `ApiError` and `OAuthError`."""
        if len(request.url.path) + len(request.url.query) > LONGEST_ADDRESS:
            raise ApiError(414, "", "")
        if endpoint.known and request.method != endpoint.method:
            message = f"HTTP Method '{request.method}' not allowed. Allowed are {endpoint.method}"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message)
        if not endpoint.open:
            if not self._tokens.accept(request.headers.get("authorization")):
                raise ApiError(401, "INVALID_SESSION_ID", "Session expired or invalid")
            with self._org.lock:
                if not self._org.quota.count():
                    raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            _refuse_version(request.path_params["version"])
        return await endpoint.handler(request)

    async def _token(self, request: Request) -> bytes:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        return _encode(self._tokens.sign_in(form, request.headers.get("authorization"), instance_url=self._url()))

    async def _versions(self, _: Request) -> bytes:
        return _encode(
            [
                {"label": _season(version), "url": f"/services/data/v{version}.0", "version": f"{version}.0"}
                for version in VERSIONS
            ]
        )

    async def _describe(self, _: Request) -> bytes:
        with self._org.lock:
            return _encode(self._org.describe())

    async def _limits(self, _: Request) -> bytes:
        with self._org.lock:
            quota = self._org.quota
            return _encode(
                {
                    "DailyApiRequests": {"Max": quota.limit, "Remaining": quota.remaining},
                    "DailyBulkApiBatches": {"Max": 15_000, "Remaining": 15_000},
                    "DailyBulkV2QueryFileStorageMB": {"Max": 976_562, "Remaining": 976_562},
                    "DailyBulkV2QueryJobs": {"Max": 10_000, "Remaining": 10_000},
                }
            )

    async def _updated(self, request: Request) -> bytes:
        start, end = _cut_moment(request, "start"), _cut_moment(request, "end")
        if start >= end:
            raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate must be before endDate")
        with self._org.lock:
            if start < self._org.clock.now() - OLDEST_UPDATE:
                raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate cannot be more than 30 days ago")
            covered = self._org.latest_date_covered(end)
            ids = self._org.changed_between(start, end)
        if len(ids) > MOST_UPDATED_IDS:
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"cannot return more than {MOST_UPDATED_IDS} ids")
        return _encode({"ids": ids, "latestDateCovered": wire_time(covered)})

    async def _query(self, request: Request) -> bytes:
        query = parse(request.query_params.get("q", ""))
        with self._org.lock:
            if query.object_name.path.lower() != "user":
                raise _no_such_object(query)
            if not query.fields:
                return _encode({"totalSize": self._org.count(query), "done": True, "records": []})
            return self._page(request, query, self._org.find(query))

    async def _next_page(self, request: Request) -> bytes:
        locator, offset = request.path_params["locator"], request.path_params["offset"]
        with self._org.lock:
            cursor = self._org.cursors.find(locator, offset)
            return self._page(request, cursor.query, cursor.users, offset, locator)

    def _page(
        self, request: Request, query: Query, users: Sequence[User], offset: int = 0, locator: str | None = None
    ) -> bytes:
        """Write one page of what a query found, opening a cursor for the rest when it has none yet."""
        version = request.path_params["version"]
        writer = self._org.writer(version, query)
        end = offset + _page_size(request)
        head: dict[str, Any] = {"totalSize": len(users), "done": end >= len(users)}
        if end < len(users):
            locator = locator or self._org.cursors.open(query, users).locator
            head["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{end}"
        records = b",".join(writer.write(user) for user in users[offset:end])
        return b'%b,"records":[%b]}' % (_encode(head)[:-1], records)

    async def _unknown(self, _: Request) -> bytes:
        raise ApiError(404, "NOT_FOUND", "The requested resource does not exist")

    def _route(self, path: str, handler: Handler, *, method: str = "GET", open: bool = False) -> Route:
        return Route(path, _Endpoint(self, method, handler, open=open))

    def _general_headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json;charset=UTF-8",
            "Date": format_datetime(self._org.clock.now(), usegmt=True),
            "Server": "sfdcedge",
            "X-SFDC-Request-Id": str(uuid.uuid4()),
            "Cache-Control": "no-cache,must-revalidate,max-age=0,no-store,private",
        }


def _page_size(request: Request) -> int:
    """Return how many records a page holds at most; Salesforce takes a number that is out of range as the nearest."""
    wanted = _BATCH_SIZE.search(request.headers.get("sforce-query-options", ""))
    return min(max(int(wanted[1]), SMALLEST_PAGE), LARGEST_PAGE) if wanted else LARGEST_PAGE


def _cut_moment(request: Request, name: str) -> datetime:
    """Read a moment of the query string, without its seconds; raises `ApiError`."""
    try:
        moment = datetime.fromisoformat(request.query_params.get(name, ""))
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise ApiError(400, "INVALID_REPLICATION_DATE", f"{name} is not a dateTime") from None
    return moment.replace(second=0, microsecond=0)


def _refuse_version(version: str) -> None:
    number = int(version[:-2]) if re.fullmatch(r"\d\d\.0", version) else 0
    if number in RETIRED_VERSIONS:
        raise ApiError(410, "GONE", "The requested resource is no longer available")
    if number not in VERSIONS:
        raise ApiError(404, "NOT_FOUND", "The requested resource does not exist")


def _season(version: int) -> str:
    """Return the name of a release: 66 is Spring '26, and three make a year."""
    years, season = divmod(version - 66, 3)
    return f"{('Spring', 'Summer', 'Winter')[season]} '{26 + years + (season == 2)}"


def _no_such_object(query: Query) -> QueryError:
    name = query.object_name
    message = (
        f"sObject type '{name.path}' is not supported. If you are attempting to use a custom object, be sure to append "
        "the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names."
    )
    return QueryError("INVALID_TYPE", message, query.statement, name.column)
