"""The session through which every request to Salesforce goes.

What belongs here: timeouts, tries and pauses between them, proxies, certificates, and the access token put on at
the moment of sending. What does not: which requests are allowed (`read_only.py`), how a token is got (`auth.py`),
which answer leads to which decision (`decisions.py`) and what it means for a person (`errors.py`).
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any, NamedTuple, Protocol

import msgspec
import requests
from requests import PreparedRequest, Response
from requests.auth import AuthBase

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError, UserSyncError
from user_sync_pipeline.core.salesforce.decisions import Decision, Refusal, decide, read_refusal
from user_sync_pipeline.core.salesforce.errors import explain
from user_sync_pipeline.core.salesforce.read_only import ReadOnlyAdapter
from user_sync_pipeline.core.settings import SalesforceSettings

# Seconds to connect, and seconds of silence while reading: Salesforce itself gives a query up after 120.
TIMEOUTS = (10.0, 150.0)

# What the request for a page of a Bulk job accepts.
CSV = "text/csv"

Explain = Callable[[Refusal], UserSyncError]

_HEADERS = {"User-Agent": "user-sync-pipeline", "Accept": "application/json", "Accept-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try: `tries` in all, none begun `deadline` seconds after the first.

    Pauses double from the given seconds up to `longest_pause`; the half of each is left to chance.
    `sleep` defaults to a pause that ends when the session is closed.
    """

    tries: int = 5
    deadline: float = 300.0
    pause: float = 0.5
    pause_after_back_off: float = 5.0
    longest_pause: float = 30.0
    sleep: Callable[[float], object] | None = None
    random: Callable[[], float] = random.random

    def seconds(self, decision: Decision, attempt: int) -> float:
        """Return the pause after the `attempt`-th try, counted from one."""
        first = self.pause_after_back_off if decision is Decision.BACK_OFF else self.pause
        return min(self.longest_pause, first * 2.0 ** (attempt - 1)) * (1 + self.random()) / 2


class TokenSource(Protocol):
    """Where a session gets its access token."""

    def access_token(self) -> str:
        """Return the token to send now."""
        ...

    def renew(self, rejected: str) -> None:
        """Replace a token that Salesforce rejected; raises `ConfigurationError` when there is no other."""
        ...


class _BearerAuth(AuthBase):
    """Puts the token on while a request is prepared, so that each try carries the present one."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._tokens.access_token()}"
        return request


class _Failure(NamedTuple):
    """A try that gave nothing: what to do, what to raise in the end, and the token that was sent."""

    decision: Decision
    error: UserSyncError
    token: str = ""


class SalesforceSession(requests.Session):
    """A `requests.Session` for one thread that can only send what its adapter allows.

    Every answer that it returns has a status below 300 and the body that was asked for: JSON, unless the request
    accepts `CSV` or deletes. Raises `ConfigurationError` when
    something must be changed first, `PausedError` at a quota, `UnreachableError` when all tries failed.
    Nothing is taken from the environment or from .netrc, and redirects are not followed.
    """

    def __init__(
        self,
        settings: SalesforceSettings,
        adapter: ReadOnlyAdapter,
        *,
        tokens: TokenSource | None = None,
        page_size: int | None = None,
        retry: RetryPolicy | None = None,
        timeouts: tuple[float, float] = TIMEOUTS,
        explain: Explain = explain,
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = settings.ca_bundle or True
        self.proxies = {"https": settings.proxy} if settings.proxy else {}
        self.headers.update(_HEADERS)
        if page_size is not None:
            self.headers["Sforce-Query-Options"] = f"batchSize={page_size}"
        # A cookie would be state that nobody asked for; and only a few headers are allowed to leave.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self.adapters.clear()
        self.mount("https://", adapter)
        if tokens is not None:
            self.auth = _BearerAuth(tokens)
        self._origin = adapter.origin
        self._tokens = tokens
        self._retry = retry or RetryPolicy()
        self._timeouts = timeouts
        self._explain = explain
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; a request that is pausing between two tries gives up."""
        self._closed.set()
        super().close()

    def get_redirect_target(self, resp: Response) -> None:
        """Follow no redirect, whoever asks for it: the token is for one host only."""
        return

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        """Send once, and take the body as one piece: `requests` by itself takes 10 KB at a time, which is slow.

        With `stream` the body is left to the caller.
        """
        response = super().send(request, **options | {"stream": True})
        if not options.get("stream"):
            response._content = b"".join(response.iter_content(chunk_size=None))
        return response

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> Response:
        """Send a request until it is answered, the table says stop, or the retry policy is exhausted."""
        headers = {**(options.pop("headers", None) or {})}
        headers.pop("X-PrettyPrint", None)
        options |= {"headers": headers, "timeout": self._timeouts, "allow_redirects": False}
        send = partial(super().request, method, url, *args, **options)
        started, attempt, renewed = monotonic(), 0, False
        while True:
            if self._closed.is_set():
                raise UnreachableError("The connection to Salesforce was closed while it was in use; run again.")
            attempt += 1
            answer = _try(send, self._origin, self._explain)
            if isinstance(answer, Response):
                return answer
            if answer.decision is Decision.NEW_TOKEN and self._tokens is not None and not renewed:
                self._tokens.renew(answer.token)
                renewed = True
                continue
            pause = self._retry.seconds(answer.decision, attempt)
            if (
                answer.decision not in (Decision.RETRY, Decision.BACK_OFF)
                or attempt >= self._retry.tries
                or monotonic() - started + pause > self._retry.deadline
            ):
                raise answer.error
            (self._retry.sleep or self._closed.wait)(pause)


def _try(send: Callable[[], Response], origin: str, explain: Explain) -> Response | _Failure:
    """Send once; raises `ConfigurationError` for what no second try can mend."""

    def again(trouble: str) -> _Failure:
        sentence = (
            f"{origin} gives no usable answer ({trouble}), also after a pause; "
            "check SALESFORCE_LOGIN_URL, SALESFORCE_INSTANCE_URL and the network, or run again later."
        )
        return _Failure(Decision.RETRY, UnreachableError(sentence))

    try:
        response = send()
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE" not in str(error).upper():
            return again("the secure connection broke")
        raise ConfigurationError(
            f"The certificate of {origin} is not trusted here; set SALESFORCE_CA_BUNDLE to the PEM file of those "
            "who sign for it."
        ) from None
    except requests.exceptions.ProxyError:
        return again("the proxy of SALESFORCE_PROXY gives no connection")
    except requests.exceptions.Timeout:
        return again("nothing came in time")
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    ):
        return again("no connection, or one that broke")
    except OSError as error:  # what requests raises for a wrong address, proxy or file
        raise ConfigurationError(
            f"No request to {origin} can be made ({type(error).__name__}); check SALESFORCE_LOGIN_URL, "
            "SALESFORCE_INSTANCE_URL, SALESFORCE_PROXY and SALESFORCE_CA_BUNDLE."
        ) from None
    if response.status_code < 300:
        return response if _is_usable(response) else again("what it answers is not what was asked for")
    refusal = read_refusal(response.status_code, response.content)
    decision = decide(refusal)
    if decision is Decision.RETRY:
        return again(f"HTTP status {refusal.status}")
    token = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
    return _Failure(decision, explain(refusal), token)


def server_time(response: Response) -> datetime:
    """Return Salesforce's clock from the `Date` header, in UTC, cut to the second."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        raise ConfigurationError(
            "Salesforce's answer came without its Date header; have the proxy of SALESFORCE_PROXY pass it on."
        ) from None


def _is_usable(response: Response) -> bool:
    """Tell whether a successful answer is what its request accepts: CSV, nothing after a deletion, else JSON."""
    if response.request.method == "DELETE":
        return True
    if response.request.headers.get("Accept") == CSV:
        return response.headers.get("Content-Type", "").startswith(CSV)
    return _is_json(response.content)


def _is_json(body: bytes) -> bool:
    # A page of records is large, and read to its end by those who decode it: what was cut lacks that end.
    if body.startswith(b'{"totalSize":') and body.endswith(b"]}"):
        return True
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except ValueError:
        # Slower, but it accepts the broken characters that a page of records may hold.
        try:
            json.loads(body.decode("utf-8", "surrogateescape"), strict=False)
        except ValueError:
            return False
    return True
