"""Whatever is wrong with profiles, a sign-up goes through, and the next sync makes up for the profile.

Each row breaks something while somebody signs up as the sign-in service does it; then it is repaired, and a sync runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url

Connection = psycopg.Connection[dict[str, Any]]


class Fault(NamedTuple):
    """What breaks, what repairs it, and the SQLSTATE that is written down for the person who repairs it."""

    breaks: str
    repair: str
    sqlstate: str


def raising(raises: str) -> str:
    """A trigger of an application on the table of profiles, and what it does."""
    return f"""
        CREATE FUNCTION public.interfere() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {raises}; RETURN new; END';
        CREATE TRIGGER interfere BEFORE INSERT ON public.user_profiles
            FOR EACH ROW EXECUTE FUNCTION public.interfere();
    """


NO_LONGER_RAISING = "DROP FUNCTION public.interfere() CASCADE"
MIGRATION = (shipped_path("sql/migrations") / "0002_profiles_side.up.sql").read_text()
TABLE = "ALTER TABLE public.user_profiles"

FAULTS = {
    "the table was renamed away": Fault(
        f"{TABLE} RENAME TO profiles", "ALTER TABLE public.profiles RENAME TO user_profiles", "42P01"
    ),
    "the table was dropped": Fault("DROP TABLE public.user_profiles", MIGRATION, "42P01"),
    "the table was moved to another schema": Fault(
        f"{TABLE} SET SCHEMA app_private", "ALTER TABLE app_private.user_profiles SET SCHEMA public", "42P01"
    ),
    "a column was renamed": Fault(f"{TABLE} RENAME email TO mail", f"{TABLE} RENAME mail TO email", "42703"),
    "a column was dropped": Fault(f"{TABLE} DROP phone", f"{TABLE} ADD phone text", "42703"),
    "a column has got another type": Fault(
        f"{TABLE} ALTER phone TYPE integer USING NULL", f"{TABLE} ALTER phone TYPE text", "42804"
    ),
    "a column has become too short": Fault(
        f"{TABLE} ALTER email TYPE varchar(3)", f"{TABLE} ALTER email TYPE text", "22001"
    ),
    "a required column was added": Fault(f"{TABLE} ADD team text NOT NULL", f"{TABLE} DROP team", "23502"),
    "a check was added": Fault(
        f"{TABLE} ADD CONSTRAINT nobody CHECK (email IS NULL)", f"{TABLE} DROP CONSTRAINT nobody", "23514"
    ),
    "the e-mail has to be unique, and is taken": Fault(
        f"""
        {TABLE} ADD CONSTRAINT one_each EXCLUDE USING btree (lower(role) WITH =);
        INSERT INTO auth.users (id, aud) VALUES ('00000000-0000-0000-0000-000000000001', 'authenticated');
        """,
        f"{TABLE} DROP CONSTRAINT one_each",
        "23P01",
    ),
    "a foreign key leads nowhere": Fault(
        f"""
        CREATE TABLE public.teams (id text PRIMARY KEY);
        {TABLE} ADD team text DEFAULT 'none' REFERENCES public.teams;
        """,
        f"{TABLE} DROP team",
        "23503",
    ),
    "the owner of the function lost his rights": Fault(
        "REVOKE INSERT ON public.user_profiles FROM postgres, service_role",
        "GRANT INSERT ON public.user_profiles TO postgres, service_role",
        "42501",
    ),
    "a rule of row level security refuses": Fault(
        f"ALTER ROLE postgres NOBYPASSRLS; {TABLE} FORCE ROW LEVEL SECURITY",
        f"ALTER ROLE postgres BYPASSRLS; {TABLE} NO FORCE ROW LEVEL SECURITY",
        "42501",
    ),
    "another trigger raises": Fault(raising("RAISE EXCEPTION ''no''"), NO_LONGER_RAISING, "P0001"),
    "another trigger divides by zero": Fault(raising("PERFORM 1 / 0"), NO_LONGER_RAISING, "22012"),
    "another trigger asserts what is not so": Fault(raising("ASSERT false"), NO_LONGER_RAISING, "P0004"),
    "the disk is full": Fault(raising("RAISE SQLSTATE ''53100''"), NO_LONGER_RAISING, "53100"),
    "the memory is used up": Fault(raising("RAISE SQLSTATE ''53200''"), NO_LONGER_RAISING, "53200"),
    "two wait for each other": Fault(raising("RAISE SQLSTATE ''40P01''"), NO_LONGER_RAISING, "40P01"),
    "the table is damaged": Fault(raising("RAISE SQLSTATE ''XX001''"), NO_LONGER_RAISING, "XX001"),
    "the time of the statement is up": Fault(raising("RAISE SQLSTATE ''57014''"), NO_LONGER_RAISING, "57014"),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(make_supabase_database: Callable[..., str], postgres_server: PostgresServer) -> str:
    name = make_supabase_database()
    with psycopg.connect(role_url(postgres_server, name)) as connection:
        connection.execute(MIGRATION.encode())
    return name


@pytest.fixture
def connection(postgres_server: PostgresServer, database: str) -> Iterator[Connection]:
    """A superuser's connection; nothing of it is ever committed."""
    with psycopg.connect(postgres_server.url(database), row_factory=dict_row) as connection:
        yield connection
        connection.rollback()


def sign_up(connection: Connection) -> UUID:
    """Sign up as the sign-in service does; returns the id of the user, who is there."""
    user_id = uuid4()
    connection.execute("SET LOCAL ROLE supabase_auth_admin")
    connection.execute("SET LOCAL search_path = auth")
    try:
        connection.execute(
            "INSERT INTO users (instance_id, id, aud, role, email, raw_user_meta_data)"
            " VALUES ('00000000-0000-0000-0000-000000000000', %s, 'authenticated', '', %s, '{}')",
            [user_id, f"{user_id}@example.com"],
        )
    finally:
        if connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS:
            connection.execute("RESET ROLE; SET LOCAL search_path = public")
    assert connection.execute("SELECT FROM auth.users WHERE id = %s", [user_id]).rowcount == 1
    return user_id


def one(connection: Connection, statement: str, *values: object) -> dict[str, Any] | None:
    return connection.execute(statement.encode(), values).fetchone()


@pytest.mark.parametrize("name", FAULTS)
def test_a_sign_up_goes_through_and_the_next_sync_makes_the_profile_although(connection: Connection, name: str) -> None:
    fault = FAULTS[name]
    connection.execute(fault.breaks.encode())

    user_id = sign_up(connection)

    noted = one(connection, "SELECT * FROM app_private.profile_failures WHERE user_id = %s", user_id)
    assert noted is not None
    assert noted["sqlstate"] == fault.sqlstate

    connection.execute(fault.repair.encode())
    connection.execute("SET LOCAL ROLE service_role")
    healed = one(connection, "SELECT public.profile_backfill(100) AS answer")
    connection.execute("RESET ROLE")
    assert healed is not None
    assert healed["answer"]["failures"] == []
    profile = one(connection, "SELECT source FROM public.user_profiles WHERE id = %s", user_id)
    assert profile == {"source": "sync"}
    assert one(connection, "SELECT FROM app_private.profile_failures") is None


def test_a_sign_up_goes_through_although_the_failure_cannot_be_recorded_either(connection: Connection) -> None:
    warnings: list[str] = []
    connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    connection.execute(b"DROP TABLE public.user_profiles; DROP TABLE app_private.profile_failures")

    user_id = sign_up(connection)

    assert [str(user_id) in warning for warning in warnings] == [True]
    assert "example.com" not in warnings[0]


@pytest.mark.parametrize("mode", ["ROW EXCLUSIVE", "ACCESS EXCLUSIVE"])
def test_a_sign_up_goes_through_although_the_table_is_locked(
    connection: Connection, postgres_server: PostgresServer, database: str, mode: str
) -> None:
    with psycopg.connect(role_url(postgres_server, database)) as other:
        other.execute(f"LOCK TABLE public.user_profiles IN {mode} MODE".encode())
        connection.execute("ALTER FUNCTION app_private.handle_new_auth_user() SET lock_timeout = '50ms'")
        user_id = sign_up(connection)
        other.rollback()

    noted = one(connection, "SELECT sqlstate FROM app_private.profile_failures WHERE user_id = %s", user_id)
    assert noted == (None if mode == "ROW EXCLUSIVE" else {"sqlstate": "55P03"})


@pytest.mark.slow
def test_a_sign_up_goes_through_although_its_time_is_up_while_the_profile_is_made(connection: Connection) -> None:
    connection.execute(raising("PERFORM pg_sleep(600)").encode())
    connection.execute("SET LOCAL statement_timeout = '3s'")
    user_id = sign_up(connection)

    noted = one(connection, "SELECT sqlstate FROM app_private.profile_failures WHERE user_id = %s", user_id)
    assert noted == {"sqlstate": "57014"}


def test_a_locked_table_is_waited_for_no_longer_than_any_statement_may_take(connection: Connection) -> None:
    """The timeout of the sign-in service would end the sign-up; it is above 1.5 seconds everywhere."""
    settings = one(
        connection,
        "SELECT proconfig FROM pg_proc WHERE oid = 'app_private.handle_new_auth_user()'::regprocedure",
    )
    assert settings is not None
    assert "lock_timeout=1500ms" in settings["proconfig"]


@pytest.mark.parametrize(
    "metadata",
    [None, None.__class__, [], [1], "text", "", 7, True, {}, {"full_name": None}, {"full_name": {"a": 1}},
     {"full_name": ["x"]}, {"full_name": "x" * 100_000}, {"avatar_url": 1.5}, {"role": "admin"}],
    ids=str,
)  # fmt: skip
def test_a_sign_up_gets_its_profile_whatever_its_metadata_is(connection: Connection, metadata: object) -> None:
    user_id = uuid4()
    value = None if metadata is None.__class__ else json.dumps(metadata)
    connection.execute(
        "INSERT INTO auth.users (id, aud, raw_user_meta_data) VALUES (%s, 'authenticated', %s)", [user_id, value]
    )

    assert one(connection, "SELECT role FROM public.user_profiles WHERE id = %s", user_id) == {"role": "user"}
    assert one(connection, "SELECT FROM app_private.profile_failures") is None
