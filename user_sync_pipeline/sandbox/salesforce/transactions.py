"""Transactions: changes that bear the moment at which they were made, and that nobody sees before they are committed.

What belongs here: what a transaction has changed so far, its hold on the rows, and what committing does to them.
What does not: the users as they are seen (`users.py`), and how far `updated` vouches (`org.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import structs

from user_sync_pipeline.sandbox.salesforce.access import own_value
from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.describe import USER
from user_sync_pipeline.sandbox.salesforce.users import User
from user_sync_pipeline.sandbox.sample_people import Person, people

if TYPE_CHECKING:
    from datetime import datetime

    from user_sync_pipeline.sandbox.salesforce.org import Org


class RowLockedError(Exception):
    """Another open transaction has changed this user; Salesforce says UNABLE_TO_LOCK_ROW after a while."""


@dataclass(slots=True)
class _Row:
    """A user and what is to become of it; `stamp` is the SystemModstamp of the last of these changes."""

    user: User
    is_new: bool = False
    stamp: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


class Transaction:
    """A set of changes, open from `Org.begin()` until `commit()` or `rollback()`.

    Each change is stamped by the clock when it is made. As a context manager it commits at the end of the block,
    or rolls back when the block raises. Raises `RuntimeError` once it is over.
    """

    def __init__(self, org: Org) -> None:
        self.started: datetime = org.now()
        self._org = org
        self._rows: dict[str, _Row] = {}

    def add_user(self, **values: Any) -> str:
        """Add somebody and return the id; `values` are by field name, in wire form.

        The user is new: created now, never logged in, without a manager. Raises `ValueError` for an unknown field.
        """
        changes = _changes(values)
        with self._org.lock:
            self._must_be_open()
            number, user_id = self._org.new_user()
            now = self._org.now()
            user = User(user_id, _newcomer(number, now), None)
            user.changes = {"CreatedDate": wire_time(now), "LastLoginDate": None, "LastPasswordChangeDate": None}
            self._rows[user.id] = _Row(user, is_new=True)
            self._change(user.id, changes)
            return user.id

    def update_user(self, user_id: str, **values: Any) -> None:
        """Change fields of a user, by field name and in wire form.

        Raises `KeyError` for an unknown user, `ValueError` for an unknown field and `RowLockedError` for a user
        whom another open transaction has changed.
        """
        changes = _changes(values)
        with self._org.lock:
            self._must_be_open()
            only_activity = changes.keys() == {"IsActive"}
            self._change(user_id, changes, moves_stamp=self._org.quirks.deactivation_moves_stamp or not only_activity)

    def change_unasked(self, user_id: str, *, moves_stamp: bool, **values: Any) -> None:
        """Change fields of a user as Salesforce itself does, not a person: LastModifiedDate stays as it is.

        SystemModstamp moves with `moves_stamp` only. Raises as `update_user`.
        """
        changes = _changes(values)
        with self._org.lock:
            self._must_be_open()
            self._change(user_id, changes, moves_stamp=moves_stamp, by_a_person=False)

    def deactivate_user(self, user_id: str) -> None:
        """Make a user inactive; users are never deleted."""
        self.update_user(user_id, IsActive=False)

    def commit(self) -> None:
        """Let everybody see the changes, each with the SystemModstamp of the moment it was made."""
        with self._org.lock:
            self._end()
            for row in self._rows.values():
                self._apply(row)

    def rollback(self) -> None:
        """Forget the changes; ids that were given out are not given out again."""
        with self._org.lock:
            self._end()

    def has_changed(self, user_id: str) -> bool:
        """Tell whether the transaction has changed this user."""
        return user_id in self._rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in self._org.transactions:
            self.rollback() if error else self.commit()

    def _must_be_open(self) -> None:
        if self not in self._org.transactions:
            raise RuntimeError("the transaction is over")

    def _end(self) -> None:
        self._must_be_open()
        self._org.transactions.remove(self)

    def _lock_row(self, user_id: str) -> _Row:
        user = self._org.users.get(user_id)
        if user is None:
            raise KeyError(user_id)
        if any(other.has_changed(user_id) for other in self._org.transactions):
            raise RowLockedError(user_id)
        return _Row(user)

    def _change(
        self, user_id: str, changes: dict[str, Any], *, moves_stamp: bool = True, by_a_person: bool = True
    ) -> None:
        if user_id not in self._rows:
            self._rows[user_id] = self._lock_row(user_id)
        row, now = self._rows[user_id], wire_time(self._org.now())
        row.stamp = now if moves_stamp else row.stamp or row.user.stamp
        row.changes |= changes | ({"LastModifiedDate": now} if by_a_person else {})

    def _apply(self, row: _Row) -> None:
        user = row.user
        user.changes = {**(user.changes or {}), **row.changes}  # a new dict: snapshots keep the old one
        if row.changes.keys() & {"FirstName", "LastName"}:
            names = (own_value(USER.known_field(name))(user) for name in ("FirstName", "LastName"))
            user.changes["Name"] = " ".join(filter(None, names))
        user.rendered = None
        if row.is_new:
            user.stamp = row.stamp
            self._org.users.add(user)
        else:
            self._org.users.move(user, row.stamp)


def _changes(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` under the described spelling of their names."""
    changes = {USER.known_field(name).name: value for name, value in values.items()}
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
