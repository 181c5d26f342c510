"""The organisation behind the simulator: its users, which fields may be seen, its quota and its open cursors.

What belongs here: the state, and the methods with which tests change it. What does not: HTTP (`api.py`).
A change is stamped by the clock, in whole seconds, and seen once its transaction is committed (`transactions.py`);
`latest_date_covered` holds back for those that are open.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from user_sync_pipeline.sandbox.salesforce.access import FieldAccess, Found
from user_sync_pipeline.sandbox.salesforce.bulk import JobStore
from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock, wire_time
from user_sync_pipeline.sandbox.salesforce.cursors import CursorStore
from user_sync_pipeline.sandbox.salesforce.describe import IS_DELETED, ORGANIZATION, USER
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, QueryError
from user_sync_pipeline.sandbox.salesforce.evaluator import count_records, find_records, stamp_bounds
from user_sync_pipeline.sandbox.salesforce.ids import org_id, salesforce_id
from user_sync_pipeline.sandbox.salesforce.permissions import Permissions
from user_sync_pipeline.sandbox.salesforce.quirks import Quirks
from user_sync_pipeline.sandbox.salesforce.quota import DailyQuota
from user_sync_pipeline.sandbox.salesforce.records import RecordWriter
from user_sync_pipeline.sandbox.salesforce.rights import rights_objects
from user_sync_pipeline.sandbox.salesforce.soql import Name, Query
from user_sync_pipeline.sandbox.salesforce.transactions import Transaction
from user_sync_pipeline.sandbox.salesforce.users import USER_PREFIX, Organization, RecordTable, User, UserTable
from user_sync_pipeline.sandbox.sample_people import Person

LARGEST_ORG_WITH_KEPT_RECORDS = 200_000
MOST_UPDATED_IDS = 600_000
LARGEST_OFFSET = 2_000
API_USERNAME = "integration.user@example.com.sync"
_MOST_WRITERS = 16
_NO_SUCH_OBJECT = (
    "sObject type '{}' is not supported. If you are attempting to use a custom object, be sure to append "
    "the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names."
)


class Org:
    """One organisation. Its integration user (`api_user_id`, `api_username`) is not among the users.

    `lock` guards everything: tests change the organisation while the server answers. `transactions` are the open ones,
    oldest first. `hidden_users` are further active ones whom our user does not see. `most_updated_ids` is how many ids
    one `updated` may name; `largest_page` makes pages smaller than was asked for, `empty_last_page` lets a page without
    records follow the last one that has some; the other switches are `quirks`.
    """

    def __init__(self, members: Sequence[Person], *, seed: int, clock: VirtualClock) -> None:
        self.id = org_id(seed)
        self._seed = seed
        self._refreshes = 0
        self.api_user_id = salesforce_id(USER_PREFIX, 0)
        self.api_username = API_USERNAME
        self.clock = clock
        self.lock = threading.RLock()
        self.quota = DailyQuota(clock)
        self.cursors = CursorStore(clock)
        self.jobs = JobStore(self)
        ids = {person.number: salesforce_id(USER_PREFIX, person.number) for person in members}
        self.users = UserTable(User(ids[person.number], person, ids.get(person.manager or 0)) for person in members)
        self.transactions: list[Transaction] = []
        self.permissions = Permissions()
        self.hidden_users = 0
        self._frozen: set[str] = set()
        self.most_updated_ids = MOST_UPDATED_IDS
        self.largest_page: int | None = None
        self.empty_last_page = False
        self.quirks = Quirks()
        self.described_since = self.now()
        self._user_kind = USER
        self._last_number = max(ids, default=0)
        self._see_fields(frozenset())

    def turn(self, **switches: Any) -> None:
        """Turn some of the switches of `quirks`."""
        with self.lock:
            self.quirks = replace(self.quirks, **switches)
            self._see_fields(self._hidden)

    def now(self) -> datetime:
        """Return the present moment as Salesforce stamps it, in whole seconds."""
        return self.clock.now().replace(microsecond=0)

    def begin(self) -> Transaction:
        """Open a transaction: changes that bear the moment they are made, and are seen once it is committed."""
        with self.lock:
            transaction = Transaction(self)
            self.transactions.append(transaction)
            return transaction

    def add_user(self, **values: Any) -> str:
        """Add somebody, seen at once, and return the id; as `Transaction.add_user`."""
        with self.lock, self.begin() as transaction:
            return transaction.add_user(**values)

    def update_user(self, user_id: str, **values: Any) -> None:
        """Change fields of a user, seen at once; as `Transaction.update_user`."""
        with self.lock, self.begin() as transaction:
            transaction.update_user(user_id, **values)

    def deactivate_user(self, user_id: str) -> None:
        """Make a user inactive, seen at once; users are never deleted."""
        self.update_user(user_id, IsActive=False)

    def log_in(self, user_id: str) -> None:
        """Let a user log in."""
        with self.lock, self.begin() as transaction:
            stamps = self.quirks.login_moves_stamp
            transaction.change_unasked(user_id, moves_stamp=stamps, LastLoginDate=wire_time(self.now()))

    def freeze_user(self, user_id: str) -> None:
        """Keep a user from logging in; User itself does not tell of it, only UserLogin does."""
        with self.lock, self.begin() as transaction:
            self._frozen.add(user_id)
            transaction.change_unasked(user_id, moves_stamp=self.quirks.freezing_moves_stamp)

    def recompute(self, user_id: str, **values: Any) -> None:
        """Give formula fields of a user other values, as happens when something changes that they read."""
        with self.lock, self.begin() as transaction:
            transaction.change_unasked(user_id, moves_stamp=False, **values)

    def make_formula(self, name: str) -> None:
        """Let a field of User be described as one that Salesforce computes."""
        with self.lock:
            self._user_kind = self._user_kind.with_formula(name)
            self._see_fields(self._hidden)

    def new_user(self) -> tuple[int, str]:
        """Return number and id for the next new user."""
        self._last_number += 1
        number = self._last_number
        return number, salesforce_id(USER_PREFIX, -number if self.quirks.new_ids_descend else number)

    def hide_field(self, name: str) -> None:
        """Take a field of User from our integration user's sight, as field-level security does."""
        with self.lock:
            self._see_fields(self._hidden | {USER.known_field(name).name})

    def show_field(self, name: str) -> None:
        """Let a hidden field be seen again."""
        with self.lock:
            self._see_fields(self._hidden - {USER.known_field(name).name})

    def set_daily_limit(self, limit: int) -> None:
        """Set how many requests 24 hours may hold."""
        with self.lock:
            self.quota.limit = limit

    def retype_field(self, name: str, kind: str) -> None:
        """Give a field of User another type, and its values that type; raises `ValueError` for what cannot be."""
        with self.lock:
            self._user_kind = self._user_kind.retyped(name, kind)
            self._see_fields(self._hidden)

    def become_another(self) -> None:
        """Get a new organisation id, as a sandbox does when it is refreshed; sessions and cursors are gone."""
        with self.lock:
            self._refreshes += 1
            self.id = org_id(f"{self._seed}, refreshed {self._refreshes} times")
            self.cursors.release_all()
            self._see_fields(self._hidden)

    def describe(self) -> dict[str, Any]:
        """Return the describe answer of User."""
        _, access = self._objects["user"]
        return access.kind.describe(self._hidden)

    def find(self, query: Query) -> list[Any]:
        """Return the records that a query finds, in its order; raises `QueryError`."""
        return find_records(query, *self._asked(query))

    def count(self, query: Query) -> int:
        """Return how many records a query finds; raises `QueryError`."""
        return count_records(query, *self._asked(query))

    def total(self, query: Query) -> int:
        """Return how many records the object of a query has; raises `QueryError`."""
        table, _ = self._asked(query)
        return len(table)

    def columns(self, query: Query) -> list[Found]:
        """Return what a query selects; raises `QueryError`."""
        _, access = self._asked(query)
        return [access.resolve(name, query.statement) for name in query.fields]

    def window_of(self, query: Query) -> timedelta:
        """Return how long the window of SystemModstamp is that a query asks for; without a start, endless."""
        start, end = stamp_bounds(query.where)
        until = datetime.fromisoformat(end) if end else self.clock.now()
        return until - datetime.fromisoformat(start) if start else timedelta.max

    def writer(self, version: str, query: Query) -> RecordWriter:
        """Return what writes the records of a query's answer; raises `QueryError`."""
        key = (version, query.object_name.path.lower(), query.fields)
        if key not in self._writers:
            keep = len(self.users) <= LARGEST_ORG_WITH_KEPT_RECORDS
            _, access = self._asked(query)
            writer = RecordWriter(access, version, query, keep=keep, as_asked=self.quirks.fields_as_asked)
            if len(self._writers) >= _MOST_WRITERS:
                self._writers.clear()
            self._writers[key] = writer
        return self._writers[key]

    def changed_between(self, start: datetime, end: datetime) -> list[str]:
        """Return the ids of the users whose SystemModstamp lies in `[start, end]`."""
        first, last = self.users.first_at(wire_time(start)), self.users.first_after(wire_time(end))
        return [user.id for user in self.users.ordered[first:last]]

    def latest_date_covered(self, end: datetime) -> datetime:
        """Return up to when everything asked for up to `end` is visible: not past the start of an open transaction."""
        return min([end, self.now(), *(transaction.started for transaction in self.transactions)])

    def _see_fields(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden
        self.described_since = self.now()
        user_kind = self._user_kind.with_field(IS_DELETED) if self.quirks.has_is_deleted else self._user_kind
        itself = RecordTable([Organization(self.id, wire_time(self.now()), is_sandbox=self._refreshes > 0)])
        self._objects: dict[str, tuple[RecordTable[Any], FieldAccess]] = {
            "user": (self.users, FieldAccess(user_kind, self.users, hidden)),
            "organization": (itself, FieldAccess(ORGANIZATION, itself)),
        }
        self._writers: dict[tuple[str, str, tuple[Name, ...]], RecordWriter] = {}

    def _asked(self, query: Query) -> tuple[RecordTable[Any], FieldAccess]:
        """Return the object that a query is about; raises `QueryError` when there is none of that name."""
        name = query.object_name
        objects = self._objects
        if name.path.lower() not in objects:
            objects = rights_objects(self.permissions, self.users, self._frozen, self.hidden_users)
        if name.path.lower() not in objects:
            raise QueryError("INVALID_TYPE", _NO_SUCH_OBJECT.format(name.path), query.statement, name.column)
        if query.offset > LARGEST_OFFSET and self.quirks.offset_is_limited:
            raise ApiError(400, "NUMBER_OUTSIDE_VALID_RANGE", f"Maximum SOQL offset allowed is {LARGEST_OFFSET}")
        return objects[name.path.lower()]
