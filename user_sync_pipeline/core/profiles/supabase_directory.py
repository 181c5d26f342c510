"""The Supabase door: auth users and profiles with nothing but the project's address and service key.

What belongs here: the plan, which is the exact functions of our migration where they are installed, else the pages
of the admin API against the ids of the profiles. What does not: HTTP itself (`supabase_client.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.directory import Account, Creation, create_in_halves, refusal_reason
from user_sync_pipeline.core.profiles.report import Exactness, ProfileFailure, ProfileStatus
from user_sync_pipeline.core.profiles.supabase_client import AdminUser, SupabaseClient

USERS_A_PAGE = 1000
PROFILES_A_PAGE = 1000
PROFILES_A_REQUEST = 500
# A call has to end within the 8 seconds that a request of the API may take, also when every row is refused.
PROFILES_A_CALL = 2000

_TEXT_LENGTHS = {"full_name": 200, "avatar_url": 2000}


class _Report(msgspec.Struct):
    """The row of `profile_sync_report()`."""

    total_auth_users: int
    total_user_profiles: int
    missing_profiles: int
    orphan_profiles: int
    soft_deleted_users: int
    users_outside_api: int
    trigger_installed: bool


class _Refusal(msgspec.Struct):
    user_id: UUID
    sqlstate: str
    constraint: str = ""
    column: str = ""

    def as_failure(self) -> ProfileFailure:
        reason = refusal_reason(self.sqlstate, constraint=self.constraint, column=self.column)
        return ProfileFailure(self.user_id, reason)


class _Backfill(msgspec.Struct):
    """The answer of `profile_backfill()`."""

    attempted: int
    created: int
    vanished: int
    last_user_id: UUID | None
    failures: tuple[_Refusal, ...]


class SupabaseDirectory(AbstractContextManager["SupabaseDirectory"]):
    """Works over HTTP with the service key. The key is checked at once, the network is used on first need."""

    def __init__(self, url: str, service_role_key: str, *, ca_bundle: str | None = None) -> None:
        self._client = SupabaseClient(url, service_role_key, ca_bundle=ca_bundle)

    def status(self) -> ProfileStatus:
        """Count users and profiles: exactly where our function is installed, else page by page."""
        try:
            (report,) = self._client.call("profile_sync_report", {}, tuple[_Report])
        except LookupError:
            return self._count_pages()
        return ProfileStatus(**msgspec.structs.asdict(report), method="rpc", exactness="exact")

    def create_missing(self) -> Iterator[Creation]:
        """Create missing profiles: inside the database where our function is installed, else from the pages."""
        try:
            yield from self._backfill()
        except LookupError:
            yield from self._create_from_pages()

    def refresh_mirrored(self, *, dry_run: bool) -> int:
        """Not offered here; raises `ConfigurationError`."""
        raise ConfigurationError("--no-preserve needs a database connection; set SUPABASE_DB_URL.")

    def accounts(self) -> Iterator[Account]:
        """Stream the users page by page, then the profiles that belong to none of them."""
        profile_ids = set(self._profile_ids())
        now = datetime.now(UTC)
        for user in _UserWalk(self._client):
            if user.is_in_scope:
                yield Account(
                    auth_user_id=str(user.id),
                    email=user.email.strip(" ").lower() or None,
                    is_verified=user.email_confirmed_at is not None,
                    can_sign_in=user.banned_until is None or user.banned_until <= now,
                    is_in_scope=True,
                    has_profile=user.id in profile_ids,
                )
                profile_ids.discard(user.id)
        for orphan in profile_ids:
            yield Account(str(orphan), None, False, False, is_in_scope=False, has_profile=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count_pages(self) -> ProfileStatus:
        profile_ids = set(self._profile_ids())
        profiles = len(profile_ids)
        users = missing = deleted = 0
        walk = _UserWalk(self._client)
        for user in walk:
            if user.is_in_scope:
                users += 1
                missing += user.id not in profile_ids
                profile_ids.discard(user.id)
            else:
                deleted += user.deleted_at is not None
        return ProfileStatus(
            total_auth_users=users,
            total_user_profiles=profiles,
            missing_profiles=missing,
            orphan_profiles=len(profile_ids),
            soft_deleted_users=deleted,
            method="api",
            exactness=_combine(walk.exactness, _compare(profiles, {self._client.count_profiles()})),
        )

    def _backfill(self) -> Iterator[Creation]:
        arguments: dict[str, Any] = {"max_rows": PROFILES_A_CALL}
        while True:
            answer = self._client.call("profile_backfill", arguments, _Backfill)
            failures = tuple(refusal.as_failure() for refusal in answer.failures)
            yield Creation(answer.created, answer.vanished, failures)
            if answer.attempted < PROFILES_A_CALL:
                return
            arguments["after_user_id"] = str(answer.last_user_id)

    def _create_from_pages(self) -> Iterator[Creation]:
        profile_ids = set(self._profile_ids())
        waiting: list[dict[str, Any]] = []
        for user in _UserWalk(self._client):
            if user.is_in_scope and user.id not in profile_ids:
                waiting.append(_profile_of(user))
            if len(waiting) == PROFILES_A_REQUEST:
                yield self._create(waiting)
                waiting = []
        if waiting:
            yield self._create(waiting)

    def _create(self, rows: list[dict[str, Any]]) -> Creation:
        return create_in_halves(rows, self._client.insert_profiles, lambda row: UUID(row["id"]))

    def _profile_ids(self) -> Iterator[UUID]:
        """Read all ids in order, each page behind the last id; the server may cap a page below what was asked."""
        last: UUID | None = None
        while ids := self._client.profile_ids(last, PROFILES_A_PAGE):
            yield from ids
            last = ids[-1]


class _UserWalk:
    """Walks once through all pages of users, each user once, and tells afterwards how far that can be trusted.

    The pages are counted from the start by the server, so whoever is deleted meanwhile moves others over a page's
    edge, and users made at the same moment have no order among themselves. Only the totals show it.
    """

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client
        self._seen: set[UUID] = set()
        self._totals: set[int | None] = set()

    def __iter__(self) -> Iterator[AdminUser]:
        page = 1
        while (listed := self._client.list_users(page, USERS_A_PAGE)).users:
            self._totals.add(listed.total)
            for user in listed.users:
                if user.id not in self._seen:
                    self._seen.add(user.id)
                    yield user
            page += 1
        self._totals.add(listed.total)

    @property
    def exactness(self) -> Exactness:
        return _compare(len(self._seen), self._totals)


def _compare(counted: int, totals: set[int | None]) -> Exactness:
    if None in totals:
        return "unknown"
    return "exact" if totals == {counted} else "bounded"


def _combine(*parts: Exactness) -> Exactness:
    return next((worst for worst in ("unknown", "bounded") if worst in parts), "exact")


def _profile_of(user: AdminUser) -> dict[str, Any]:
    """Return the row that the trigger would have made; all rows have the same keys, and the role its default."""
    metadata = user.user_metadata if isinstance(user.user_metadata, dict) else {}
    return {
        "id": str(user.id),
        "email": user.email or None,
        "phone": user.phone or None,
        "source": "sync",
        **{name: _text(metadata.get(name), length) for name, length in _TEXT_LENGTHS.items()},
    }


def _text(value: object, max_length: int) -> str | None:
    return value.strip(" ")[:max_length] or None if isinstance(value, str) else None
