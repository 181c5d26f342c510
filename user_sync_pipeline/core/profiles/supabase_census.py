"""Counts users and profiles over HTTP, and proves what it calls exact.

What belongs here: passes over all pages, the proof, and pages that break. What does not: the requests themselves
(`supabase_client.py`) and what the figures are for (`supabase_directory.py`).

A single pass proves nothing. The server counts pages from the start, so whoever is deleted meanwhile moves others over
a page's edge, and users made at the same moment have no order among themselves: some are skipped, some come twice,
and some are on the list and gone. But who is seen before a moment and, unchanged, after it was there at that
moment. So between two passes the server is asked for its totals. Where so many were seen both before and after, nobody
else was there, and the figures are those of that moment; else what is left over bounds the error.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.report import Exactness, ProfileStatus
from user_sync_pipeline.core.profiles.supabase_client import COUNTED_COLUMNS, AdminUser, Profile, SupabaseClient
from user_sync_pipeline.core.profiles.supabase_errors import PageBrokenError

PROFILES_A_PAGE = 1000
# Broken pages that a pass takes apart; what breaks beyond these stays unread.
MAX_BROKEN_PAGES = 200

_ORDER: tuple[Exactness, ...] = ("exact", "bounded", "unknown")

Mark = TypeVar("Mark", bound=Hashable)


class Reading(NamedTuple):
    """How a pass reads the users."""

    users_a_page: int
    oldest_first: bool


# Oldest first, so that a sign-up moves nobody. Each further pass has its edges elsewhere, or meets users made at the
# same moment in another order. The sizes divide well, because a page that breaks is read in parts.
READINGS = (
    Reading(1000, oldest_first=True),
    Reading(1000, oldest_first=False),
    Reading(960, oldest_first=True),
    Reading(960, oldest_first=False),
    Reading(900, oldest_first=True),
    Reading(900, oldest_first=False),
)


def take_census(client: SupabaseClient) -> ProfileStatus:
    """Read users and profiles until the figures of one moment are proven, at least twice and at most six times."""
    users: _Sightings[UserMark] = _Sightings()
    profiles: _Sightings[str] = _Sightings()
    now = datetime.now(UTC)

    def read(reading: Reading, expected: int | None) -> tuple[int, ...]:
        profiles.add_pass((profile.id, profile.created_at) for profile in every_profile(client))
        user_pass = UserPass(client, reading, expected)
        users.add_pass((user.id, UserMark.of(user, now)) for user in user_pass)
        return tuple(user_pass.unreadable)

    unreadable = read(READINGS[0], client.count_users())
    moments: list[_Totals] = []
    for reading in READINGS[1:]:
        moments.append(_Totals(client.count_profiles(), client.count_users(), client.count_profiles()))
        still_unreadable = read(reading, moments[-1].users)
        # The pass just made tells of every moment before it.
        best = min(
            (
                _census_at(totals, users.around(number), profiles.around(number), unreadable)
                for number, totals in enumerate(moments, 1)
            ),
            key=lambda status: (_ORDER.index(status.exactness), status.margin or 0),
        )
        if best.margin in (0, len(still_unreadable)) or None in moments[-1]:
            break
    return best


def every_user(client: SupabaseClient) -> Iterator[AdminUser]:
    """Yield each user once, in as many passes as it takes to have seen all, and at most six."""
    seen: set[UUID] = set()
    expected = client.count_users()
    for reading in READINGS:
        seen_before = len(seen)
        user_pass = UserPass(client, reading, expected)
        for user in user_pass:
            if user.id not in seen:
                seen.add(user.id)
                yield user
        expected = client.count_users()
        if expected is None or len(seen) + len(user_pass.unreadable) >= expected or len(seen) == seen_before:
            return


def every_profile(client: SupabaseClient, *, columns: str = COUNTED_COLUMNS) -> Iterator[Profile]:
    """Read all profiles by id, each page behind the last id; the server may cap a page below what was asked."""
    last: UUID | None = None
    while profiles := client.profiles(last, PROFILES_A_PAGE, columns=columns):
        yield from profiles
        last = profiles[-1].id


class UserPass:
    """Walks once through all pages of users.

    A page that breaks is read in parts, down to the single users at fault; `unreadable` has their positions, from 1,
    in the order of the reading. With so many users `expected`, a list that breaks at its end is told from one that has
    no end. Raises `ConfigurationError` when nobody can be read.
    """

    def __init__(self, client: SupabaseClient, reading: Reading, expected: int | None) -> None:
        self.unreadable: list[int] = []
        self._client = client
        self._reading = reading
        self._expected = expected or 0
        self._patience = MAX_BROKEN_PAGES

    def __iter__(self) -> Iterator[AdminUser]:
        size = self._reading.users_a_page
        is_anybody_read = False
        for page in count(1):
            listed = self._read(page, size)
            readable = [user for user in listed if user is not None]
            is_anybody_read = is_anybody_read or bool(readable)
            yield from readable
            if not listed or (not readable and page * size >= self._expected):
                break
        if self._patience == 0 and not is_anybody_read:
            raise ConfigurationError(
                "SUPABASE_URL cannot list its users, most likely because of rows in auth.users that were made by hand; "
                "set SUPABASE_DB_URL, which reads them all the same."
            )

    def _read(self, page: int, size: int) -> Sequence[AdminUser | None]:
        """Return a page, with None for whom nobody can read."""
        first = (page - 1) * size + 1
        try:
            users = self._client.list_users(page, size, oldest_first=self._reading.oldest_first).users
        except PageBrokenError:
            if size > 1 and self._patience:
                self._patience -= 1
                return self._read_parts(first, size)
            users = (None,) * (size if size == 1 else max(0, min(size, self._expected - first + 1)))
        self.unreadable += [first + index for index, user in enumerate(users) if user is None]
        return users

    def _read_parts(self, first: int, size: int) -> list[AdminUser | None]:
        part = size // next(factor for factor in (5, 3, 2) if size % factor == 0)
        pages = range((first - 1) // part + 1, (first - 1 + size) // part + 1)
        return [user for page in pages for user in self._read(page, part)]


class _Totals(NamedTuple):
    """What the server says there is, profiles asked for before the users and after; None where it says nothing."""

    profiles_before: int | None
    users: int | None
    profiles_after: int | None

    def margin(self, proven_users: int, proven_profiles: int) -> int | None:
        """Return how many are not accounted for; None where that is not told, or cannot be."""
        if self.profiles_before is None or self.users is None or self.profiles_after is None:
            return None
        users = self.users - proven_users
        profiles = min(self.profiles_before, self.profiles_after) - proven_profiles
        if users < 0 or profiles < 0:
            return None
        return users + profiles + 2 * abs(self.profiles_after - self.profiles_before)


class UserMark(NamedTuple):
    """What of a user the figures depend on; `created_at` tells one user from another with the same id."""

    created_at: datetime
    deleted_at: datetime | None
    is_anonymous: bool
    is_banned: bool
    is_unconfirmed: bool

    @classmethod
    def of(cls, user: AdminUser, now: datetime) -> UserMark:
        """Return the mark of a user; a ban counts if it lasts beyond `now`."""
        return cls(
            user.created_at,
            user.deleted_at,
            user.is_anonymous,
            is_banned=user.banned_until is not None and user.banned_until > now,
            is_unconfirmed=not (user.is_anonymous or user.email_confirmed_at or user.phone_confirmed_at),
        )


class _Sighting(msgspec.Struct, Generic[Mark], gc=False):
    """The first and the last pass in which somebody was seen like this."""

    mark: Mark
    first: int
    last: int


class _Sightings(Generic[Mark]):
    """Who was seen in which passes. A `mark` tells whether it is still the same; another one begins anew."""

    def __init__(self) -> None:
        self._passes = 0
        self._seen: dict[UUID, _Sighting[Mark]] = {}

    def add_pass(self, seen: Iterable[tuple[UUID, Mark]]) -> None:
        """Take note of whom the next pass sees."""
        self._passes += 1
        for key, mark in seen:
            known = self._seen.get(key)
            if known is None or known.mark != mark:
                self._seen[key] = _Sighting(mark, self._passes, self._passes)
            else:
                known.last = self._passes

    def around(self, moment: int) -> dict[UUID, Mark]:
        """Return who was there at the moment behind so many passes: seen up to it, and after it."""
        return {key: seen.mark for key, seen in self._seen.items() if seen.first <= moment < seen.last}


def _census_at(
    totals: _Totals,
    users: dict[UUID, UserMark],
    profiles: dict[UUID, str],
    unreadable: tuple[int, ...],
) -> ProfileStatus:
    """Compare the totals of a moment with who is proven to have been there."""
    in_scope = {user_id: user for user_id, user in users.items() if user.deleted_at is None}
    with_profile = len(in_scope.keys() & profiles.keys())
    margin = totals.margin(len(users), len(profiles))
    exactness: Exactness = "unknown" if margin is None else "bounded" if margin else "exact"
    return ProfileStatus(
        total_auth_users=len(in_scope),
        total_user_profiles=len(profiles),
        missing_profiles=len(in_scope) - with_profile,
        orphan_profiles=len(profiles) - with_profile,
        soft_deleted_users=len(users) - len(in_scope),
        method="api",
        exactness=exactness,
        margin=margin,
        anonymous_users=sum(user.is_anonymous for user in in_scope.values()),
        banned_users=sum(user.is_banned for user in in_scope.values()),
        unconfirmed_users=sum(user.is_unconfirmed for user in in_scope.values()),
        unreadable_positions=unreadable,
    )
