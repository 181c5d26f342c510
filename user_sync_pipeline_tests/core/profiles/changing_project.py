"""A Supabase project in this process whose users and profiles change with every statement that it runs.

What belongs here: the answers of the admin API and of the Data API to the requests that counting takes, the changes,
and what was true after each of them. What does not: what a report may claim (`test_simulations.py`).

Nothing is kinder than on a real server: pages are counted from the start, users made at the same moment come in any
order and in another one each time, total and page are two statements, and one odd user breaks the page.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import parse_qs
from uuid import UUID

import httpx

from user_sync_pipeline.core.profiles.report import ProfileStatus

URL = "https://simulated.supabase.co"
KEY = "sb_secret_of_the_simulations"
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_FAR_AWAY = datetime(2999, 1, 1, tzinfo=UTC)


class Figures(NamedTuple):
    """What is true at a moment."""

    users: int
    profiles: int
    missing: int
    orphans: int
    soft_deleted: int
    banned: int
    unconfirmed: int

    @classmethod
    def of(cls, status: ProfileStatus) -> Figures:
        return cls(
            status.total_auth_users,
            status.total_user_profiles,
            status.missing_profiles,
            status.orphan_profiles,
            status.soft_deleted_users,
            status.banned_users or 0,
            status.unconfirmed_users or 0,
        )


@dataclass
class User:
    created_at: datetime
    deleted_at: datetime | None = None
    is_banned: bool = False
    is_confirmed: bool = False
    is_unreadable: bool = False


@dataclass(frozen=True)
class Unrest:
    """How many changes there are at most before each statement, and how often there are any."""

    changes: int = 0
    chance: float = 0.0


class ChangingProject:
    """A project of so many users at first, whose pages of profiles hold `max_rows`.

    `history` has what was true at the start and after each change.
    """

    def __init__(
        self,
        randomness: random.Random,
        *,
        users: int,
        unrest: Unrest,
        ties: float = 0.0,
        unreadable: int = 0,
        tells_totals: bool = True,
        total_is_off_by: int = 0,
        max_rows: int = 7,
    ) -> None:
        self.users: dict[UUID, User] = {}
        self.profiles: dict[UUID, datetime] = {}
        self.requests = 0
        self._random = randomness
        self._unrest = Unrest()
        self._ties = ties
        self._tells_totals = tells_totals
        self._total_is_off_by = total_is_off_by
        self._max_rows = max_rows
        self._now = _BEGINNING
        self.history: list[Figures] = []
        for _ in range(users):
            self._sign_up()
        for user_id in randomness.sample(list(self.users), k=min(users, users // 10)):
            randomness.choice([self._delete_softly, self._lose_profile])(user_id)
        for user_id in randomness.sample(list(self.users), k=min(users, unreadable)):
            self.users[user_id].is_unreadable = True
        self.history = [self.figures()]
        self._unrest = unrest

    def figures(self) -> Figures:
        in_scope = {user_id for user_id, user in self.users.items() if user.deleted_at is None}
        with_profile = len(in_scope & self.profiles.keys())
        return Figures(
            len(in_scope),
            len(self.profiles),
            len(in_scope) - with_profile,
            len(self.profiles) - with_profile,
            len(self.users) - len(in_scope),
            sum(self.users[user_id].is_banned for user_id in in_scope),
            sum(not self.users[user_id].is_confirmed for user_id in in_scope),
        )

    # Changes --------------------------------------------------------------------------------------------------------

    def _live_on(self) -> None:
        """Change something, or nothing, before the next statement."""
        if self._random.random() < self._unrest.chance:
            for _ in range(self._random.randint(1, self._unrest.changes)):
                self._change()
                self.history.append(self.figures())

    def _change(self) -> None:
        change = self._random.choices(
            [self._sign_up, self._delete, self._delete_softly, self._gain_profile, self._lose_profile, self._come_back,
             self._confirm, self._ban, self._turn_odd],
            [40, 30, 8, 10, 6, 3, 10, 5, 3],
        )[0]  # fmt: skip
        if change == self._sign_up:
            self._sign_up()
        elif self.users:
            change(self._random.choice(list(self.users)))  # type: ignore[call-arg]

    def _sign_up(self, user_id: UUID | None = None) -> None:
        if self._random.random() >= self._ties:
            self._now += timedelta(seconds=1)
        user_id = user_id or UUID(int=self._random.getrandbits(128))
        self.users[user_id] = User(self._now)
        if self._random.random() < 0.9:  # the trigger swallows a failure now and then
            self._gain_profile(user_id)

    def _delete(self, user_id: UUID) -> None:
        del self.users[user_id]
        self.profiles.pop(user_id, None)

    def _delete_softly(self, user_id: UUID) -> None:
        self._now += timedelta(microseconds=1)
        self.users[user_id].deleted_at = self._now

    def _confirm(self, user_id: UUID) -> None:
        self.users[user_id].is_confirmed = True

    def _ban(self, user_id: UUID) -> None:
        self.users[user_id].is_banned = not self.users[user_id].is_banned

    def _gain_profile(self, user_id: UUID) -> None:
        self._now += timedelta(microseconds=1)
        self.profiles.setdefault(user_id, self._now)

    def _lose_profile(self, user_id: UUID) -> None:
        self.profiles.pop(user_id, None)

    def _come_back(self, user_id: UUID) -> None:
        """Be deleted and created again with the same id."""
        self._delete(user_id)
        self._now += timedelta(seconds=1)
        self._sign_up(user_id)

    def _turn_odd(self, user_id: UUID) -> None:
        self.users[user_id].is_unreadable = not self.users[user_id].is_unreadable

    # Answers --------------------------------------------------------------------------------------------------------

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        parameters = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        self._live_on()
        if request.url.path == "/auth/v1/admin/users":
            return self._list_users(parameters)
        if request.url.path == "/rest/v1/user_profiles":
            return self._list_profiles(parameters, is_counted="count=exact" in request.headers.get("prefer", ""))
        return _json({"code": "PGRST202", "message": "no such function", "details": None, "hint": None}, 404)

    def _list_users(self, parameters: dict[str, str]) -> httpx.Response:
        total = len(self.users) + self._total_is_off_by
        self._live_on()
        first = (int(parameters["page"]) - 1) * int(parameters["per_page"])
        listed = sorted(self.users, key=lambda user_id: (self.users[user_id].created_at, self._random.random()))
        if not parameters.get("sort", "").endswith("asc"):
            listed.reverse()
        page = listed[first : first + int(parameters["per_page"])]
        if any(self.users[user_id].is_unreadable for user_id in page):
            return _json({"code": 500, "error_code": "unexpected_failure", "msg": "Database error finding users"}, 500)
        users = [{"id": str(user_id), "aud": "authenticated", **_times(self.users[user_id])} for user_id in page]
        return _json({"users": users}, headers={"X-Total-Count": str(total)} if self._tells_totals else {})

    def _list_profiles(self, parameters: dict[str, str], *, is_counted: bool) -> httpx.Response:
        after = UUID(parameters["id"].removeprefix("gt.")) if "id" in parameters else UUID(int=0)
        page = sorted(user_id for user_id in self.profiles if user_id > after)
        page = page[: min(int(parameters["limit"]), self._max_rows)]
        rows = [{"id": str(user_id), "created_at": self.profiles[user_id].isoformat()} for user_id in page]
        total = len(self.profiles) if is_counted and self._tells_totals else "*"
        return _json(rows, headers={"Content-Range": f"{f'0-{len(rows) - 1}' if rows else '*'}/{total}"})


@contextmanager
def answered_by(answer: Callable[[httpx.Request], httpx.Response]) -> Iterator[None]:
    """Let `answer` stand for the network under every httpx client."""

    def handle(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return answer(request)

    with patch.object(httpx.HTTPTransport, "handle_request", handle):
        yield


def _times(user: User) -> dict[str, str]:
    times = {
        "created_at": user.created_at,
        "deleted_at": user.deleted_at,
        "email_confirmed_at": user.created_at if user.is_confirmed else None,
        "banned_until": _FAR_AWAY if user.is_banned else None,
    }
    return {name: moment.isoformat() for name, moment in times.items() if moment is not None}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(
        status, headers={"Content-Type": "application/json", **(headers or {})}, text=json.dumps(value)
    )
