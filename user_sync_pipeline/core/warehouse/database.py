"""The one place that builds database engines, and that puts database failures into words.

What belongs here: addresses, drivers, session settings, and which failure means what to a person.
What does not: statements on the pipeline's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import sqlalchemy
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError, UserSyncError

DEFAULT_SETTING = "USER_SYNC_DATABASE_URL"

# What every connection asks for, unless the address says otherwise. Seconds; keepalives notice a dead network path.
_CONNECTION_OPTIONS: dict[str, Any] = {
    "application_name": "user-sync",
    "connect_timeout": 10,
    "keepalives_idle": 30,
}
# Generous for a merge of millions of rows, but no statement and no queue lasts for ever. A transaction of ours that
# waits for Salesforce is no forgotten one.
_TRANSACTION_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "30s",
    "statement_timeout": "1h",
    "idle_in_transaction_session_timeout": "0",
}
_HOSTS = re.compile(
    r"(?P<before>[\w+]+://(?:[^/?]*@)?)(?P<hosts>[^/?@]*[,%][^/?@]*)(?P<behind>(?:/[^?@]*)?(?:\?[^@]*)?)"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^]]*)\]|(?P<name>[^:\[]*))(?::(?P<port>\d*))?")


def create_database_engine(url: str, *, setting: str = DEFAULT_SETTING) -> sqlalchemy.Engine:
    """Return an engine over psycopg 3 for `url`, whatever driver it names; opens no connection.

    `url` may lead to a pooler, also one that gives each transaction another session: nothing outlives a transaction.
    Every transaction runs in UTC with lock and statement timeouts, unless the address sets these by `options`.
    Raises `ConfigurationError` naming `setting` when `url` is not the address of a Postgres database.
    """
    address = _parse(url, setting).set(drivername="postgresql+psycopg")
    options = {name: value for name, value in _CONNECTION_OPTIONS.items() if name not in address.query}
    engine = sqlalchemy.create_engine(
        address,
        # A pooler may hand each transaction to another server, where a prepared statement is unknown.
        connect_args={**options, "autocommit": True, "prepare_threshold": None},
        pool_pre_ping=True,
        hide_parameters=True,
    )
    # psycopg would send its own BEGIN, and the settings behind it would cost one more way there and back.
    settings = transaction_settings(url, setting=setting).items()
    statements = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in settings)])

    def begin(connection: sqlalchemy.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(statements)

    sqlalchemy.event.listen(engine, "begin", begin)
    sqlalchemy.event.listen(engine, "handle_error", _note_server)
    return engine


def transaction_settings(url: str, *, setting: str = DEFAULT_SETTING) -> dict[str, str]:
    """Return what every transaction on `url` sets for itself: all that its `options` do not set."""
    options = str(_parse(url, setting).query.get("options", ""))
    return {
        name: value
        for name, value in _TRANSACTION_SETTINGS.items()
        if not re.search(rf"(?:-c|--|\s){name}=", options, re.IGNORECASE)
    }


def with_driver(url: str, driver: str, *, setting: str = DEFAULT_SETTING) -> str:
    """Return `url` for SQLAlchemy with another driver, such as `psycopg2`; raises `ConfigurationError`."""
    address = _parse(url, setting).set(drivername=f"postgresql+{driver}")
    return address.render_as_string(hide_password=False)


def libpq_url(url: str, *, setting: str = DEFAULT_SETTING) -> str:
    """Return `url` as libpq and ADBC read it; raises `ConfigurationError`."""
    address = _parse(url, setting).set(drivername="postgresql")
    options = {name: str(value) for name, value in _CONNECTION_OPTIONS.items() if name not in address.query}
    # SQLAlchemy leaves spaces in passwords as they are, libpq refuses them.
    return address.update_query_dict(options).render_as_string(hide_password=False).replace(" ", "%20")


@contextmanager
def database_errors(setting: str = DEFAULT_SETTING) -> Iterator[None]:
    """Turn the failures of psycopg, SQLAlchemy and ADBC that a person can mend into errors naming `setting`.

    Raises `UnreachableError` for what passes by itself (no answer, a lost connection, a lock held too long)
    and `ConfigurationError` for the rest (sign-in, database name, permission, missing tables). Any other
    failure goes through as it is.
    """
    try:
        yield
    except Exception as error:
        cause = driver_error(error)
        explained = _explain(cause, setting) if hasattr(cause, "sqlstate") else None
        if explained is None:
            raise
        raise explained from error


def driver_error(error: Exception) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps for its statements but not for a COPY."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _parse(url: str, setting: str) -> URL:
    try:
        address = _read_address(re.sub(r"^postgres(?=[:+])", "postgresql", url.strip()))
    except (ArgumentError, ValueError):
        address = None
    if address is None or address.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{setting} is not the address of a Postgres database; write it as "
            "postgresql://user:password@host:5432/database, with special characters of the password percent-encoded."
        )
    return address


def _read_address(url: str) -> URL:
    """Read an address with any number of hosts, one of which may be a percent-encoded folder of sockets.

    Several are written as libpq does, `host:5432,other:5433`, or SQLAlchemy, `?host=host:5432&host=other:5433`.
    """
    found = _HOSTS.fullmatch(url)
    address = make_url(found["before"] + found["behind"] if found else url)
    listed = found["hosts"].split(",") if found else address.query.get("host")
    if listed is None or isinstance(listed, str):
        return address
    hosts = [_HOST.fullmatch(host) for host in listed]
    if None in hosts:
        raise ValueError("not a list of hosts")
    names = [unquote(host["ipv6"] or host["name"] or "") for host in hosts if host]
    ports = [host["port"] or "5432" for host in hosts if host]
    return address.update_query_dict({"host": ",".join(names), "port": ",".join(ports)})


def _note_server(context: ExceptionContext) -> None:
    """Note on a failed attempt to connect where it went: libpq does not always say."""
    if context.connection is None and context.engine is not None:
        address = context.engine.url
        hosts = str(address.query.get("host", address.host or "localhost")).split(",")
        ports = str(address.query.get("port", address.port or 5432)).split(",")
        servers = zip(hosts, ports if len(ports) == len(hosts) else ports * len(hosts), strict=False)
        context.original_exception.add_note("at " + " or ".join(f"{host}:{port}" for host, port in servers))


# What the server or libpq says when it refuses a connection; there is no SQLSTATE then. The first match counts.
_REFUSED_USER = "refuses the user or the password; correct them"
_NO_SUCH_DATABASE = "has no such database; correct the name after the last slash"
_BY_MESSAGE: tuple[tuple[str, type[UserSyncError], str], ...] = (
    (
        r"too many (?:clients|connections)|remaining connection|starting up|shutting down|in recovery mode"
        # poolers
        r"|no more connections|[Mm]ax ?[Cc]lient|query_wait_timeout|from the pool|server login has been failing",
        UnreachableError,
        "takes no connection now; run again later",
    ),
    (
        r"authentication failed|no password supplied|no pg_hba|role .* does not exist|no such user"
        r"|[Tt]enant(?: or |/)user .*not found",
        ConfigurationError,
        _REFUSED_USER,
    ),
    (r"database .* does not exist|no such database", ConfigurationError, _NO_SUCH_DATABASE),
    (
        r"unsupported startup parameter",
        ConfigurationError,
        "is a pooler that takes no options of a session; take `options` out of the address, or name the database "
        "server itself",
    ),
    (
        r"session is (?:not )?read-only|server is (?:not )?in hot standby",
        UnreachableError,
        "is not of the kind that target_session_attrs in the address asks for; run again when one is",
    ),
    (
        r"SSL|certificate",
        ConfigurationError,
        "and this side agree on no encrypted connection; check sslmode and the certificates it needs",
    ),
    (
        r"invalid .*(?:value|option)",
        ConfigurationError,
        "cannot be asked, because an option behind the question mark is not one that Postgres knows",
    ),
)
_BY_SQLSTATE: tuple[tuple[str, type[UserSyncError], str], ...] = (
    (r"08...|57P0.", UnreachableError, "closed the connection; run again when it is back"),
    (r"53300", UnreachableError, "takes no more connections now; run again later"),
    (r"53...", UnreachableError, "has run out of disk space or memory; run again when it has more"),
    (r"55P03|40...", UnreachableError, "kept a lock for another session for too long; run again when that is done"),
    (r"57014", UnreachableError, "stopped a statement, by its time limit or because a person did; run again"),
    (r"28...", ConfigurationError, _REFUSED_USER),
    (r"3D000", ConfigurationError, _NO_SUCH_DATABASE),
    (
        r"42P01|42703|3F000",
        ConfigurationError,
        "lacks a table or a column of the pipeline; type: user-sync migrate apply",
    ),
    (
        r"42501",
        ConfigurationError,
        "refuses this role a permission; grant it, or use the role that applied the migrations",
    ),
    (
        r"25006",
        ConfigurationError,
        "takes no writes, as a replica or because its disk is full; give the address of one that does",
    ),
)


def _explain(cause: Any, setting: str) -> UserSyncError | None:
    """Put a driver's error into a sentence; None when a person can do nothing about it."""
    where = next((note for note in getattr(cause, "__notes__", ()) if note.startswith("at ")), None)
    server = f"{setting}: the server {where}" if where else f"{setting}: the server"
    if cause.sqlstate is not None:
        for states, error_class, sentence in _BY_SQLSTATE:
            if re.fullmatch(states, cause.sqlstate):
                return error_class(f"{server} {sentence}.")
        return None
    for pattern, error_class, sentence in _BY_MESSAGE:
        if re.search(pattern, str(cause)):
            return error_class(f"{server} {sentence}.")
    if any(ancestor.__name__ == "OperationalError" for ancestor in type(cause).__mro__):
        return UnreachableError(f"{server} does not answer; start it, or correct the address.")
    return None
