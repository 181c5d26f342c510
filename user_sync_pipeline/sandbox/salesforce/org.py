"""The organisation behind the simulator: its users, which fields may be seen, its quota and its open cursors.

What belongs here: the state, and the methods with which tests change it. What does not: HTTP (`api.py`).
A change is stamped by the clock, in whole seconds, and visible at once; `_put` and `latest_date_covered` are the two
places that know this.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import structs

from user_sync_pipeline.sandbox.salesforce.access import FieldAccess, own_value
from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock, wire_time
from user_sync_pipeline.sandbox.salesforce.cursors import CursorStore
from user_sync_pipeline.sandbox.salesforce.describe import USER, Field
from user_sync_pipeline.sandbox.salesforce.evaluator import count_users, find_users
from user_sync_pipeline.sandbox.salesforce.ids import org_id, salesforce_id
from user_sync_pipeline.sandbox.salesforce.quota import DailyQuota
from user_sync_pipeline.sandbox.salesforce.records import RecordWriter
from user_sync_pipeline.sandbox.salesforce.soql import Name, Query
from user_sync_pipeline.sandbox.salesforce.users import USER_PREFIX, User, UserTable
from user_sync_pipeline.sandbox.sample_people import Person, people

LARGEST_ORG_WITH_KEPT_RECORDS = 200_000
_MOST_WRITERS = 16


class Org:
    """One organisation. Its integration user, `api_user_id`, is not among the users.

    `lock` guards everything: tests change the organisation while the server answers.
    """

    def __init__(self, members: Sequence[Person], *, seed: int, clock: VirtualClock) -> None:
        self.id = org_id(seed)
        self.api_user_id = salesforce_id(USER_PREFIX, 0)
        self.clock = clock
        self.lock = threading.RLock()
        self.quota = DailyQuota(clock)
        self.cursors = CursorStore(clock)
        ids = {person.number: salesforce_id(USER_PREFIX, person.number) for person in members}
        self.users = UserTable(User(ids[person.number], person, ids.get(person.manager or 0)) for person in members)
        self._last_number = max(ids, default=0)
        self._see_fields(frozenset())

    def add_user(self, **values: Any) -> str:
        """Add somebody and return the id; `values` are by field name, in wire form.

        The user is new: created now, never logged in, without a manager. Raises `ValueError` for an unknown field.
        """
        changes = _changes(values)
        with self.lock:
            self._last_number += 1
            now = self._now()
            user = User(salesforce_id(USER_PREFIX, self._last_number), _newcomer(self._last_number, now), None)
            user.changes = {"CreatedDate": wire_time(now), "LastLoginDate": None, "LastPasswordChangeDate": None}
            self.users.add(user)
            self._put(user, changes, now)
            return user.id

    def update_user(self, user_id: str, **values: Any) -> None:
        """Change fields of a user, by field name and in wire form.

        Raises `KeyError` for an unknown user, `ValueError` for an unknown field.
        """
        changes = _changes(values)
        with self.lock:
            user = self.users.get(user_id)
            if user is None:
                raise KeyError(user_id)
            self._put(user, changes, self._now())

    def deactivate_user(self, user_id: str) -> None:
        """Make a user inactive; users are never deleted."""
        self.update_user(user_id, IsActive=False)

    def hide_field(self, name: str) -> None:
        """Take a field of User from our integration user's sight, as field-level security does."""
        with self.lock:
            self._see_fields(self._hidden | {_field(name).name})

    def show_field(self, name: str) -> None:
        """Let a hidden field be seen again."""
        with self.lock:
            self._see_fields(self._hidden - {_field(name).name})

    def set_daily_limit(self, limit: int) -> None:
        """Set how many requests 24 hours may hold."""
        with self.lock:
            self.quota.limit = limit

    def describe(self) -> dict[str, Any]:
        """Return the describe answer of User."""
        return USER.describe(self._hidden)

    def find(self, query: Query) -> list[User]:
        """Return the users that a query finds, in its order; raises `QueryError`."""
        return find_users(query, self.users, self._access)

    def count(self, query: Query) -> int:
        """Return how many users a query finds; raises `QueryError`."""
        return count_users(query, self.users, self._access)

    def writer(self, version: str, query: Query) -> RecordWriter:
        """Return what writes the records of a query's answer; raises `QueryError`."""
        key = (version, query.fields)
        if key not in self._writers:
            keep = len(self.users) <= LARGEST_ORG_WITH_KEPT_RECORDS
            writer = RecordWriter(self._access, version, query, keep=keep)
            if len(self._writers) >= _MOST_WRITERS:
                self._writers.clear()
            self._writers[key] = writer
        return self._writers[key]

    def changed_between(self, start: datetime, end: datetime) -> list[str]:
        """Return the ids of the users whose SystemModstamp lies in `[start, end]`."""
        first, last = self.users.first_at(wire_time(start)), self.users.first_after(wire_time(end))
        return [user.id for user in self.users.ordered[first:last]]

    def latest_date_covered(self, end: datetime) -> datetime:
        """Return up to when everything asked for up to `end` is visible."""
        return min(end, self._now())

    def _put(self, user: User, changes: dict[str, Any], now: datetime) -> None:
        user.changes = {**(user.changes or {}), **changes, "LastModifiedDate": wire_time(now)}
        if changes.keys() & {"FirstName", "LastName"}:
            names = (own_value(_field(name))(user) for name in ("FirstName", "LastName"))
            user.changes["Name"] = " ".join(filter(None, names))
        user.rendered = None
        self.users.move(user, wire_time(now))

    def _see_fields(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden
        self._access = FieldAccess(self.users, hidden)
        self._writers: dict[tuple[str, tuple[Name, ...]], RecordWriter] = {}

    def _now(self) -> datetime:
        """Return the present moment as Salesforce stamps it, in whole seconds."""
        return self.clock.now().replace(microsecond=0)


def _field(name: str) -> Field:
    field = USER.field(name)
    if field is None:
        raise ValueError(f"User has no field {name}")
    return field


def _changes(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` under the described spelling of their names."""
    changes = {_field(name).name: value for name, value in values.items()}
    if fixed := changes.keys() & {"Id", "SystemModstamp"}:
        raise ValueError(f"nobody can change {' and '.join(sorted(fixed))}")
    return changes


def _newcomer(number: int, until: datetime) -> Person:
    [person] = people(1, seed=number, until=until)
    mailbox = f"newcomer.{number}"
    return structs.replace(
        person,
        number=number,
        mailbox=mailbox,
        email=f"{mailbox}@example.com",
        auth_user_id=None,
        has_external_id=False,
    )
