"""The warehouse as a resource."""

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Engine

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.resources.failures import errors_as_failures


class PostgresResource(dg.ConfigurableResource[None]):
    """The Postgres database of `USER_SYNC_DATABASE_URL`, which holds `user_sync` and `sf_users`."""

    _engine: Engine = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the setting; the first connection is made when one is needed."""
        with errors_as_failures(context):
            self._engine = create_database_engine(settings.database_url())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections of the run."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The pool of connections of this run."""
        return self._engine
