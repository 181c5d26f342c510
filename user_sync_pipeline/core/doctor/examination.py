"""The whole examination: every area at the same time, each within its time, none hiding another.

What belongs here: which areas there are, their settings and connections, time limits, the verdict.
What does not: what is looked at in an area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.doctor.checks import Check, Finding, Look, not_configured, take
from user_sync_pipeline.core.doctor.dagster import looks_at_dagster
from user_sync_pipeline.core.doctor.database import looks_at_database
from user_sync_pipeline.core.doctor.profiles import looks_at_profiles
from user_sync_pipeline.core.doctor.salesforce import SalesforceLooks
from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.own_thread import in_own_thread
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.warehouse.impatient import create_impatient_engine

SECONDS_AN_AREA = 60.0
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 15
_TWO_TRIES = RetryPolicy(tries=2, deadline=10.0)

_Area = Callable[[list[Check]], None]


@dataclass(frozen=True, slots=True)
class Examination:
    """The rows, in the order of the areas."""

    checks: tuple[Check, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is broken."""
        return not self._broken()

    @property
    def exit_code(self) -> int:
        """0, or 3 where something must be mended, or 4 where all that is wrong is that servers do not answer."""
        found = self._broken()
        if not found:
            return 0
        only_unreachable = all(finding.unreachable for finding in found)
        return UnreachableError.exit_code if only_unreachable else ConfigurationError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return what `user-sync doctor --json` prints."""
        return {"checks": [check.as_json() for check in self.checks], "healthy": self.is_healthy}

    def _broken(self) -> list[Finding]:
        return [check.finding for check in self.checks if check.finding.state == "broken"]


def examine(*, seconds: float = SECONDS_AN_AREA) -> Examination:
    """Look at everything that the environment configures; takes at most about `seconds`."""
    areas: dict[str, _Area] = {
        "salesforce": _salesforce,
        "database": _database,
        "profiles": _profiles,
        "dagster": _dagster,
    }
    rows: dict[str, list[Check]] = {area: [] for area in areas}
    running = {area: in_own_thread(_contained(area, look, rows[area])) for area, look in areas.items()}
    wait(running.values(), timeout=seconds)
    for area, future in running.items():
        if not future.done():
            mend = (
                "Look whether the servers of this area are overloaded or behind a firewall, then run the doctor again."
            )
            finding = Finding("broken", f"no answer within {seconds:.0f} s", mend, unreachable=True)
            rows[area] = [*rows[area], Check(area, "time limit", finding)]
    return Examination(tuple(check for checks in rows.values() for check in checks))


def _contained(area: str, look: _Area, rows: list[Check]) -> Callable[[], None]:
    def run() -> None:
        def at() -> Sequence[Check]:
            look(rows)
            return ()

        take([Look("settings", at)], area, rows)

    return run


def _salesforce(rows: list[Check]) -> None:
    if not settings.is_salesforce_configured():
        rows.append(
            Check("salesforce", "sign-in", not_configured("no SALESFORCE_CLIENT_ID and no other way to sign in"))
        )
        return
    about = settings.SalesforceSettings.from_environment()
    with ExitStack() as stack:
        url = settings.database_url_if_set()
        warehouse = stack.enter_context(_engine(url, settings.DATABASE)) if url else None
        service = stack.enter_context(RestUserService(about, retry=_TWO_TRIES))
        take(SalesforceLooks(about, service, warehouse).looks(), "salesforce", rows)


def _database(rows: list[Check]) -> None:
    url = settings.database_url_if_set()
    if url is None:
        rows.append(Check("database", "connection", not_configured("USER_SYNC_DATABASE_URL is not set")))
        return
    with _engine(url, settings.DATABASE) as engine:
        take(looks_at_database(engine, url), "database", rows)


def _profiles(rows: list[Check]) -> None:
    about = settings.SupabaseSettings.from_environment()
    if about.database_url is None:
        take(looks_at_profiles(about, None, ""), "profiles", rows)
        return
    setting = settings.DATABASE if about.database_url == settings.database_url_if_set() else "SUPABASE_DB_URL"
    with _engine(about.database_url, setting) as engine:
        take(looks_at_profiles(about, engine, setting), "profiles", rows)


def _dagster(rows: list[Check]) -> None:
    about = settings.DagsterSettings.from_environment()
    if about.postgres_url is None:
        take(looks_at_dagster(about, None), "dagster", rows)
        return
    with _engine(about.postgres_url, "DAGSTER_POSTGRES_URL") as engine:
        take(looks_at_dagster(about, engine), "dagster", rows)


@contextmanager
def _engine(url: str, setting: str) -> Iterator[Engine]:
    engine = create_impatient_engine(
        url, connect_seconds=_CONNECT_SECONDS, statement_seconds=_STATEMENT_SECONDS, setting=setting
    )
    try:
        yield engine
    finally:
        engine.dispose()
