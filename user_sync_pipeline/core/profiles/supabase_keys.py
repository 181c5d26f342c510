"""What a key of a Supabase project is, told from its looks before any request is made.

What belongs here: the kinds of keys, and a sentence for each that cannot be used. What does not: asking the project
whether it takes the key (`supabase_client.py`). No text made here repeats a key, or any part of one.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from user_sync_pipeline.core.errors import ConfigurationError

KeyKind = Literal[
    "secret",
    "publishable",
    "legacy_service_role",
    "legacy_anon",
    "user_token",
    "other_token",
    "access_token",
    "unknown",
]

SETTING = "SUPABASE_SERVICE_ROLE_KEY"
MEND = "put the project's secret key (sb_secret_…) there."

_SECRET = re.compile(r"sb_secret_[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LEGACY_ROLES: dict[str, KeyKind] = {
    "service_role": "legacy_service_role",
    "anon": "legacy_anon",
    "authenticated": "user_token",
}
_REFUSED: dict[KeyKind, str] = {
    "publishable": "holds a publishable key, which may not read users",
    "legacy_anon": "holds the anon key, which may not read users",
    "user_token": "holds the token of somebody who is signed in, which ends within the hour",
    "other_token": "holds a token of another role than service_role",
    "access_token": "holds a personal access token, which is for the management of projects",
    "unknown": "is no key of Supabase",
}


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What is known of a key: its kind, and of a legacy key, which is a JWT, its times and its project."""

    kind: KeyKind
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    project: str | None = None

    @property
    def is_legacy(self) -> bool:
        """Whether it is of the kind that a project can switch off, and that Supabase retires."""
        return self.kind == "legacy_service_role"


def classify_key(key: str) -> ServiceKey:
    """Tell the kind of a key; whether the project takes it is another matter."""
    if _SECRET.fullmatch(key):
        return ServiceKey("secret")
    if key.startswith("sb_publishable_"):
        return ServiceKey("publishable")
    if key.startswith("sbp_"):
        return ServiceKey("access_token")
    claims = _claims(key)
    if claims is None:
        return ServiceKey("unknown")
    project = claims.get("ref")
    return ServiceKey(
        kind=_LEGACY_ROLES.get(str(claims.get("role")), "other_token"),
        issued_at=_moment(claims.get("iat")),
        expires_at=_moment(claims.get("exp")),
        project=project if isinstance(project, str) else None,
    )


def check_service_key(key: str, url: str, *, now: float) -> ServiceKey:
    """Return what is known of `key`; raises `ConfigurationError` unless it can administrate the project at `url`.

    `now` is in seconds since 1970.
    """
    service_key = classify_key(key)
    if service_key.kind in _REFUSED:
        raise ConfigurationError(f"{SETTING} {_REFUSED[service_key.kind]}; {MEND}")
    if service_key.expires_at is not None and service_key.expires_at.timestamp() <= now:
        raise ConfigurationError(f"{SETTING} has expired; {MEND}")
    host, project = urlsplit(url).hostname or "", service_key.project
    if project and host.endswith(".supabase.co") and host != f"{project}.supabase.co":
        raise ConfigurationError(f"{SETTING} belongs to another project than SUPABASE_URL; {MEND}")
    return service_key


def explain_refused_key(service_key: ServiceKey) -> str:
    """Return what to say when the project refuses a key that looks right."""
    if service_key.is_legacy:
        return (
            f"{SETTING} is refused: it is a legacy service_role key, which the project at SUPABASE_URL may have "
            f"switched off or replaced; {MEND}"
        )
    return f"{SETTING} is refused; put the secret key of the project at SUPABASE_URL there."


def _claims(key: str) -> dict[str, Any] | None:
    """Return what a token says about itself; None for anything else. The signature is the server's business."""
    if not _TOKEN.fullmatch(key):
        return None
    payload = key.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def _moment(seconds: object) -> datetime | None:
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
