"""A pipeline that reads by Bulk 2.0 from the Salesforce simulator, and what can be seen of it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce.bulk import Patience
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.user_sync import SyncUsersResult, UserSyncService
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline_tests.conftest import FORGET_EVERYTHING

MADE_AT = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = SyncWindow(None, NOW + timedelta(hours=12))
MANY, BULK_PAGE = 90, 20
JOBS = "/services/data/v66.0/jobs/query"
EXTRA = ("Region__c", "Grade__c", "Start_Date__c", "NumberOfFailedLogins", "FullPhotoUrl", "City", "Cost_Center__c")


@contextmanager
def service(org: SalesforceSimulator, engine: Engine, **settings: Any) -> Iterator[UserSyncService]:
    """A process of its own, as far as Salesforce can tell; while it waits for a job, the clock goes on."""
    read = SalesforceSettings.from_environment(org.environment() | {"SALESFORCE_TRANSPORT": "bulk"})
    patience = Patience(deadline=600, sleep=lambda seconds: org.clock.advance(timedelta(seconds=seconds)))
    with RestUserService(replace(read, **settings), retry=RetryPolicy(tries=1), patience=patience) as rest:
        yield UserSyncService(engine, rest)


def sync(org: SalesforceSimulator, engine: Engine, **settings: Any) -> SyncUsersResult:
    with service(org, engine, **settings) as users:
        return users.sync_users(window=WINDOW)


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def forget_everything(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(FORGET_EVERYTHING))


def users_stored(engine: Engine) -> list[tuple[Any, ...]]:
    """All columns of all users as text, but for the names and times of runs."""
    stamps = "{sync_run_id,first_seen_at,synced_at,deactivated_at}"
    return rows(engine, f"SELECT (to_jsonb(u) - '{stamps}'::text[])::text FROM sf_users AS u ORDER BY id")


def notes(result: SyncUsersResult) -> set[Any]:
    return {(note.salesforce_id, note.field, note.reason, note.row_stored) for note in result.landing.rejected}


def warnings(result: SyncUsersResult) -> list[str]:
    """All but the one about the clock, which stands still here."""
    return [warning for warning in result.landing.warnings if not warning.startswith("The clock")]


def writes(org: SalesforceSimulator) -> list[tuple[str, str]]:
    """What was sent to Salesforce that was no GET, but for signing in."""
    return [
        (exchange.method, exchange.path)
        for exchange in org.journal.exchanges
        if exchange.method != "GET" and not exchange.path.endswith("/token")
    ]


def make_nasty(org: SalesforceSimulator) -> None:
    """Give users everything that CSV, JSON or Postgres could stumble over."""
    somebody = iter([user.id for user in org.org.users.ordered])

    def change(**values: Any) -> None:
        org.org.update_user(next(somebody), **values)

    no_address = dict.fromkeys(
        ("Street", "City", "State", "StateCode", "PostalCode", "Country", "CountryCode", "GeocodeAccuracy"), None
    ) | {"Latitude": None, "Longitude": None}
    change(Street='1 rue "A"\r\nBât. B, 🏠', Latitude=48.85661, Longitude=-0.5, GeocodeAccuracy="Street")
    change(**no_address)
    change(**no_address | {"City": "Lyon"})
    change(Street="a\0b\0", Title='say ""hi""', Department="a,b\nc")
    change(Title="NA", Department="None", Division="null", CompanyName="N/A", Region__c="nan")
    change(Title="\ufeff=1+1", FirstName="Zoë", PostalCode="00420", Region__c='"\\', Cost_Center__c="\0")
    change(Grade__c=None, Start_Date__c=None, Region__c=None, LastLoginDate=None, ManagerId=None)
    change(Grade__c=1e22, City="Köln", FullPhotoUrl="https://files.example.com/?a=1,2&b=\u2028")
    change(Title="x" * 200)  # too long: the row is left out
    change(Phone=" ", Fax="\t", IsActive=False)


def reads_over_rest(org: SalesforceSimulator, engine: Engine, *faults: Fault) -> SyncUsersResult:
    """Sync by Bulk, which is refused, and find the users stored with a warning, once each, and no job left."""
    org.faults.add(*faults)
    result = sync(org, engine)
    assert result.landing.transport == "rest"
    [warning] = warnings(result)
    assert warning.startswith("The users were read over REST, not by Bulk 2.0: ")
    assert result.landing.certificate is not None
    assert result.landing.certificate.complete
    assert result.landing.certificate.transport == "rest"
    assert result.landing.fetched == MANY
    assert rows(engine, "SELECT count(*), count(DISTINCT id) FROM user_sync.salesforce_users_raw") == [
        (MANY - result.rejected, MANY - result.rejected)
    ]
    assert org.org.jobs.all() == []
    return result


def fails_and_leaves_no_job(org: SalesforceSimulator, engine: Engine) -> None:
    with pytest.raises(UnreachableError, match=r"than it counted.*SALESFORCE_TRANSPORT=rest"):
        sync(org, engine)
    assert org.org.jobs.all() == []
    assert rows(engine, "SELECT outcome FROM user_sync.sync_runs") == [("failed",)]
    assert rows(engine, "SELECT count(*) FROM sf_users") == [(0,)]
