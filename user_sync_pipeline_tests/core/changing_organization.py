"""An organisation that changes as a history says, in the simulator and in the oracle alike.

What belongs here: transactions on users, and the clock of Salesforce. What does not: runs (`history_player.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from user_sync_pipeline.core.read_bounds import VISIBILITY_LAG
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.transactions import Transaction
from user_sync_pipeline_tests.core.committed_history import CommittedHistory, Version
from user_sync_pipeline_tests.core.histories import Changes, End, Happening, LoseCursors, Wait, Write, WriteMore


class Content(NamedTuple):
    """What the histories change of a user; every version has a title of its own."""

    username: str
    title: str
    is_active: bool


UserVersion = Version[Content]


@dataclass(slots=True)
class OpenTransaction:
    """A transaction of the simulator, and what it will have changed; it is seen at `seen_at` when that has come."""

    transaction: Transaction
    versions: dict[str, UserVersion] = field(default_factory=dict)
    seen_at: datetime | None = None


class ChangingOrganization:
    """The organisation, changed step by step, and the oracle that is told the same; `commits` counts up."""

    def __init__(self, simulator: SalesforceSimulator) -> None:
        self.simulator = simulator
        self.committed: CommittedHistory[str, Content] = CommittedHistory()
        self.open: list[OpenTransaction] = []
        self.commits = 0
        self._titles = 0

    @property
    def now(self) -> datetime:
        """Salesforce's clock."""
        return self.simulator.clock.now()

    def begin(self, users: int) -> None:
        """Let there be so many users, made in one moment a while ago."""
        self.happen(Write([("insert", 0)] * users))
        self.happen(Wait(timedelta(hours=1).total_seconds()))

    def happen(self, what: Happening) -> None:
        """Let something happen now."""
        match what:
            case Wait(seconds):
                self.simulator.clock.advance(timedelta(seconds=seconds))
                for each in [each for each in self.open if each.seen_at is not None and each.seen_at <= self.now]:
                    self._end(each)
            case Write(changes, then, seen_after):
                transaction = OpenTransaction(self.simulator.org.begin())
                self.open.append(transaction)
                self._change(transaction, changes)
                if then == "commit" and seen_after:
                    # It is over, so that it holds nothing back any more.
                    transaction.seen_at = self.now + timedelta(seconds=seen_after)
                    transaction.transaction.started = datetime.max.replace(tzinfo=UTC)
                elif then == "commit":
                    self._end(transaction)
            case WriteMore(number, changes):
                if left_open := self._left_open():
                    self._change(left_open[number % len(left_open)], changes)
            case End(number, how):
                if left_open := self._left_open():
                    self._end(left_open[number % len(left_open)], commits=how == "commit")
            case LoseCursors():
                self.simulator.org.cursors.release_all()

    def end_all(self, *, longer_than: timedelta = timedelta()) -> None:
        """Commit the transactions that have been open for longer."""
        for each in self._left_open():
            if self.now - each.transaction.started > longer_than:
                self._end(each)

    def settle(self) -> None:
        """Let everything that was written be committed, and old enough to be read."""
        for each in list(self.open):
            self._end(each)
        self.happen(Wait((VISIBILITY_LAG + timedelta(seconds=2)).total_seconds()))

    def _left_open(self) -> list[OpenTransaction]:
        return [each for each in self.open if each.seen_at is None]

    def _end(self, transaction: OpenTransaction, *, commits: bool = True) -> None:
        self.open.remove(transaction)
        if commits:
            self.commits += 1
            transaction.transaction.commit()
            self.committed.commit(transaction.versions)
        else:
            transaction.transaction.rollback()

    def _change(self, transaction: OpenTransaction, changes: Changes) -> None:
        for change, number in changes:
            free = self._free_users(transaction)
            if change == "insert" or not free:
                self._insert(transaction)
                continue
            user_id = free[number % len(free)]
            before = self._seen_by(transaction, user_id)
            match change:
                case "edit":
                    self._write(transaction, user_id, before)
                case "deactivate" | "reactivate":
                    self._write(transaction, user_id, before._replace(is_active=change == "reactivate"))
                case "rename":
                    self._write(transaction, user_id, before._replace(username=f"renamed.{self._titles}@example.com"))
                case "swap user names":
                    other_id = free[(number + 1) % len(free)]
                    other = self._seen_by(transaction, other_id)
                    self._write(transaction, user_id, before._replace(username=other.username))
                    if other_id != user_id:
                        self._write(transaction, other_id, other._replace(username=before.username))

    def _insert(self, transaction: OpenTransaction) -> None:
        content = self._next(Content(f"user.{self._titles}@example.com", "", True))
        user_id = transaction.transaction.add_user(
            Username=content.username, LastName="Changing", Alias="c", Title=content.title, IsActive=True
        )
        transaction.versions[user_id] = Version(self._stamp(), content)

    def _write(self, transaction: OpenTransaction, user_id: str, content: Content) -> None:
        content = self._next(content)
        transaction.transaction.update_user(
            user_id, Username=content.username, Title=content.title, IsActive=content.is_active
        )
        transaction.versions[user_id] = Version(self._stamp(), content)

    def _next(self, content: Content) -> Content:
        self._titles += 1
        return content._replace(title=f"version {self._titles}")

    def _stamp(self) -> datetime:
        return self.now.replace(microsecond=0)

    def _free_users(self, transaction: OpenTransaction) -> list[str]:
        """Return whom a transaction can change: those that it has changed, and those that no other one holds."""
        held = {user_id for each in self.open if each is not transaction for user_id in each.versions}
        return [user_id for user_id in {**self.committed.current, **transaction.versions} if user_id not in held]

    def _seen_by(self, transaction: OpenTransaction, user_id: str) -> Content:
        return ({**self.committed.current, **transaction.versions})[user_id].content
