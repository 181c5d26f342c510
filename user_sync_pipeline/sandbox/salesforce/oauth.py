"""Sign-in by client credentials, and the tokens it gives out.

What belongs here: `POST /services/oauth2/token`, and whether a token is still good. What does not: routes.
A token ends after two hours without a call, by the virtual clock. Client credentials come as HTTP Basic or in the body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock

SESSION_TIMEOUT = timedelta(hours=2)


class OAuthError(Exception):
    """A refused sign-in; the answer's status is 400 and its body an object, not a list."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.body = {"error": error, "error_description": description}


class TokenService:
    """Gives out access tokens of one connected application.

    With `has_run_as_user=False` the application lacks the user that client credentials run as.
    """

    def __init__(self, clock: VirtualClock, *, org_id: str, user_id: str, client_id: str, client_secret: str) -> None:
        self.has_run_as_user = True
        self._clock = clock
        self._org_id = org_id
        self._user_id = user_id
        self._client_id = client_id
        self._client_secret = client_secret
        self._last_used: dict[str, datetime] = {}

    def sign_in(self, form: Mapping[str, str], authorization: str | None, *, instance_url: str) -> dict[str, str]:
        """Return the token answer for a form-encoded body and the `Authorization` header; raises `OAuthError`."""
        if form.get("grant_type") != "client_credentials":
            raise OAuthError("unsupported_grant_type", "grant type not supported")
        client_id, client_secret = _basic_credentials(authorization) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if not _equal(client_id, self._client_id):
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if not _equal(client_secret, self._client_secret):
            raise OAuthError("invalid_client", "invalid client credentials")
        if not self.has_run_as_user:
            raise OAuthError("invalid_grant", "no client credentials user enabled")
        return self._issue(instance_url)

    def accept(self, authorization: str | None) -> bool:
        """Tell whether an `Authorization` header holds a live token; a call prolongs its life."""
        scheme, _, token = (authorization or "").partition(" ")
        last_used = self._last_used.get(token) if scheme in ("Bearer", "OAuth") else None
        now = self._clock.now()
        if last_used is None or now - last_used > SESSION_TIMEOUT:
            self._last_used.pop(token, None)
            return False
        self._last_used[token] = now
        return True

    def revoke_tokens(self) -> None:
        """End every session, as an administrator can."""
        self._last_used.clear()

    def _issue(self, instance_url: str) -> dict[str, str]:
        now = self._clock.now()
        token = f"{self._org_id[:15]}!AQ0AQ{secrets.token_urlsafe(48)}"
        self._last_used[token] = now
        identity = f"{instance_url}/id/{self._org_id}/{self._user_id}"
        issued_at = str(int(now.timestamp() * 1000))
        signature = hmac.digest(self._client_secret.encode(), (identity + issued_at).encode(), hashlib.sha256)
        return {
            "access_token": token,
            "signature": base64.b64encode(signature).decode(),
            "scope": "api",
            "instance_url": instance_url,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
        }


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
