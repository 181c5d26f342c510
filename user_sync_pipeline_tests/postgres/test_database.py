from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from adbc_driver_postgresql import dbapi
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.warehouse.database import (
    create_database_engine,
    database_errors,
    libpq_url,
    with_driver,
)
from user_sync_pipeline.core.warehouse.tables import Relation, read_arrow
from user_sync_pipeline_tests.postgres.conftest import execute

AWKWARD_PASSWORD = "p@ss word/x+ü%:?#"


def render(url: str, **changes: Any) -> str:
    return make_url(url).set(**changes).render_as_string(hide_password=False)


@pytest.fixture
def other_role(warehouse_url: str) -> Iterator[str]:
    """The address of the database for a role that owns nothing and has an awkward password."""
    execute(warehouse_url, f"CREATE ROLE visitor LOGIN PASSWORD '{AWKWARD_PASSWORD}'")
    yield render(warehouse_url, username="visitor", password=AWKWARD_PASSWORD)
    execute(warehouse_url, "DROP OWNED BY visitor", "DROP ROLE visitor")


@pytest.mark.parametrize(
    "scheme",
    ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgres+psycopg2", "postgresql+asyncpg"],
)
def test_every_spelling_of_an_address_reaches_the_database_through_psycopg_3(empty_database: str, scheme: str) -> None:
    engine = create_database_engine(empty_database.replace("postgresql", scheme, 1))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        assert isinstance(connection.connection.driver_connection, psycopg.Connection)
    engine.dispose()


def test_another_driver_and_adbc_reach_the_database_with_an_awkward_password(other_role: str) -> None:
    engine = sqlalchemy.create_engine(with_driver(other_role, "psycopg2"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "visitor"
    engine.dispose()
    with dbapi.connect(libpq_url(other_role)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('application_name')")
        assert cursor.fetchone() == ("visitor", "user-sync")


def test_sessions_run_in_utc_with_timeouts_and_a_name_also_after_a_rollback(empty_database: str) -> None:
    engine = create_database_engine(empty_database)
    settings = text(
        "SELECT current_setting('timezone'), current_setting('lock_timeout'), "
        "current_setting('statement_timeout'), current_setting('application_name')"
    )
    with engine.connect() as connection:
        connection.rollback()
        assert tuple(connection.execute(settings).one()) == ("UTC", "30s", "1h", "user-sync")
    engine.dispose()


def test_a_password_that_is_hardly_encoded_is_not_taken_for_a_list_of_hosts(other_role: str) -> None:
    address = make_url(other_role)
    url = f"postgresql://visitor:p%40ss word/x+ü%25:?#@{address.host}:{address.port}/{address.database}"
    engine = create_database_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "visitor"
    engine.dispose()


def test_the_address_may_set_its_own_name_and_patience(empty_database: str) -> None:
    engine = create_database_engine(
        render(empty_database, query={"application_name": "nightly", "connect_timeout": "90"})
    )
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_setting('application_name')")) == "nightly"
    engine.dispose()


def test_the_address_may_set_timeouts_of_its_own(empty_database: str) -> None:
    engine = create_database_engine(
        f"{empty_database}&options=-c%20statement_timeout%3D2h%20-c%20timezone%3DAsia/Tokyo"
    )
    settings = text(
        "SELECT current_setting('statement_timeout'), current_setting('timezone'), current_setting('lock_timeout')"
    )
    with engine.connect() as connection:
        assert tuple(connection.execute(settings).one()) == ("2h", "Asia/Tokyo", "30s")
    engine.dispose()


def test_a_statement_that_takes_too_long_is_stopped(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '20ms'"))
        with pytest.raises(UnreachableError, match="by its time limit"), database_errors():
            connection.execute(text("SELECT pg_sleep(10)"))


@pytest.mark.slow
def test_a_transaction_that_waits_is_not_ended_as_a_forgotten_one(empty_database: str) -> None:
    database = make_url(empty_database).database
    execute(empty_database, f"ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '20ms'")
    engine = create_database_engine(empty_database)
    with engine.begin() as connection:
        time.sleep(0.1)
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "database",
        "mysql://user:secret-word@host/db",
        "https://user:secret-word@host/db",
        "postgresql://user:secret-word@host:port/db",
        "postgresql://user:secret-word@host:5432,other:port/db",
        "postgresqlx://user:secret-word@host/db",
    ],
)
def test_what_is_no_address_of_postgres_is_refused_without_repeating_it(url: str) -> None:
    for build in (create_database_engine, libpq_url):
        with pytest.raises(ConfigurationError, match=r"USER_SYNC_DATABASE_URL is not the address") as refusal:
            build(url)
        assert "secret-word" not in str(refusal.value)


def connect(url: str) -> None:
    engine = create_database_engine(url)
    with database_errors("USER_SYNC_DATABASE_URL"), engine.connect():
        pass


def test_a_closed_port_is_a_server_that_does_not_answer(empty_database: str) -> None:
    with pytest.raises(UnreachableError, match=r"^USER_SYNC_DATABASE_URL: the server at 127.0.0.1:1 does not answer"):
        connect(render(empty_database, port=1))


def test_an_unknown_host_is_a_server_that_does_not_answer(empty_database: str) -> None:
    with pytest.raises(UnreachableError, match=r"at nowhere\.invalid:\d+ does not answer"):
        connect(render(empty_database, host="nowhere.invalid"))


def test_every_one_of_several_hosts_is_named(empty_database: str) -> None:
    address = empty_database.replace(f":{make_url(empty_database).port}", ":1,[::1]:2")
    with pytest.raises(UnreachableError, match=r"at 127\.0\.0\.1:1 or ::1:2 does not answer"):
        connect(address)


@contextmanager
def pooler_that_says(message: str) -> Iterator[int]:
    """Serve a port that answers every attempt to sign in with this error, in the protocol of Postgres."""
    fields = b"SFATAL\0CXX000\0M" + message.encode() + b"\0\0"
    refusal = b"E" + struct.pack("!I", len(fields) + 4) + fields

    class Refusal(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            size, code = struct.unpack("!II", self.request.recv(8))
            if code == 80877103:  # may it be encrypted? No.
                self.request.sendall(b"N")
                size, code = struct.unpack("!II", self.request.recv(8))
            self.request.recv(size - 8)
            self.request.sendall(refusal)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("message", "error_class", "sentence"),
    [
        ("Tenant or user not found", ConfigurationError, "refuses the user or the password"),
        ("(ENOTFOUND) tenant/user postgres.project not found", ConfigurationError, "refuses the user or the password"),
        ("no such user: stranger", ConfigurationError, "refuses the user or the password"),
        ("no such database: nowhere", ConfigurationError, "has no such database"),
        ("unsupported startup parameter: options", ConfigurationError, "takes no options of a session"),
        ("Max client connections reached", UnreachableError, "takes no connection now"),
        (
            "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
            UnreachableError,
            "takes no connection now",
        ),
        ("Unable to check out process from the pool due to timeout", UnreachableError, "takes no connection now"),
        ("server login has been failing, try again later", UnreachableError, "takes no connection now"),
    ],
)
def test_what_poolers_say_is_put_into_the_same_words(message: str, error_class: type[Exception], sentence: str) -> None:
    with pooler_that_says(message) as port, pytest.raises(error_class, match=sentence):
        connect(f"postgresql://postgres.project:password@127.0.0.1:{port}/postgres")


@pytest.mark.slow
def test_a_silent_server_is_given_up_after_the_connect_timeout(empty_database: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match=f"at 127.0.0.1:{port} does not answer"):
            connect(render(empty_database, port=port, query={"connect_timeout": "1"}))


def test_a_wrong_password_is_named_but_never_shown(empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match="refuses the user or the password") as refusal:
        connect(render(empty_database, password="secret-word"))
    assert "secret-word" not in str(refusal.value)


def test_an_unknown_database_is_named_as_such(empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match="has no such database"):
        connect(render(empty_database, database="nowhere"))


def test_a_server_without_encryption_is_refused_where_the_address_asks_for_it(empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match="sslmode"):
        connect(f"{empty_database}&sslmode=require")


def test_an_option_that_postgres_does_not_know_is_refused(empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match="behind the question mark"):
        connect(f"{empty_database}&colour=blue")


def test_failures_of_adbc_are_put_into_the_same_words(empty_database: str) -> None:
    with pytest.raises(UnreachableError, match="does not answer"), database_errors():
        read_arrow(render(empty_database, port=1), Relation("public", "sf_users"))
    with pytest.raises(ConfigurationError, match="user-sync migrate apply"), database_errors():
        read_arrow(empty_database, Relation("public", "sf_users"))


def test_a_missing_table_says_what_to_type(empty_database: str) -> None:
    engine = create_database_engine(empty_database)
    with (
        pytest.raises(ConfigurationError, match="type: user-sync migrate apply"),
        database_errors(),
        engine.connect() as connection,
    ):
        connection.execute(text("SELECT FROM public.sf_users"))
    engine.dispose()


def test_a_missing_permission_is_a_matter_of_configuration(other_role: str) -> None:
    engine = create_database_engine(other_role)
    with (
        pytest.raises(ConfigurationError, match="refuses this role a permission"),
        database_errors(),
        engine.connect() as connection,
    ):
        connection.execute(text("SELECT FROM public.sf_users"))
    engine.dispose()


def test_a_read_only_database_is_a_matter_of_configuration(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(ConfigurationError, match="takes no writes"), database_errors():
            connection.execute(text("DELETE FROM public.sf_users"))


def test_a_lock_held_too_long_passes_by_itself(warehouse: Engine) -> None:
    with warehouse.begin() as holder, warehouse.connect() as waiter:
        holder.execute(text("LOCK TABLE public.sf_users"))
        waiter.execute(text("SET LOCAL lock_timeout = '20ms'"))
        with pytest.raises(UnreachableError, match="kept a lock"), database_errors():
            waiter.execute(text("SELECT FROM public.sf_users"))


def test_a_connection_that_is_lost_passes_by_itself_and_the_engine_recovers(warehouse: Engine) -> None:
    with pytest.raises(UnreachableError), database_errors(), warehouse.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with warehouse.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_a_mistake_of_the_program_goes_through_as_it_is_and_shows_no_values(warehouse: Engine) -> None:
    with pytest.raises(DataError) as error, database_errors(), warehouse.connect() as connection:
        connection.execute(text("SELECT 1 / CAST(:zero AS integer), :word"), {"zero": 0, "word": "secret-word"})
    assert "secret-word" not in str(error.value)
