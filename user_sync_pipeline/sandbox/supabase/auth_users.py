"""Rows of `auth.users` and `auth.identities` as GoTrue leaves them, made from the people of the sandbox.

What belongs here: what a sign-up, a deletion and a ban look like in the tables. What does not: storing them
(`database.py`) and answering for them (`gotrue.py`). The same people give the same rows.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from user_sync_pipeline.sandbox.sample_people import Person

UNCONFIRMED_EVERY = 40  # each 40th person has not clicked the link in the e-mail yet
ANONYMOUS_USERS = 3
SOFT_DELETED_USERS = 2
PHONE_ONLY_USERS = 2
BANNED_USERS = 2
SPECIAL_USERS = ANONYMOUS_USERS + SOFT_DELETED_USERS + PHONE_ONLY_USERS + BANNED_USERS

_NAMESPACE = UUID("6f1d2f3e-5a52-4b2b-9a0c-7f3f3c0d9e11")
_LONG_BAN = timedelta(hours=876_000)
_CONFIRMATION_DELAY = timedelta(minutes=5)


class AuthUser(NamedTuple):
    """One user with the identity to sign in with; `provider` is None for those who have none."""

    id: UUID
    email: str | None
    phone: str | None
    created_at: datetime
    email_confirmed_at: datetime | None
    phone_confirmed_at: datetime | None
    last_sign_in_at: datetime | None
    banned_until: datetime | None
    deleted_at: datetime | None
    is_anonymous: bool
    app_metadata: str
    user_metadata: str
    provider: str | None
    provider_id: str | None
    identity_data: str | None


def auth_users(people: Iterable[Person]) -> Iterator[AuthUser]:
    """Return a user for everyone of `people` who can sign in."""
    for person in people:
        if person.auth_user_id is not None:
            confirmed = person.number % UNCONFIRMED_EVERY != 0
            yield _user(
                person.auth_user_id,
                person.created,
                email=person.email.lower(),
                is_confirmed=confirmed,
                last_sign_in_at=person.last_login if confirmed else None,
                user_metadata={"full_name": person.name},
            )


def special_users(first_created: datetime) -> Iterator[AuthUser]:
    """Return the users whom a status must count with care; the counts are the constants above."""
    moments = (first_created + timedelta(minutes=number) for number in range(SPECIAL_USERS))
    for number in range(ANONYMOUS_USERS):
        yield _user(_special_id("anonymous", number), next(moments))
    for number in range(SOFT_DELETED_USERS):
        user_id, moment = _special_id("deleted", number), next(moments)
        user = _user(user_id, moment, email=f"deleted-{number}@example.com")
        yield user._replace(
            email=obfuscated(user_id, user.email or ""),
            phone=obfuscated(user_id, "")[:15],
            deleted_at=moment + timedelta(days=1),
            app_metadata="{}",
            user_metadata="{}",
            provider_id=obfuscated(user_id, f"{user.provider}:{user.provider_id}"),
            identity_data="{}",
        )
    for number in range(PHONE_ONLY_USERS):
        yield _user(_special_id("phone", number), next(moments), phone=f"1202555{number:04d}")
    for number in range(BANNED_USERS):
        user_id, moment = _special_id("banned", number), next(moments)
        user = _user(user_id, moment, email=f"banned-{number}@example.com")
        yield user._replace(banned_until=moment + _LONG_BAN)


def obfuscated(user_id: UUID, value: str) -> str:
    """Return the 43 characters that a soft deletion leaves of an e-mail; of a phone it leaves the first 15."""
    digest = hashlib.sha256(f"{user_id}{value}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def identity_claims(user_id: UUID, provider: str, address: str, *, is_verified: bool = False) -> dict[str, Any]:
    """Return what GoTrue keeps of an e-mail or phone identity."""
    verified = {"email_verified": False, "phone_verified": False, f"{provider}_verified": is_verified}
    return {"sub": str(user_id), provider: address, **verified}


def _user(
    user_id: UUID,
    created_at: datetime,
    *,
    email: str | None = None,
    phone: str | None = None,
    is_confirmed: bool = True,
    last_sign_in_at: datetime | None = None,
    user_metadata: dict[str, Any] | None = None,
) -> AuthUser:
    provider, address = ("email", email) if email else ("phone", phone)
    confirmed_at = created_at + _CONFIRMATION_DELAY if is_confirmed else None
    metadata = dict(user_metadata or {})
    if email and is_confirmed:
        metadata["email_verified"] = True
    return AuthUser(
        id=user_id,
        email=email,
        phone=phone,
        created_at=created_at,
        email_confirmed_at=confirmed_at if email else None,
        phone_confirmed_at=confirmed_at if phone else None,
        last_sign_in_at=last_sign_in_at,
        banned_until=None,
        deleted_at=None,
        is_anonymous=address is None,
        app_metadata=json.dumps({"provider": provider, "providers": [provider]}) if address else "{}",
        user_metadata=json.dumps(metadata),
        provider=provider if address else None,
        provider_id=str(user_id) if address else None,
        identity_data=json.dumps(identity_claims(user_id, provider, address)) if address else None,
    )


def _special_id(kind: str, number: int) -> UUID:
    return uuid5(_NAMESPACE, f"{kind}-{number}")
