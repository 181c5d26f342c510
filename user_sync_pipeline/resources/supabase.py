"""Supabase as a resource: auth users and profiles, by SQL or by HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Engine

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.profiles.directory import ProfileDirectory, open_directory
from user_sync_pipeline.core.profiles.installation import TriggerState, read_trigger_state
from user_sync_pipeline.core.profiles.sql_directory import readable_tables
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.database import DEFAULT_SETTING, create_database_engine, database_errors
from user_sync_pipeline.resources.failures import errors_as_failures

NOTHING_CONFIGURED = (
    "Nothing of Supabase is configured, and the database of USER_SYNC_DATABASE_URL has no auth users; "
    "set SUPABASE_DB_URL, or SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY."
)


class SupabaseResource(dg.ConfigurableResource[None]):
    """Who can sign in and who has a profile: by SQL where a database shows both, else through Supabase's API."""

    _settings: SupabaseSettings = PrivateAttr()
    _engine: Engine = PrivateAttr()
    _database_setting: str = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the settings; the first connection is made when one is needed."""
        with errors_as_failures(context):
            self._settings = SupabaseSettings.from_environment()
            warehouse_url = settings.database_url()
            url = self._settings.database_url or warehouse_url
            self._database_setting = DEFAULT_SETTING if url == warehouse_url else "SUPABASE_DB_URL"
            self._engine = create_database_engine(url, setting=self._database_setting)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections of the run."""
        self._engine.dispose()

    @contextmanager
    def directory(self) -> Iterator[ProfileDirectory | None]:
        """Open the directory of auth users and profiles; None where nothing of Supabase is configured.

        Raises `ConfigurationError` where something is, but leads to no users or no profiles.
        """
        with database_errors(self._database_setting):
            if self._nothing_configured():
                yield None
            else:
                with open_directory(self._settings, self._engine) as directory:
                    yield directory

    def trigger_state(self) -> TriggerState | None:
        """Return the state of the trigger that creates a profile at sign-up; None where no database shows it."""
        with database_errors(self._database_setting):
            if "auth.users" not in readable_tables(self._engine):
                return None
            with self._engine.connect() as connection:
                return read_trigger_state(connection)

    def _nothing_configured(self) -> bool:
        only_the_warehouse = self._settings.url is None and self._database_setting == DEFAULT_SETTING
        return only_the_warehouse and "auth.users" not in readable_tables(self._engine)
