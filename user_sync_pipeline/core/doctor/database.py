"""The pipeline's own database: whether it answers, holds the tables, and lets us, and nobody else, at them.

What belongs here: `USER_SYNC_DATABASE_URL`. What does not: auth users and profiles, which may be in another database
(`profiles.py`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.doctor.checks import Finding, Look, broken, clock_finding, now, ok, warning
from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.warehouse.database import DEFAULT_SETTING, database_errors
from user_sync_pipeline.core.warehouse.migration_scripts import migrations_in
from user_sync_pipeline.core.warehouse.migrations import migrations_applied

OLDEST_VERSION, NEWEST_VERSION = 15, 18
APPLY = "Type: user-sync migrate apply"
_TURNS = 10

_TABLES = """
    FROM pg_catalog.pg_class AS relation
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
    WHERE relation.relkind IN ('r', 'p')
      AND (namespace.nspname = 'user_sync' OR (namespace.nspname, relation.relname) = ('public', 'sf_users'))
"""
_CLOSED_TO_US = text(f"""
    SELECT namespace.nspname || '.' || relation.relname {_TABLES}
      AND relation.relname <> 'alembic_version'
      AND NOT (has_schema_privilege(namespace.oid, 'USAGE')
               AND has_table_privilege(relation.oid, 'SELECT') AND has_table_privilege(relation.oid, 'INSERT')
               AND has_table_privilege(relation.oid, 'UPDATE') AND has_table_privilege(relation.oid, 'DELETE'))
    ORDER BY 1
""")
_ROW_SECURITY = text("""
    SELECT relrowsecurity AS enabled, row_security_active(oid) AS applies_to_us
    FROM pg_catalog.pg_class WHERE oid = to_regclass('public.sf_users')
""")
_API_ROLES = text("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')")
_OPEN_TO_API = text(f"""
    SELECT DISTINCT namespace.nspname || '.' || relation.relname {_TABLES}
      AND EXISTS (
          SELECT FROM pg_catalog.pg_roles AS role
          WHERE role.rolname IN ('anon', 'authenticated', 'service_role')
            AND has_table_privilege(role.oid, relation.oid, 'SELECT, INSERT, UPDATE, DELETE')
            AND has_schema_privilege(role.oid, namespace.oid, 'USAGE')
      )
    ORDER BY 1
""")
_OPEN_BY_DEFAULT = text("""
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_default_acl AS rule
        CROSS JOIN LATERAL aclexplode(rule.defaclacl) AS grant_
        JOIN pg_catalog.pg_roles AS role ON role.oid = grant_.grantee
        WHERE rule.defaclobjtype = 'r' AND rule.defaclnamespace = 'public'::regnamespace
          AND role.rolname IN ('anon', 'authenticated')
    )
""")


def looks_at_database(engine: Engine, url: str) -> Sequence[Look]:
    """Return what to look at; `engine` gives up early."""
    database = DatabaseLooks(engine, DEFAULT_SETTING)
    return (
        Look("connection", database.connection, needed=True),
        Look("encryption", database.encryption),
        Look("clock", database.clock),
        Look("pooler", database.pooler),
        Look("migrations", lambda: _migrations(url), needed=True),
        Look("rights", lambda: database.ask(_rights)),
        Look("row level security", lambda: database.ask(_row_security)),
        Look("grants", lambda: database.ask(_grants)),
    )


class DatabaseLooks:
    """What can be asked of any database; failures name `setting`."""

    def __init__(self, engine: Engine, setting: str) -> None:
        self._engine = engine
        self._setting = setting

    def ask(self, question: Callable[[Connection], Finding]) -> Finding:
        """Answer a question that takes a connection."""
        with database_errors(self._setting), self._engine.connect() as connection:
            return question(connection)

    def connection(self) -> Finding:
        """Tell the version of the server."""
        return self.ask(_version)

    def encryption(self) -> Finding:
        """Tell whether what goes over a network can be read on the way."""
        with database_errors(self._setting), self._engine.connect() as connection:
            info = connection.connection.driver_connection.info  # type: ignore[union-attr]
            return encryption_finding(info.hostaddr, bool(info.pgconn.ssl_in_use), self._setting)

    def clock(self) -> Finding:
        """Compare the server's clock with this machine's."""

        def compare(connection: Connection) -> Finding:
            before = now()
            theirs = connection.scalar(text("SELECT clock_timestamp()"))
            return clock_finding(theirs, before, now())

        return self.ask(compare)

    def pooler(self) -> Finding:
        """Tell whether a pooler is between, and of which kind; all of them will do.

        A pooler invents the number of the session that it tells a client. Where two clients in turn give back their
        sessions, one in transaction mode hands the first client the second one's, unless somebody else was faster.
        """
        with database_errors(self._setting), ExitStack() as stack:
            first, second = (stack.enter_context(self._engine.connect()) for _ in range(2))
            told = first.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
            session = _session(first)
            if session == told:
                return ok("none")
            for _ in range(_TURNS):
                _session(second)
                first.rollback()
                second.rollback()
                if _session(first) != session:
                    return ok("in transaction mode")
        return ok("in session mode")


def encryption_finding(address: str, encrypted: bool, setting: str) -> Finding:
    """Judge a connection to an IP address, empty for a socket of this machine."""
    if encrypted:
        return ok("TLS")
    if not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return ok("none, and none needed: it is on this machine")
    return warning("none: passwords and users can be read on the way", f"Add ?sslmode=require to {setting}.")


def _session(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def _version(connection: Connection) -> Finding:
    number = int(str(connection.scalar(text("SHOW server_version_num")))) // 10_000
    if number < OLDEST_VERSION:
        mend = f"Bring the server to version {OLDEST_VERSION} or newer."
        return broken(f"PostgreSQL {number} is too old", mend)
    if number > NEWEST_VERSION:
        mend = f"Look for a newer release of user-sync; this one was tested up to version {NEWEST_VERSION}."
        return warning(f"PostgreSQL {number} is newer than what was tested", mend)
    return ok(f"PostgreSQL {number}")


def _migrations(url: str) -> Finding:
    applied = migrations_applied(url)
    shipped = [
        migration for migration in migrations_in(shipped_path("sql/migrations")) if migration.side == "salesforce"
    ]
    missing = [migration.name for migration in shipped if migration.name not in applied]
    if missing:
        return broken(f"{', '.join(missing)} was not applied", APPLY)
    return ok("applied")


def _rights(connection: Connection) -> Finding:
    closed = list(connection.scalars(_CLOSED_TO_US))
    if closed:
        role = connection.scalar(text("SELECT quote_ident(current_user)"))
        mend = f"GRANT SELECT, INSERT, UPDATE, DELETE on them to {role}, or use the role that applied the migrations."
        return broken(f"this role may not read and write {', '.join(closed)}", mend)
    return ok("reads and writes every table")


def _row_security(connection: Connection) -> Finding:
    enabled, applies_to_us = connection.execute(_ROW_SECURITY).one()
    if applies_to_us:
        mend = "Use the role that owns sf_users, or one with BYPASSRLS."
        return broken("it hides the rows of sf_users from this role", mend)
    if not enabled:
        mend = "Run: ALTER TABLE public.sf_users ENABLE ROW LEVEL SECURITY;"
        return warning("it is off for sf_users, which holds personal data", mend)
    return ok("on for sf_users, without a policy")


def _grants(connection: Connection) -> Finding:
    roles = list(connection.scalars(_API_ROLES))
    if not roles:
        return ok("no roles of an API here")
    opened = list(connection.scalars(_OPEN_TO_API))
    if opened:
        mend = f"Run: REVOKE ALL ON {', '.join(opened)} FROM {', '.join(sorted(roles))};"
        return broken(f"the API can reach {', '.join(opened)}", mend)
    mode = "open" if connection.scalar(_OPEN_BY_DEFAULT) else "closed"
    return ok(f"closed to the API's roles; new tables of this project are {mode} to them by default")
