"""The list of requests that may leave this program, enforced where they leave it.

What belongs here: allowed (method, address, parameters), and the adapter through which every request of a
session goes, however it was made. What does not: which SOQL is harmless (`soql.py`), retries (`transport.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.soql import refuse_all_but_reading
from user_sync_pipeline.core.salesforce.usage import ApiUsage

TOKEN_PATH = "/services/oauth2/token"  # noqa: S105
VERSIONS_PATH = "/services/data/"
_VERSION = r"/services/data/v[0-9]{2}\.0"
_VERSIONED = re.compile(rf"{_VERSION}/.*")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)

Parameters = list[tuple[str, str]]


class AllowedRequest(NamedTuple):
    """One kind of request; `path` must match in full, and `fits` must accept the parameters of the address."""

    method: str
    path: re.Pattern[str]
    fits: Callable[[Parameters], bool]


def _nothing(parameters: Parameters) -> bool:
    return not parameters


def _harmless_query(parameters: Parameters) -> bool:
    if [name for name, _ in parameters] != ["q"]:
        return False
    refuse_all_but_reading(parameters[0][1])
    return True


def _start_and_end(parameters: Parameters) -> bool:
    return [name for name, _ in parameters] == ["start", "end"] and all(
        _MOMENT.fullmatch(value) for _, value in parameters
    )


SIGNING_IN = (AllowedRequest("POST", re.compile(TOKEN_PATH), _nothing),)
READING = (
    AllowedRequest("GET", re.compile(VERSIONS_PATH), _nothing),
    AllowedRequest("GET", re.compile(rf"{_VERSION}/limits/?"), _nothing),
    AllowedRequest("GET", re.compile(rf"{_VERSION}/sobjects/User/describe/?"), _nothing),
    AllowedRequest("GET", re.compile(rf"{_VERSION}/sobjects/User/updated/?"), _start_and_end),
    AllowedRequest("GET", re.compile(rf"{_VERSION}/query/?"), _harmless_query),
    AllowedRequest("GET", re.compile(rf"{_VERSION}/query/[A-Za-z0-9]+-[0-9]+"), _nothing),
)


class ReadOnlyAdapter(HTTPAdapter):
    """Sends the `allowed` requests to `origin` (scheme and host) and nothing else to nowhere else."""

    def __init__(self, origin: str, allowed: tuple[AllowedRequest, ...], usage: ApiUsage) -> None:
        super().__init__()
        self.origin = normal_origin(origin)
        self._allowed = allowed
        self._usage = usage

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request that is on the list; raises `NotReadOnlyError` for any other, before a byte is sent."""
        path = self._check(request)
        if _VERSIONED.fullmatch(path):
            self._usage.count_call()
        response = super().send(request, stream, timeout, verify, cert, proxies)
        self._usage.read_header(response.headers.get("Sforce-Limit-Info"))
        return response

    def _check(self, request: PreparedRequest) -> str:
        url = urlsplit(request.url or "")
        if f"{url.scheme}://{url.netloc}" != self.origin:
            raise NotReadOnlyError(f"A request was not sent, because it goes elsewhere than {self.origin}.")
        parameters = parse_qsl(url.query, keep_blank_values=True)
        # Written back in the one usual way, so that Salesforce cannot read an address differently than we do.
        plain = urlencode(parameters) == url.query and not url.fragment
        if plain and (request.method == "POST" or request.body is None):
            for allowed in self._allowed:
                if request.method == allowed.method and allowed.path.fullmatch(url.path):
                    if allowed.fits(parameters):
                        return url.path
                    break
        raise NotReadOnlyError(
            f"A {request.method} request was not sent to Salesforce, because it is not one of those that read users."
        )


def normal_origin(url: str) -> str:
    """Return scheme and host of an address in lower case, with the port only where it is not the usual one."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port not in (None, 443) else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
