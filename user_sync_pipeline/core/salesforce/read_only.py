"""The list of requests that may leave this program, enforced where they leave it.

What belongs here: allowed (method, address, parameters, body, headers), and the adapter through which every request
of a session goes, however it was made. What does not: which SOQL is harmless (`soql.py`), Bulk query jobs, which are
off unless somebody asks for them (`own_jobs.py`), retries (`transport.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from user_sync_pipeline.core.salesforce.budget import NO_BUDGET, ApiBudget
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.soql import refuse_all_but_reading
from user_sync_pipeline.core.salesforce.usage import ApiUsage

TOKEN_PATH = "/services/oauth2/token"  # noqa: S105
CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
VERSIONS_PATH = "/services/data/"
API_PATH = r"/services/data/v[0-9]{2}\.0"
_VERSIONED = re.compile(rf"{API_PATH}/.*")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
# No others are sent: some servers take a header for the method.
_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type"),
        *("sforce-query-options", "user-agent"),
    }
)

Parameters = list[tuple[str, str]]


class Outgoing(NamedTuple):
    """What a request says beside its method and path: named groups of the path, parameters, and its body."""

    names: Mapping[str, str]
    parameters: Parameters
    body: bytes


class AllowedRequest(NamedTuple):
    """One kind of request; `path` must match in full, and `fits` must accept the rest.

    `learn` is told the body of a successful answer.
    """

    method: str
    path: re.Pattern[str]
    fits: Callable[[Outgoing], bool]
    learn: Callable[[bytes], None] | None = None


def _nothing(request: Outgoing) -> bool:
    return not request.parameters and not request.body


def _sign_in(request: Outgoing) -> bool:
    form = parse_qsl(request.body.decode("ascii", "replace"), keep_blank_values=True)
    asked = form == [("grant_type", CLIENT_CREDENTIALS)] or (
        form[:1] == [("grant_type", JWT_BEARER)] and [name for name, _ in form[1:]] == ["assertion"]
    )
    return asked and not request.parameters


def _harmless_query(request: Outgoing) -> bool:
    if request.body or [name for name, _ in request.parameters] != ["q"]:
        return False
    refuse_all_but_reading(request.parameters[0][1])
    return True


def _start_and_end(request: Outgoing) -> bool:
    return (
        not request.body
        and [name for name, _ in request.parameters] == ["start", "end"]
        and all(_MOMENT.fullmatch(value) for _, value in request.parameters)
    )


SIGNING_IN = (AllowedRequest("POST", re.compile(TOKEN_PATH), _sign_in),)
READING = (
    AllowedRequest("GET", re.compile(VERSIONS_PATH), _nothing),
    AllowedRequest("GET", re.compile(rf"{API_PATH}/limits/?"), _nothing),
    AllowedRequest("GET", re.compile(rf"{API_PATH}/sobjects/User/describe/?"), _nothing),
    AllowedRequest("GET", re.compile(rf"{API_PATH}/sobjects/User/updated/?"), _start_and_end),
    AllowedRequest("GET", re.compile(rf"{API_PATH}/query/?"), _harmless_query),
    AllowedRequest("GET", re.compile(rf"{API_PATH}/query/[A-Za-z0-9]+-[0-9]+"), _nothing),
)


class ReadOnlyAdapter(HTTPAdapter):
    """Sends the `allowed` requests to `origin` (scheme and host), within `budget`, and nothing else to nowhere else."""

    def __init__(
        self, origin: str, allowed: tuple[AllowedRequest, ...], usage: ApiUsage, budget: ApiBudget = NO_BUDGET
    ) -> None:
        super().__init__()
        self.origin = normal_origin(origin)
        self._allowed = allowed
        self._usage = usage
        self._budget = budget

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request that is on the list.

        Before a byte is sent, raises `NotReadOnlyError` for any other and `PausedError` beyond the budget.
        """
        allowed = self._find(request)
        if _VERSIONED.fullmatch(urlsplit(request.url or "").path):
            self._budget.spend(self._usage)
        response = super().send(request, stream, timeout, verify, cert, proxies)
        self._usage.read_header(response.headers.get("Sforce-Limit-Info"))
        if allowed.learn is not None and response.status_code < 300:
            allowed.learn(response.content)
        return response

    def _find(self, request: PreparedRequest) -> AllowedRequest:
        """Return the entry of the list that a request is one of."""
        url = urlsplit(request.url or "")
        if f"{url.scheme}://{url.netloc}" != self.origin:
            raise NotReadOnlyError(f"A request was not sent, because it goes elsewhere than {self.origin}.")
        parameters = parse_qsl(url.query, keep_blank_values=True)
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        # Written back in the one usual way, so that Salesforce cannot read an address differently than we do.
        plain = urlencode(parameters) == url.query and not url.fragment and isinstance(body, bytes)
        if plain and all(name.lower() in _HEADERS for name in request.headers):
            for allowed in self._allowed:
                found = allowed.path.fullmatch(url.path) if request.method == allowed.method else None
                if found and allowed.fits(Outgoing(found.groupdict(), parameters, body)):
                    return allowed
        raise NotReadOnlyError(
            f"A {request.method} request was not sent to Salesforce, because it is not one of those that read users."
        )


def normal_origin(url: str) -> str:
    """Return scheme and host of an address in lower case, with the port only where it is not the usual one."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port not in (None, 443) else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
