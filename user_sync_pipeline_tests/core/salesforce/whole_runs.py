"""Whole runs against a Salesforce of this process, and what they stored beside what Salesforce holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce.bulk import Patience
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import Progress, SyncUsersResult, UserSyncService
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.access import own_value
from user_sync_pipeline.sandbox.salesforce.describe import USER

MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, 12, 0, 17, tzinfo=UTC)
FEW, PAGE = 60, 20
WITHOUT_WAITING = RetryPolicy(tries=3, sleep=lambda _: None)

Change = Callable[[SalesforceSimulator], object]

_COLUMNS = {field.name: field.column for field in USER_FIELDS}
_WIRE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
_TO_COMPARE = (
    *("Username", "Name", "Email", "Title", "IsActive", "UserType", "LastLoginDate"),
    *("LastModifiedDate", "SystemModstamp"),
)


@contextmanager
def service(
    org: SalesforceSimulator, engine: Engine, *, more: dict[str, str] | None = None, **settings: Any
) -> Iterator[UserSyncService]:
    """A process of its own, as far as Salesforce can tell; `more` are settings as text, `settings` as they are read."""
    read = SalesforceSettings.from_environment(org.environment() | (more or {}))
    patience = Patience(deadline=600, sleep=lambda seconds: org.clock.advance(timedelta(seconds=seconds)))
    with RestUserService(replace(read, **settings), retry=WITHOUT_WAITING, patience=patience) as rest:
        yield UserSyncService(engine, rest)


def sync(org: SalesforceSimulator, engine: Engine, **settings: Any) -> SyncUsersResult:
    """Read everything."""
    with service(org, engine, **settings) as users:
        return users.sync_users(window=SyncWindow.full(now=org.clock.now()))


def catch_up(org: SalesforceSimulator, engine: Engine, **settings: Any) -> SyncUsersResult:
    """Read what has changed since the stored watermark."""
    with service(org, engine, **settings) as users:
        return users.sync_users(window=users.window_since_watermark())


def after_page(org: SalesforceSimulator, warehouse: Engine, page: int, change: Change) -> None:
    """Read everything, page by page, and let something change once that many pages were stored."""

    def listen(progress: Progress) -> None:
        if progress.pages == page:
            change(org)

    with service(org, warehouse, parallel_requests=1) as users:
        users.sync_users(window=SyncWindow.full(now=NOW), progress=listen)


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def stored(engine: Engine, *fields: str) -> dict[str, tuple[Any, ...]]:
    """The given fields of all stored users, by id."""
    columns = ", ".join(_COLUMNS[name] for name in fields or _TO_COMPARE)
    return {user_id: tuple(values) for user_id, *values in rows(engine, f"SELECT id, {columns} FROM sf_users")}


def in_salesforce(org: SalesforceSimulator, *fields: str) -> dict[str, tuple[Any, ...]]:
    """The given fields of all users as Salesforce holds them, by id."""
    readers = [own_value(USER.known_field(name)) for name in fields or _TO_COMPARE]
    return {user.id: tuple(_as_stored(read(user)) for read in readers) for user in org.org.users.ordered}


def everybody(org: SalesforceSimulator) -> list[str]:
    return [user.id for user in org.org.users.ordered]


def asked(org: SalesforceSimulator, what: str) -> list[str]:
    """The query strings of all requests whose path and query hold `what`."""
    return [each.query for each in org.journal.exchanges if what in f"{each.path}?{each.query}"]


def _as_stored(value: Any) -> Any:
    is_moment = isinstance(value, str) and _WIRE_TIME.fullmatch(value)
    return datetime.fromisoformat(value) if is_moment else value
