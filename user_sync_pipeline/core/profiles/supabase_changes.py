"""Changes to profiles that are there already, over HTTP: refreshing the mirrored columns, and undoing a run.

What belongs here: which profiles are changed to what. What does not: making profiles (`supabase_directory.py`).

Each change names the e-mail and phone that the profile is expected to hold, so that nobody's change is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.directory import CHANGED_SINCE, Kept, ProfileImage, RowsRefusedError, Undone
from user_sync_pipeline.core.profiles.report import ProfileFailure
from user_sync_pipeline.core.profiles.supabase_census import every_profile, every_user
from user_sync_pipeline.core.profiles.supabase_client import ALL_COLUMNS, Profile, SupabaseClient

PROFILES_A_SLICE = 500
PROFILES_A_LOOK = 100
PROFILES_AN_UNDO = 2000


@dataclass(frozen=True, slots=True)
class StaleProfile:
    """A profile as it is, and the e-mail and phone of its user."""

    profile: Profile
    email: str | None
    phone: str | None

    @property
    def image(self) -> ProfileImage:
        """What the profile holds before and after; when it will have been changed is not known before."""
        profile = self.profile
        return ProfileImage(
            profile.id,
            before={"email": profile.email, "phone": profile.phone, "updated_at": profile.updated_at},
            after={"email": self.email, "phone": self.phone},
        )


class _KeptProfile(msgspec.Struct):
    user_id: UUID
    reason: str


class _Removal(msgspec.Struct):
    """The answer of `profile_undo()`."""

    examined: int
    removed: int
    last_user_id: UUID | None
    kept: tuple[_KeptProfile, ...]


def stale_profiles(client: SupabaseClient) -> Iterator[StaleProfile]:
    """Yield the profiles whose e-mail or phone is not that of their user."""
    profiles = {profile.id: profile for profile in every_profile(client, columns=ALL_COLUMNS)}
    for user in every_user(client):
        profile = profiles.get(user.id)
        email, phone = user.email or None, user.phone or None
        if profile is not None and user.is_in_scope and (profile.email, profile.phone) != (email, phone):
            yield StaleProfile(profile, email, phone)


def refresh(
    client: SupabaseClient,
    stale: Iterator[StaleProfile],
    *,
    journal: Callable[[Sequence[ProfileImage]], None] | None,
    refused: Callable[[ProfileFailure], None] | None,
) -> int:
    """Bring these profiles up to date and return how many that were; `journal` gets each slice before it is written."""
    refreshed = 0
    while batch := list(islice(stale, PROFILES_A_SLICE)):
        if journal is not None:
            journal([one.image for one in batch])
        for one in batch:
            try:
                refreshed += client.change_profile(one.profile, {"email": one.email, "phone": one.phone})
            except RowsRefusedError as refusal:
                if refused is not None:
                    refused(ProfileFailure(one.profile.id, refusal.reason))
    return refreshed


def remove_created(client: SupabaseClient, run_id: UUID) -> Undone:
    """Remove the profiles that a run made; raises `ConfigurationError` where our function for it is missing."""
    undone = Undone()
    arguments: dict[str, Any] = {"run_id": str(run_id), "max_rows": PROFILES_AN_UNDO}
    while True:
        try:
            answer = client.call("profile_undo", arguments, _Removal)
        except LookupError:
            raise ConfigurationError(
                "The service key alone cannot undo a run; apply the migrations to the database of the project at "
                "SUPABASE_URL, or set SUPABASE_DB_URL."
            ) from None
        kept = tuple(Kept(profile.user_id, profile.reason) for profile in answer.kept)
        undone += Undone(removed=answer.removed, kept=kept)
        if answer.examined < PROFILES_AN_UNDO:
            return undone
        arguments["after_user_id"] = str(answer.last_user_id)


def restore(client: SupabaseClient, images: Iterator[ProfileImage]) -> Undone:
    """Give refreshed profiles their former e-mail and phone back, where they hold what the run made of them."""
    undone = Undone()
    while batch := list(islice(images, PROFILES_A_LOOK)):
        profiles = client.find_profiles(image.user_id for image in batch)
        for image in batch:
            profile = profiles.get(image.user_id)
            if profile is not None and not _holds(profile, image.before):
                undone += _restore(client, profile, image)
    return undone


def _restore(client: SupabaseClient, profile: Profile, image: ProfileImage) -> Undone:
    changes = {name: image.before.get(name) for name in ("email", "phone")}
    # The moment of the last change goes back as well, unless something else was changed since.
    if _same_moment(profile.updated_at, image.after.get("updated_at")):
        changes["updated_at"] = image.before.get("updated_at")
    try:
        if _holds(profile, image.after) and client.change_profile(profile, changes):
            return Undone(restored=1)
    except RowsRefusedError as refusal:
        return Undone(kept=(Kept(profile.id, refusal.reason),))
    return Undone(kept=(Kept(profile.id, CHANGED_SINCE),))


def _holds(profile: Profile, values: dict[str, str | None]) -> bool:
    return (profile.email, profile.phone) == (values.get("email"), values.get("phone"))


def _same_moment(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and datetime.fromisoformat(one) == datetime.fromisoformat(other)
