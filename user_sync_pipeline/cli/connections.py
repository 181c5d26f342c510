"""Databases for a command: an engine while the command runs, its failures in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from user_sync_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from user_sync_pipeline.core.profiles.directory import ProfileDirectory
    from user_sync_pipeline.core.warehouse.profile_ledger import ProfileLedger

NO_LEDGER = "USER_SYNC_DATABASE_URL leads to no ledger of syncs"
PROFILES_SETTING = "SUPABASE_DB_URL (or USER_SYNC_DATABASE_URL)"


@contextmanager
def database(url: str, setting: str = "USER_SYNC_DATABASE_URL") -> Iterator[Engine]:
    """Give an engine and close its connections at the end; failures of the database name `setting`."""
    from user_sync_pipeline.core.warehouse.database import create_database_engine, database_errors

    engine = create_database_engine(url, setting=setting)
    try:
        with database_errors(setting):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def profile_directory() -> Iterator[ProfileDirectory]:
    """Open the configured door to auth users and profiles."""
    from user_sync_pipeline.core.profiles.directory import open_directory
    from user_sync_pipeline.core.settings import SupabaseSettings

    settings = SupabaseSettings.from_environment()
    if settings.database_url is None:
        with open_directory(settings) as directory:
            yield directory
        return
    with database(settings.database_url, PROFILES_SETTING) as engine, open_directory(settings, engine) as directory:
        yield directory


@contextmanager
def profile_ledger(started_by: str) -> Iterator[ProfileLedger | None]:
    """Open the ledger of profile syncs, and forget old ones; None where no database with one is configured."""
    from user_sync_pipeline.core.settings import database_url, retention
    from user_sync_pipeline.core.warehouse.profile_ledger import open_profile_ledger
    from user_sync_pipeline.core.warehouse.retention import forget_old_profile_runs

    try:
        url = database_url()
    except ConfigurationError:
        yield None
        return
    with database(url) as engine:
        ledger = open_profile_ledger(engine, started_by=started_by)
        yield ledger
        if ledger is not None:
            forget_old_profile_runs(engine, retention())
