"""Sign-in by client credentials or by a signed assertion (JWT bearer), and the tokens that it gives out.

What belongs here: `POST /services/oauth2/token`, and whether a token is still good. What does not: routes.
A token ends after two hours without a call, by the virtual clock. Client credentials come as HTTP Basic or in the body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from user_sync_pipeline.sandbox.salesforce.errors import worded
from user_sync_pipeline.sandbox.salesforce.quirks import Wording

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.salesforce.org import Org

SESSION_TIMEOUT = timedelta(hours=2)
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")

_LONGEST_ASSERTION = timedelta(minutes=5)
_SKEW = timedelta(minutes=3)


class OAuthError(Exception):
    """A refused sign-in; the answer's status is 400."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self._error = error
        self._description = description

    def body(self, wording: Wording) -> dict[str, str]:
        """Return the JSON body: an object, not a list."""
        return {"error": self._error, "error_description": worded(self._error, self._description, wording)}


@dataclass(slots=True)
class ConnectedApp:
    """What the organisation knows of the application that signs in.

    `certificate` is a certificate or public key in PEM form that proves signed assertions; without one they are
    refused. With `approved=False` the integration user may not use the application.
    """

    client_id: str
    client_secret: str = field(repr=False)
    certificate: str | None = field(default=None, repr=False)
    audiences: tuple[str, ...] = AUDIENCES
    approved: bool = True


class TokenService:
    """Gives out access tokens of one connected application.

    With `has_run_as_user=False` the application lacks the user that client credentials run as.
    """

    def __init__(self, org: Org, app: ConnectedApp) -> None:
        self.has_run_as_user = True
        self._org = org
        self._app = app
        self._last_used: dict[str, datetime] = {}

    def sign_in(
        self, form: Mapping[str, str], authorization: str | None, *, host: str, instance_url: str
    ) -> dict[str, str]:
        """Return the token answer for a form-encoded body and the `Authorization` header; raises `OAuthError`.

        `host` is the one that was asked.
        """
        quirks = self._org.quirks
        if form.get("grant_type") == "client_credentials":
            if host in quirks.login_hosts:
                raise OAuthError("invalid_grant", "request not supported on this domain")
            self._check_credentials(form, authorization)
            return self._issue(instance_url, quirks.token_fields)
        if form.get("grant_type") == JWT_BEARER:
            self._check_assertion(form.get("assertion", ""), instance_url)
            return self._issue(instance_url, quirks.signed_token_fields)
        raise OAuthError("unsupported_grant_type", "grant type not supported")

    def accept(self, authorization: str | None) -> bool:
        """Tell whether an `Authorization` header holds a live token; a call prolongs its life."""
        scheme, _, token = (authorization or "").partition(" ")
        last_used = self._last_used.get(token) if scheme in ("Bearer", "OAuth") else None
        now = self._org.clock.now()
        if (
            last_used is None
            or now - last_used > SESSION_TIMEOUT
            or not token.startswith(self._org.id[:15])
            or not self._org.permissions.active
        ):
            self._last_used.pop(token, None)
            return False
        self._last_used[token] = now
        return True

    def revoke_tokens(self) -> None:
        """End every session, as an administrator can."""
        self._last_used.clear()

    def _check_credentials(self, form: Mapping[str, str], authorization: str | None) -> None:
        client_id, client_secret = _basic_credentials(authorization) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if not _equal(client_id, self._app.client_id):
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if not _equal(client_secret, self._app.client_secret):
            raise OAuthError("invalid_client", "invalid client credentials")
        if not self.has_run_as_user:
            raise OAuthError("invalid_grant", "no client credentials user enabled")

    def _check_assertion(self, assertion: str, instance_url: str) -> None:
        import jwt

        try:
            issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError:
            raise OAuthError("invalid_grant", "invalid assertion") from None
        if issuer != self._app.client_id:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        claims = _proven_claims(assertion, self._app.certificate)
        if claims.get("aud") not in (*self._app.audiences, instance_url):
            raise OAuthError("invalid_grant", "audience is invalid")
        self._check_expiry(claims.get("exp"))
        if not self._app.approved or claims.get("sub") != self._org.api_username:
            raise OAuthError("invalid_grant", "user hasn't approved this consumer")

    def _check_expiry(self, claim: Any) -> None:
        """Refuse what has expired or lives too long; the seconds since 1970 may also be a text."""
        try:
            remaining = timedelta(seconds=int(claim) - self._org.clock.now().timestamp())
        except (TypeError, ValueError, OverflowError):
            raise OAuthError("invalid_grant", "invalid assertion") from None
        if remaining < -_SKEW:
            raise OAuthError("invalid_grant", "expired authorization code")
        if remaining > _LONGEST_ASSERTION + _SKEW:
            raise OAuthError("invalid_grant", "invalid assertion")

    def _issue(self, instance_url: str, fields: Container[str]) -> dict[str, str]:
        """Give out a token, and of what can be told with it the given fields."""
        if not self._org.permissions.active:
            raise OAuthError("inactive_user", "user is inactive")
        token = f"{self._org.id[:15]}!AQ0AQ{secrets.token_urlsafe(48)}"
        self._last_used[token] = self._org.clock.now()
        identity = f"{instance_url}/id/{self._org.id}/{self._org.api_user_id}"
        issued_at = str(int(self._org.clock.now().timestamp() * 1000))
        signature = hmac.digest(self._app.client_secret.encode(), (identity + issued_at).encode(), hashlib.sha256)
        answer = {
            "access_token": token,
            "signature": base64.b64encode(signature).decode(),
            "scope": "api",
            "instance_url": instance_url,
            "api_instance_url": instance_url,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
            "expires_in": str(int(SESSION_TIMEOUT.total_seconds())),
        }
        return {name: value for name, value in answer.items() if name in fields}


def _proven_claims(assertion: str, certificate: str | None) -> dict[str, Any]:
    """Return what an assertion claims, if the key of `certificate` signed it with RS256."""
    import jwt
    from cryptography.x509 import load_pem_x509_certificate

    if certificate is None:
        raise OAuthError("invalid_grant", "invalid assertion")
    key: Any = certificate
    if "BEGIN CERTIFICATE" in certificate:
        key = load_pem_x509_certificate(certificate.encode()).public_key()
    try:
        payload = jwt.PyJWS(algorithms=["RS256"]).decode(assertion, key, algorithms=["RS256"])
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (jwt.InvalidTokenError, msgspec.DecodeError):
        raise OAuthError("invalid_grant", "invalid assertion") from None


def _basic_credentials(authorization: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, secret


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
