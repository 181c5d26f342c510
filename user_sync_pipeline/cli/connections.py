"""Databases for a command: an engine while the command runs, its failures in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from user_sync_pipeline.core.profiles.directory import ProfileDirectory

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
