"""The profiles side: which door leads to auth users, whether sign-ups make profiles, and whether the key will last.

What belongs here: `SUPABASE_DB_URL`, `SUPABASE_URL`, `SUPABASE_SERVICE_ROLE_KEY`. What does not: what the installation
must be like (`core/profiles/installation.py`), and kinds of keys (`core/profiles/supabase_keys.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.doctor.checks import Check, Finding, Look, broken, not_configured, now, ok, warning
from user_sync_pipeline.core.doctor.database import APPLY, DatabaseLooks
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.installation import inspect_installation, read_trigger_state
from user_sync_pipeline.core.profiles.sql_directory import readable_tables
from user_sync_pipeline.core.profiles.supabase_client import SupabaseClient
from user_sync_pipeline.core.profiles.supabase_errors import PageBrokenError
from user_sync_pipeline.core.profiles.supabase_keys import check_service_key
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.database import database_errors

AREA = "profiles"
# A key that was given out so long ago may be in more hands than anybody remembers.
OLD_KEY_DAYS = 365
SOON_DAYS = 30

_FAILURES = text("SELECT count(*) FROM app_private.profile_failures")


def looks_at_profiles(settings: SupabaseSettings, engine: Engine | None, setting: str) -> Sequence[Look]:
    """Return what to look at; `engine` is that of `settings.database_url`, which `setting` names."""
    side = _ProfilesSide(settings, engine, setting)
    return (
        Look("door", side.door, needed=True),
        Look("trigger", side.trigger),
        Look("installation", side.installation),
        Look("failed sign-ups", side.failed_sign_ups),
        Look("key", side.key, needed=True),
        Look("project", side.project),
    )


class _ProfilesSide:
    def __init__(self, settings: SupabaseSettings, engine: Engine | None, setting: str) -> None:
        self._settings = settings
        self._database = None if engine is None else DatabaseLooks(engine, setting)
        self._engine = engine
        self._setting = setting
        self._by_sql = False

    def door(self) -> Finding:
        """Find the way that `status` and `sync` take."""
        readable: frozenset[str] = frozenset()
        if self._engine is not None:
            with database_errors(self._setting):
                readable = readable_tables(self._engine)
        self._by_sql = readable >= {"auth.users", "public.user_profiles"}
        if self._by_sql:
            return ok("SQL: exact and fast")
        if self._settings.url is not None:
            return ok("the API of SUPABASE_URL; set SUPABASE_DB_URL as well for exact and fast figures")
        if "auth.users" in readable:
            return broken("there are auth users, but no public.user_profiles that this role can read", APPLY)
        return not_configured(
            "no auth users here, and nothing of Supabase is set",
            "Set SUPABASE_DB_URL, or SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY, to keep profiles as well.",
        )

    def trigger(self) -> Finding:
        """Tell whether a sign-up makes a profile."""
        if not self._by_sql or self._database is None:
            return not_configured("cannot be seen through an API; set SUPABASE_DB_URL to have it looked at")
        return self._database.ask(_trigger)

    def installation(self) -> Finding | Sequence[Check]:
        """Name everything that is not as the migration made it, a row each."""
        if not self._by_sql or self._engine is None:
            return not_configured("cannot be seen through an API")
        with database_errors(self._setting), self._engine.connect() as connection:
            inspection = inspect_installation(connection)
        found = [broken(f"{each.name} {each.problem}", f"Run: {each.mend}") for each in inspection.deviations]
        found += [warning(remark, "Look whether that is meant to be so.") for remark in inspection.remarks]
        return [Check(AREA, "installation", each) for each in found] or ok("as the migration made it")

    def failed_sign_ups(self) -> Finding:
        """Count the sign-ups that went through without their profile."""
        if not self._by_sql or self._database is None:
            return not_configured("cannot be seen through an API")
        return self._database.ask(_failed_sign_ups)

    def key(self) -> Finding:
        """Tell kind and age of the service key."""
        url, key = self._settings.url, self._settings.service_role_key
        if url is None or key is None:
            return not_configured("SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY are not set")
        known = check_service_key(key, url, now=time.time())
        if not known.is_legacy:
            return ok("a secret key")
        detail = ["a legacy service_role key, a kind that Supabase retires at the end of 2026"]
        if known.issued_at is not None:
            age = (now() - known.issued_at).days
            detail.append(f"{age:,} days old{', which is long' if age > OLD_KEY_DAYS else ''}")
        if known.expires_at is not None and (left := (known.expires_at - now()).days) < SOON_DAYS:
            detail.append(f"ends in {left} days")
        mend = "Make a secret key (sb_secret_…) for this pipeline alone and put it in SUPABASE_SERVICE_ROLE_KEY."
        return warning(", ".join(detail), mend)

    def project(self) -> Finding:
        """Ask the project for one user and the number of profiles, by the key."""
        url, key = self._settings.url, self._settings.service_role_key
        if url is None or key is None:
            raise ConfigurationError("SUPABASE_URL is not set; set it.")
        client = SupabaseClient(url, key, ca_bundle=self._settings.ca_bundle)
        try:
            client.list_users(1, 1)
            client.count_profiles()
            client.call("profile_sync_report", {}, object)
        except PageBrokenError:
            mend = "Set SUPABASE_DB_URL, which reads such rows all the same."
            return warning("cannot list its first user, most likely a row that was made by hand", mend)
        except LookupError:
            return warning("answers, but without our functions, so figures may be inexact", APPLY)
        finally:
            client.close()
        return ok("answers, takes the key, and has our functions")


def _trigger(connection: Connection) -> Finding:
    state = read_trigger_state(connection)
    if not state.present:
        return broken("missing: new users get no profile before the next sync", APPLY)
    if not state.enabled:
        return broken("switched off: new users get no profile before the next sync", APPLY)
    if not state.unchanged:
        return broken("it or its function was changed", APPLY)
    return ok("present, enabled and unchanged")


def _failed_sign_ups(connection: Connection) -> Finding:
    failures = connection.scalar(_FAILURES) or 0
    if failures:
        return warning(f"{failures:,} sign-ups went through without their profile", "Type: user-sync sync")
    return ok("none")
