"""The keys of one project, and the tokens that its services trust.

What belongs here: making keys, telling which role a key stands for, signing and reading tokens (HS256).
What does not: what a request without a right key is told; each service says that in its own words.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import jwt

ANONYMOUS = "anon"
SERVICE = "service_role"

_ALGORITHM = "HS256"
_LEGACY_KEY_SECONDS = 10 * 365 * 86_400
_PASSED_ON_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The two opaque keys of today, the two signed keys of former years, and the secret that signs tokens."""

    secret_key: str = field(repr=False)
    publishable_key: str
    service_role_key: str = field(repr=False)
    anon_key: str
    jwt_secret: str = field(repr=False)

    @classmethod
    def generate(cls, reference: str) -> ApiKeys:
        """Make new keys; `reference` is the name of the project, which signed keys carry."""
        jwt_secret = secrets.token_urlsafe(40)
        return cls(
            secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
            publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
            service_role_key=_sign(jwt_secret, SERVICE, _LEGACY_KEY_SECONDS, iss="supabase", ref=reference),
            anon_key=_sign(jwt_secret, ANONYMOUS, _LEGACY_KEY_SECONDS, iss="supabase", ref=reference),
            jwt_secret=jwt_secret,
        )

    def role_of(self, key: str) -> str | None:
        """Return the role that an API key stands for, or None for a key that is not of this project."""
        if key in (self.secret_key, self.service_role_key):
            return SERVICE
        return ANONYMOUS if key in (self.publishable_key, self.anon_key) else None

    def is_legacy(self, key: str) -> bool:
        """Tell whether an API key is one of the signed keys, which a project may switch off."""
        return key in (self.service_role_key, self.anon_key)

    def sign(self, role: str, **claims: Any) -> str:
        """Return a token for `role` that is good for some minutes; `sub` is the id of a signed-in user."""
        return _sign(self.jwt_secret, role, _PASSED_ON_SECONDS, **claims)

    def claims_of(self, token: str) -> dict[str, Any]:
        """Return what a token says; raises `jwt.InvalidTokenError`, of which one kind is for expired ones."""
        return jwt.decode(token, self.jwt_secret, algorithms=[_ALGORITHM], options={"verify_aud": False})


def bearer_token(authorization: str | None) -> str | None:
    """Return what follows `Bearer` in a header, or None."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _sign(secret: str, role: str, seconds: int, **claims: Any) -> str:
    now = int(time.time())
    return jwt.encode({**claims, "role": role, "iat": now, "exp": now + seconds}, secret, algorithm=_ALGORITHM)
