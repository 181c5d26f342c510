"""The REST interface: which paths there are, and what goes with every answer.

What belongs here: routes, authentication, quota, faults, headers, the journal. What does not: what is answered
(`rest.py`, `bulk_api.py`). Every request passes `SalesforceApi.answer`: whatever may befall it has its place there.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from time import monotonic
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from isal import igzip
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from user_sync_pipeline.sandbox.salesforce.answers import Answer, Endpoint, Handler
from user_sync_pipeline.sandbox.salesforce.bulk_api import BulkHandlers
from user_sync_pipeline.sandbox.salesforce.damage import DamagedResponse, shortened, substitute
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, usual_error
from user_sync_pipeline.sandbox.salesforce.faults import Fault, FaultScript, Kind, QuerySize, Sighting
from user_sync_pipeline.sandbox.salesforce.journal import Journal
from user_sync_pipeline.sandbox.salesforce.oauth import OAuthError, TokenService
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.rest import RETIRED_VERSIONS, VERSIONS, RestHandlers
from user_sync_pipeline.sandbox.salesforce.soql import parse

LONGEST_ADDRESS = 16_384  # bytes of path and query

_SMALLEST_COMPRESSED = 2_048
_DATA = "/services/data/v{version}"
_COUNT = re.compile(r"\s*select\s+count\s*\(", re.IGNORECASE)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Entrance:
    """An endpoint as an ASGI application."""

    api: SalesforceApi
    endpoint: Endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.api.answer(Request(scope, receive), self.endpoint)
        await response(scope, receive, send)


class SalesforceApi:
    """Answers requests out of an organisation. `url` is what the token answer gives as `instance_url`."""

    def __init__(
        self, org: Org, tokens: TokenService, journal: Journal, faults: FaultScript, *, url: Callable[[], str]
    ) -> None:
        self._org = org
        self._tokens = tokens
        self._journal = journal
        self._faults = faults
        self._url = url

    def application(self) -> Router:
        """Return the ASGI application."""
        rest, bulk = RestHandlers(self._org), BulkHandlers(self._org)
        jobs, job = f"{_DATA}/jobs/query", f"{_DATA}/jobs/query/{{job}}"
        return Router(
            [
                self._route("/services/oauth2/token", "token", {"POST": self._token}, open=True),
                *self._routes("/services/data", "versions", {"GET": rest.versions}, open=True),
                *self._routes(f"{_DATA}/sobjects/User/describe", "describe", {"GET": rest.describe}),
                *self._routes(f"{_DATA}/sobjects/User/updated", "updated", {"GET": rest.updated}),
                *self._routes(f"{_DATA}/sobjects/User/deleted", "deleted", {"GET": rest.deleted}),
                *self._routes(f"{_DATA}/limits", "limits", {"GET": rest.limits}),
                *(
                    route
                    for path in (f"{_DATA}/query", f"{_DATA}/queryAll")
                    for route in (
                        *self._routes(path, "query", {"GET": rest.query}),
                        self._route(f"{path}/{{locator}}-{{offset:int}}", "next_page", {"GET": rest.next_page}),
                    )
                ),
                *self._routes(jobs, "job", {"POST": bulk.create, "GET": bulk.list}),
                *self._routes(job, "job", {"GET": bulk.look, "PATCH": bulk.change, "DELETE": bulk.delete}),
                *self._routes(f"{job}/results", "result", {"GET": bulk.results}),
                *self._routes(f"{job}/resultPages", "result", {"GET": bulk.result_pages}),
            ],
            redirect_slashes=False,
            default=_Entrance(self, Endpoint("other", {}, open=True)),
        )

    async def answer(self, request: Request, endpoint: Endpoint) -> Response:
        """Return the answer to any request, or what befalls it, and write it down."""
        arrived = monotonic()
        query = unquote_plus(request.url.query)
        fault = self._faults.strike(self._sighting(request, endpoint, query), self._org.clock.now())
        lost = fault is not None and fault.connection == "drop_before"
        answer = Answer() if lost else await self._answer(request, endpoint, fault)
        headers = self._general_headers() | dict(answer.headers)
        if answer.status == 401:
            headers["WWW-Authenticate"] = "Token"
        elif not endpoint.open and (answer.status < 300 or self._org.quota.header_on_errors):
            limit_info = self._org.quota.header_value()
            headers |= {"Sforce-Limit-Info": limit_info} if limit_info else {}
        body = shortened(answer.body, fault) if fault is not None else answer.body
        if len(body) >= _SMALLEST_COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(igzip.compress, body, 1)
        if fault is not None:
            await asyncio.sleep(arrived + fault.delay - monotonic())
        violation = request.method not in endpoint.handlers
        status = 0 if fault is not None and fault.leaves_no_answer else answer.status
        self._journal.note(request.method, request.url.path, query, request.headers, status, violation=violation)
        if fault is not None:
            return DamagedResponse(body, answer.status, headers, fault)
        return Response(body, answer.status, headers)

    async def _answer(self, request: Request, endpoint: Endpoint, fault: Fault | None) -> Answer:
        try:
            handler = self._admit(request, endpoint)
            if fault is not None and fault.replaces:
                return substitute(fault, for_sign_in=endpoint.kind == "token")
            return await handler(request)
        except OAuthError as error:
            return Answer(_encode(error.body(self._org.quirks.wording)), 400)
        except ApiError as error:
            return Answer(_encode(error.body(self._org.quirks.wording)) if error.code else b"", error.status)

    def _admit(self, request: Request, endpoint: Endpoint) -> Handler:
        """Return what answers a request that may be answered; raises `ApiError`."""
        if len(request.url.path) + len(request.url.query) > LONGEST_ADDRESS:
            raise ApiError(self._org.quirks.status_of_long_addresses, "", "")
        handler = endpoint.handlers.get(request.method)
        if not endpoint.handlers:
            raise usual_error("NOT_FOUND")
        if handler is None:
            allowed = ", ".join(endpoint.handlers)
            message = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message)
        if not endpoint.open:
            if not self._tokens.accept(request.headers.get("authorization")):
                raise usual_error("INVALID_SESSION_ID")
            self._org.permissions.require_api()
            with self._org.lock:
                if not self._org.quota.count():
                    raise usual_error("REQUEST_LIMIT_EXCEEDED")
            _refuse_version(request.path_params["version"])
        return handler

    async def _token(self, request: Request) -> Answer:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        authorization, host = request.headers.get("authorization"), request.url.hostname or ""
        signed_in = self._tokens.sign_in(form, authorization, host=host, instance_url=self._url())
        return Answer(_encode(signed_in))

    def _sighting(self, request: Request, endpoint: Endpoint, query: str) -> Sighting:
        is_count = endpoint.kind == "query" and _COUNT.match(request.query_params.get("q", ""))
        kind: Kind = "count" if is_count else endpoint.kind

        def size() -> QuerySize | None:
            return self._query_size(request) if endpoint.kind == "query" else None

        return Sighting(kind, request.method, request.url.path, query, size)

    def _query_size(self, request: Request) -> QuerySize | None:
        try:
            query = parse(request.query_params.get("q", ""))
            with self._org.lock:
                return QuerySize(self._org.count(query), self._org.window_of(query))
        except ApiError:
            return None

    def _routes(self, path: str, kind: Kind, handlers: Mapping[str, Handler], *, open: bool = False) -> list[Route]:
        """Return the routes of a path that may end in a slash."""
        return [self._route(each, kind, handlers, open=open) for each in (path, f"{path}/")]

    def _route(self, path: str, kind: Kind, handlers: Mapping[str, Handler], *, open: bool = False) -> Route:
        return Route(path, _Entrance(self, Endpoint(kind, handlers, open)))

    def _general_headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json;charset=UTF-8",
            "Date": format_datetime(self._org.clock.now(), usegmt=True),
            "Server": "sfdcedge",
            "X-SFDC-Request-Id": str(uuid.uuid4()),
            "Cache-Control": "no-cache,must-revalidate,max-age=0,no-store,private",
        }


def _refuse_version(version: str) -> None:
    number = int(version[:-2]) if re.fullmatch(r"\d\d\.0", version) else 0
    if number in RETIRED_VERSIONS:
        raise usual_error("GONE")
    if number not in VERSIONS:
        raise usual_error("NOT_FOUND")
