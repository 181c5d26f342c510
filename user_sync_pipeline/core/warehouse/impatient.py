"""Engines for a look at a database that must not take long: to be told of a slow server, not to wait for it.

What belongs here: short time limits in place of the usual ones. What does not: anything else about connections
(`database.py`).
"""

from __future__ import annotations

import sqlalchemy
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.warehouse.database import DEFAULT_SETTING, create_database_engine, with_driver


def create_impatient_engine(
    url: str, *, connect_seconds: int, statement_seconds: int, setting: str = DEFAULT_SETTING
) -> sqlalchemy.Engine:
    """Return an engine as `create_database_engine` does, with these limits whatever the address says.

    The limit of a statement is set by each transaction, which a pooler of any kind passes on. Raises
    `ConfigurationError` naming `setting`.
    """
    address = make_url(with_driver(url, "psycopg", setting=setting))
    limited = address.update_query_dict({"connect_timeout": str(connect_seconds)})
    engine = create_database_engine(limited.render_as_string(hide_password=False), setting=setting)
    limits = f"SET LOCAL statement_timeout = '{statement_seconds}s'; SET LOCAL lock_timeout = '{statement_seconds}s'"

    def begin(connection: sqlalchemy.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(limits)

    sqlalchemy.event.listen(engine, "begin", begin)
    return engine
