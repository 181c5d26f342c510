"""The state of the users: who has a profile, whether sign-ups make one, and how long ago Salesforce was read.

What belongs here: putting these figures together, and which of them means that something is wrong.
What does not: counting (`core/profiles`, `core/warehouse`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UnreachableError, UserSyncError
from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles.directory import open_directory
from user_sync_pipeline.core.profiles.installation import read_trigger_state
from user_sync_pipeline.core.profiles.report import ProfileStatus
from user_sync_pipeline.core.profiles.sql_directory import readable_tables
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.health.database import cause_of, examine_database
from user_sync_pipeline.health.report import Cause, Report

# A sync percentage below this is a fault; between it and 100 people have just signed up, or a next run heals it.
LEAST_SYNC_PERCENTAGE = 90.0

_Part = tuple[Cause | None, Mapping[str, Any] | None]


class UsersExamination:
    """Looks at both sides; a side that fails does not hide the other.

    `profiles` is the engine of `settings.database_url`, which may be the `warehouse` itself.
    """

    def __init__(self, warehouse: Engine, profiles: Engine | None, settings: SupabaseSettings) -> None:
        self._warehouse = warehouse
        self._profiles = profiles
        self._settings = settings

    def __call__(self) -> Report:
        """Ask both sides; the cause is the first thing that is wrong."""
        database_cause, last_syncs = self._last_syncs()
        profiles_cause, profiles = _without_failing(self._profile_figures)
        figures = {"profiles": None, "trigger": None, **(profiles or {}), "last_syncs": last_syncs}
        return Report(database_cause or profiles_cause, figures)

    def _last_syncs(self) -> _Part:
        examined = examine_database(self._warehouse)
        if not examined.is_healthy:
            return examined.cause, None
        try:
            with database_errors(), self._warehouse.connect() as connection:
                rows = connection.execute(text(named_query("last_syncs"))).mappings().all()
        except UserSyncError as error:
            return cause_of(error), None
        sides = {row["side"]: {name: value for name, value in row.items() if name != "side"} for row in rows}
        del sides["profiles"]["watermark_age_seconds"]  # only Salesforce is read up to a moment
        return None, sides

    def _profile_figures(self) -> _Part:
        engine = self._profiles
        readable = readable_tables(engine) if engine is not None else frozenset()
        if self._settings.url is None and "auth.users" not in readable:
            return "profiles_not_configured", None
        with open_directory(self._settings, engine) as directory:
            status = directory.status()
        trigger: dict[str, bool | None] = dict.fromkeys(("present", "enabled"), status.trigger_installed)
        trigger["unchanged"] = None  # which cannot be seen through an API
        if engine is not None and status.method == "sql":
            with engine.connect() as connection:
                trigger = asdict(read_trigger_state(connection))
        return _judged(status, trigger), {"profiles": _figures(status), "trigger": trigger}


def _judged(status: ProfileStatus, trigger: Mapping[str, bool | None]) -> Cause | None:
    if trigger["present"] is False:
        return "trigger_missing"
    if trigger["enabled"] is False:
        return "trigger_disabled"
    if trigger["unchanged"] is False:
        return "trigger_changed"
    return "profiles_missing" if status.sync_percentage < LEAST_SYNC_PERCENTAGE else None


def _figures(status: ProfileStatus) -> dict[str, Any]:
    return {
        "total_auth_users": status.total_auth_users,
        "total_user_profiles": status.total_user_profiles,
        "missing_profiles": status.missing_profiles,
        "sync_percentage": status.sync_percentage,
        "orphan_profiles": status.orphan_profiles,
        "soft_deleted_users": status.soft_deleted_users,
        "exact": status.exactness == "exact",
    }


def _without_failing(ask: Callable[[], _Part]) -> _Part:
    """Return what the profiles side answers, or the cause why it does not."""
    try:
        with database_errors():
            return ask()
    except UserSyncError as error:
        if error.__cause__ is not None and cause_of(error) == "database_slow":
            return "profiles_slow", None
        return "profiles_unreachable" if isinstance(error, UnreachableError) else "profiles_refused", None
