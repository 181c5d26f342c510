"""The Supabase door: auth users and profiles with nothing but the project's address and service key.

What belongs here: the plan, which is the exact functions of our migration where they are installed, else the pages
of the admin API against the ids of the profiles. What does not: counting by pages (`supabase_census.py`), changing
profiles that are there (`supabase_changes.py`) and HTTP itself (`supabase_client.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self
from uuid import UUID

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.directory import (
    Account,
    Creation,
    ProfileImage,
    Undone,
    create_in_halves,
    refusal_reason,
)
from user_sync_pipeline.core.profiles.report import ProfileFailure, ProfileStatus
from user_sync_pipeline.core.profiles.supabase_census import every_profile, every_user, take_census
from user_sync_pipeline.core.profiles.supabase_changes import refresh, remove_created, restore, stale_profiles
from user_sync_pipeline.core.profiles.supabase_client import ALL_COLUMNS, AdminUser, Profile, SupabaseClient
from user_sync_pipeline.core.profiles.supabase_errors import PageBrokenError

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
    anonymous_users: int | None = None
    banned_users: int | None = None
    unconfirmed_users: int | None = None


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
            return take_census(self._client)
        return ProfileStatus(**msgspec.structs.asdict(report), method="rpc", exactness="exact")

    def create_missing(self, run_id: UUID | None = None) -> Generator[Creation]:
        """Create missing profiles: inside the database where our function is installed, else from the pages."""
        repeated, counted = self._client.repeated_requests, 0
        for creation in self._creations(run_id):
            counted += creation.created
            yield creation
        if run_id is not None and self._client.repeated_requests != repeated:
            # A request that was made again finds what the first one made, and does not count it as new.
            made = self._client.count_profiles(run_id) if self._client.has_run_column() else None
            yield Creation(created=max(0, (made or 0) - counted))

    def create_profile(self, user_id: UUID, *, role: str, run_id: UUID | None = None) -> Creation:
        """Create one profile."""
        user = self._find_user(user_id)
        if user is None or not user.is_in_scope:
            return Creation()
        return self._create([{**_profile_of(user), "role": role, **self._mark_of(run_id)}])

    def account(self, user_id: UUID) -> Account | None:
        """Look one user up."""
        user = self._find_user(user_id)
        if user is None:
            return None
        profile = self._client.find_profiles([user_id]).get(user_id)
        account = _account_of(user, profile, datetime.now(UTC))
        return account._replace(is_in_scope=user.is_in_scope, role=None if profile is None else profile.role)

    def refresh_mirrored(
        self,
        *,
        dry_run: bool,
        journal: Callable[[Sequence[ProfileImage]], None] | None = None,
        refused: Callable[[ProfileFailure], None] | None = None,
    ) -> int:
        """Bring e-mail and phone of existing profiles up to date, one request for each that is not."""
        stale = stale_profiles(self._client)
        if dry_run:
            return sum(1 for _ in stale)
        return refresh(self._client, stale, journal=journal, refused=refused)

    def undo(self, run_id: UUID, images: Iterator[ProfileImage]) -> Undone:
        """Remove what the run made by our function, which alone may delete, then restore what the run refreshed."""
        return remove_created(self._client, run_id) + restore(self._client, images)

    def accounts(self) -> Generator[Account]:
        """Stream the users page by page, then the profiles that belong to none of them.

        A profile whose user was not on any page is looked up: that user may only be one who cannot be shown.
        """
        profiles = {profile.id: profile for profile in every_profile(self._client, columns=ALL_COLUMNS)}
        now = datetime.now(UTC)
        out_of_scope: set[UUID] = set()
        for user in every_user(self._client):
            if user.is_in_scope:
                yield _account_of(user, profiles.pop(user.id, None), now)
            else:
                out_of_scope.add(user.id)
        for orphan in profiles:
            if orphan in out_of_scope or self._is_nobody(orphan):
                yield Account(str(orphan), None, False, False, is_in_scope=False, has_profile=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _creations(self, run_id: UUID | None) -> Iterator[Creation]:
        try:
            yield from self._backfill(run_id)
        except LookupError:
            yield from self._create_from_pages(run_id)

    def _backfill(self, run_id: UUID | None) -> Iterator[Creation]:
        arguments: dict[str, Any] = {"max_rows": PROFILES_A_CALL, "run_id": None if run_id is None else str(run_id)}
        while True:
            answer = self._client.call("profile_backfill", arguments, _Backfill)
            failures = tuple(refusal.as_failure() for refusal in answer.failures)
            yield Creation(answer.created, answer.vanished, failures)
            if answer.attempted < PROFILES_A_CALL:
                return
            arguments["after_user_id"] = str(answer.last_user_id)

    def _create_from_pages(self, run_id: UUID | None) -> Iterator[Creation]:
        profile_ids = {profile.id for profile in every_profile(self._client)}
        mark = self._mark_of(run_id)
        missing = (
            {**_profile_of(user), **mark}
            for user in every_user(self._client)
            if user.is_in_scope and user.id not in profile_ids
        )
        while batch := list(islice(missing, PROFILES_A_REQUEST)):
            yield self._create(batch)

    def _create(self, rows: list[dict[str, Any]]) -> Creation:
        return create_in_halves(rows, self._client.insert_profiles, lambda row: UUID(row["id"]))

    def _mark_of(self, run_id: UUID | None) -> dict[str, str]:
        """Return what a row bears of the run that makes it, where the table has a column for that."""
        return {} if run_id is None or not self._client.has_run_column() else {"sync_run_id": str(run_id)}

    def _is_nobody(self, user_id: UUID) -> bool:
        try:
            return self._client.find_user(user_id) is None
        except PageBrokenError:
            return False

    def _find_user(self, user_id: UUID) -> AdminUser | None:
        try:
            return self._client.find_user(user_id)
        except PageBrokenError:
            raise ConfigurationError(
                f"SUPABASE_URL cannot show the auth user {user_id}, most likely because the row in auth.users was made "
                "by hand; set SUPABASE_DB_URL, which reads it all the same."
            ) from None


def _account_of(user: AdminUser, profile: Profile | None, now: datetime) -> Account:
    email = _address(user.email)
    return Account(
        auth_user_id=str(user.id),
        email=email,
        is_verified=user.email_confirmed_at is not None,
        can_sign_in=user.banned_until is None or user.banned_until <= now,
        is_in_scope=True,
        has_profile=profile is not None,
        has_stale_email=profile is not None and _address(profile.email) != email,
    )


def _address(email: str | None) -> str | None:
    return (email or "").strip(" ").lower() or None


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
