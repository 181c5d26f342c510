"""Signing in: client credentials, JWT bearer, or an access token that was given.

What belongs here: asking for a token, keeping it for all sessions of one service, replacing it once rejected.
What does not: which flow is set (`core/login_flows.py`), retries (`transport.py`), sentences (`sign_in_errors.py`).
An own token client, because simple-salesforce fixes the host, has no timeouts and renews without bounds.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import msgspec
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.login_flows import ClientCredentials, GivenToken, JwtBearer
from user_sync_pipeline.core.salesforce.columns import complete_id
from user_sync_pipeline.core.salesforce.read_only import (
    CLIENT_CREDENTIALS,
    JWT_BEARER,
    SIGNING_IN,
    TOKEN_PATH,
    ReadOnlyAdapter,
    normal_origin,
)
from user_sync_pipeline.core.salesforce.sign_in_errors import explain_sign_in
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import SalesforceSettings

# Salesforce accepts an assertion for a few minutes only, by its own clock.
ASSERTION_SECONDS = 180
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


class _SignedAssertion(AuthBase):
    """Puts a fresh assertion into the body while a request is prepared, so that a later try carries a later one."""

    def __init__(self, flow: JwtBearer) -> None:
        self._flow = flow

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        import jwt

        flow = self._flow
        claims = {
            "iss": flow.client_id,
            "sub": flow.username,
            "aud": flow.audience,
            "exp": int(time.time()) + ASSERTION_SECONDS,
        }
        assertion = jwt.encode(claims, flow.private_key, algorithm="RS256")
        request.prepare_body({"grant_type": JWT_BEARER, "assertion": assertion}, None)
        return request


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
                flow = self._settings.login
                self._current = _given(flow) if isinstance(flow, GivenToken) else self._request(flow)
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
            flow = self._settings.login
            if isinstance(flow, GivenToken):
                raise ConfigurationError(
                    "Salesforce does not accept SALESFORCE_ACCESS_TOKEN (any more); put a fresh token there, or set "
                    "SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET instead of it and SALESFORCE_INSTANCE_URL."
                )
            after = self._request(flow)
            if (after.instance_url, after.org_id) != (before.instance_url, before.org_id):
                raise ConfigurationError(
                    "Salesforce's address or organisation changed during the run; "
                    "check SALESFORCE_LOGIN_URL and run again."
                )
            self._current = after

    def _request(self, flow: ClientCredentials | JwtBearer) -> SignIn:
        """Ask for a token: by id and secret in a Basic header, or by an assertion signed for this one request."""
        settings = self._settings
        form, proof = _form_and_proof(flow)
        adapter = ReadOnlyAdapter(settings.login_url, SIGNING_IN, ApiUsage())
        explain = partial(explain_sign_in, flow=flow)
        with SalesforceSession(settings, adapter, retry=self._retry, explain=explain) as session:
            response = session.post(normal_origin(settings.login_url) + TOKEN_PATH, data=form, auth=proof)
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


def _form_and_proof(flow: ClientCredentials | JwtBearer) -> tuple[dict[str, str], AuthBase]:
    if isinstance(flow, JwtBearer):
        return {"grant_type": JWT_BEARER}, _SignedAssertion(flow)
    # As bytes, because requests would encode text as Latin-1.
    return {"grant_type": CLIENT_CREDENTIALS}, HTTPBasicAuth(flow.client_id.encode(), flow.client_secret.encode())


def _given(flow: GivenToken) -> SignIn:
    if not _fits_a_header(flow.access_token):
        raise ConfigurationError(
            "SALESFORCE_ACCESS_TOKEN holds a space, a line end or a letter that no token has; copy it again."
        )
    return SignIn(flow.access_token, normal_origin(flow.instance_url), None)


def _fits_a_header(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
