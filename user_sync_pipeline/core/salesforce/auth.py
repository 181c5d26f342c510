"""Signing in: the client credentials flow, or an access token that was given.

What belongs here: asking for a token, keeping it for all sessions of one service, replacing it once rejected.
What does not: retries and error sentences, which the session has (`transport.py`, `errors.py`).
An own token client, because simple-salesforce fixes the host, has no timeouts and renews without bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from threading import Lock

import msgspec
from requests.auth import HTTPBasicAuth

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.salesforce.columns import complete_id
from user_sync_pipeline.core.salesforce.read_only import SIGNING_IN, TOKEN_PATH, ReadOnlyAdapter, normal_origin
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import SalesforceSettings

# https://<login host>/id/<organisation>/<user>
_IDENTITY = re.compile(r"/id/(00D[A-Za-z0-9]{12})[A-Za-z0-9]*/")


@dataclass(frozen=True, slots=True)
class SignIn:
    """A token, the host it is for, and the organisation (18 characters), which a given token does not tell."""

    access_token: str = field(repr=False)
    instance_url: str
    org_id: str | None


class _TokenAnswer(msgspec.Struct):
    access_token: str
    instance_url: str
    id: str = ""


class Authenticator:
    """Signs in on first use and keeps the token; safe to share between threads."""

    def __init__(self, settings: SalesforceSettings, retry: RetryPolicy | None = None) -> None:
        self._settings = settings
        self._retry = retry
        self._lock = Lock()
        self._current: SignIn | None = None

    def sign_in(self) -> SignIn:
        """Return the present sign-in; raises `ConfigurationError` or `UnreachableError`."""
        with self._lock:
            if self._current is None:
                self._current = self._given() or self._request()
            return self._current

    def access_token(self) -> str:
        """Return the token to send now."""
        return self.sign_in().access_token

    def renew(self, rejected: str) -> None:
        """Get a new token in place of a `rejected` one, unless another thread has done so already."""
        with self._lock:
            before = self._current
            if before is None or before.access_token != rejected:
                return
            if self._given() is not None:
                raise ConfigurationError(
                    "Salesforce does not accept SALESFORCE_ACCESS_TOKEN (any more); put a fresh token there, or set "
                    "SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET instead."
                )
            after = self._request()
            if (after.instance_url, after.org_id) != (before.instance_url, before.org_id):
                raise ConfigurationError(
                    "Salesforce's address or organisation changed during the run; "
                    "check SALESFORCE_LOGIN_URL and run again."
                )
            self._current = after

    def _given(self) -> SignIn | None:
        settings = self._settings
        if not (settings.access_token and settings.instance_url):
            return None
        if not _fits_a_header(settings.access_token):
            raise ConfigurationError(
                "SALESFORCE_ACCESS_TOKEN holds a space, a line end or a letter that no token has; copy it again."
            )
        return SignIn(settings.access_token, normal_origin(settings.instance_url), None)

    def _request(self) -> SignIn:
        """Ask for a token by the client credentials flow, id and secret in a Basic header."""
        settings = self._settings
        if not (settings.client_id and settings.client_secret):
            raise ConfigurationError(
                "No sign-in for Salesforce is set; set SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET."
            )
        adapter = ReadOnlyAdapter(settings.login_url, SIGNING_IN, ApiUsage())
        with SalesforceSession(settings, adapter, retry=self._retry) as session:
            response = session.post(
                normal_origin(settings.login_url) + TOKEN_PATH,
                data={"grant_type": "client_credentials"},
                auth=HTTPBasicAuth(settings.client_id.encode(), settings.client_secret.encode()),
            )
        try:
            answer = msgspec.json.decode(response.content, type=_TokenAnswer)
        except msgspec.ValidationError:
            answer = _TokenAnswer("", "")
        if not (_fits_a_header(answer.access_token) and answer.instance_url.startswith("https://")):
            raise ConfigurationError(
                "The sign-in was answered without a token and an https address; "
                "check that SALESFORCE_LOGIN_URL is an address of Salesforce."
            )
        found = _IDENTITY.search(answer.id)
        org_id = complete_id(found[1]) if found else None
        return SignIn(answer.access_token, normal_origin(answer.instance_url), org_id)


def _fits_a_header(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
