"""The roles, the schema `auth` and the grants are those of a Supabase project."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline.sandbox.supabase import load_auth_users, prepare_supabase
from user_sync_pipeline.sandbox.supabase.auth_users import (
    ANONYMOUS_USERS,
    BANNED_USERS,
    PHONE_ONLY_USERS,
    SOFT_DELETED_USERS,
    SPECIAL_USERS,
    UNCONFIRMED_EVERY,
)
from user_sync_pipeline_tests.conftest import ORG_MADE_AT, ROLE_PASSWORD, role_url

Connection = psycopg.Connection[Any]

TABLE = "CREATE TABLE public.profiles (id uuid PRIMARY KEY REFERENCES auth.users (id) ON DELETE CASCADE)"
FUNCTION = """
    CREATE FUNCTION public.add_profile() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
    BEGIN
        INSERT INTO public.profiles (id) VALUES (NEW.id);
        RETURN NULL;
    END $$
"""
TRIGGER = "CREATE OR REPLACE TRIGGER on_user AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION add_profile()"
USER = "INSERT INTO auth.users (id, aud, email) VALUES (gen_random_uuid(), 'authenticated', 'probe@example.com')"
CONSTRAINT_TRIGGER = (
    "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION add_profile()"
)

ALLOWED_TO_POSTGRES = [
    TRIGGER,
    CONSTRAINT_TRIGGER,
    "CREATE TABLE public.other (id uuid REFERENCES auth.users (id))",
    "SELECT count(*) FROM auth.users",
    USER,
    "UPDATE auth.users SET phone = NULL",
    "DELETE FROM auth.users",
    "LOCK TABLE auth.users IN SHARE ROW EXCLUSIVE MODE",
    "CREATE VIEW public.everyone AS SELECT id, email FROM auth.users",
    "GRANT SELECT ON auth.users TO service_role",
    "CREATE SCHEMA user_sync",
    "SET ROLE service_role",
]
REFUSED_TO_POSTGRES = [
    "DROP TRIGGER installed ON auth.users",
    "ALTER TABLE auth.users DISABLE TRIGGER installed",
    "ALTER TRIGGER installed ON auth.users RENAME TO other",
    "COMMENT ON TRIGGER installed ON auth.users IS 'x'",
    "ALTER TABLE auth.users ADD COLUMN x text",
    "CREATE INDEX ON auth.users (email)",
    "CREATE TABLE auth.x (id int)",
    "CREATE FUNCTION auth.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE POLICY everything ON auth.users USING (true)",
    "SET ROLE supabase_auth_admin",
    "SET session_replication_role = replica",
]


@pytest.fixture(scope="module")
def database(make_supabase_database: Callable[..., str]) -> str:
    return make_supabase_database()


@pytest.fixture
def connection(postgres_server: PostgresServer, database: str) -> Iterator[Connection]:
    """A session of role postgres whose changes are taken back."""
    with psycopg.connect(role_url(postgres_server, database)) as connection:
        connection.execute(TABLE)
        connection.execute(FUNCTION)
        yield connection
        connection.rollback()


def prepare(server: PostgresServer, database: str, password: str = ROLE_PASSWORD) -> None:
    """Prepare a database once more, for the new kind of grants."""
    prepare_supabase(
        server,
        database,
        legacy_default_grants=False,
        postgres_password=password,
        authenticator_password=password,
        auth_admin_password=password,
    )


def as_role(connection: Connection, role: str) -> None:
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("statement", ALLOWED_TO_POSTGRES)
def test_a_migration_may(connection: Connection, statement: str) -> None:
    connection.execute(statement.encode())


@pytest.mark.parametrize("statement", REFUSED_TO_POSTGRES)
def test_a_migration_may_not(connection: Connection, statement: str) -> None:
    connection.execute(TRIGGER.replace("on_user", "installed").encode())
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_trigger_goes_with_its_function(connection: Connection) -> None:
    connection.execute(TRIGGER)
    connection.execute("DROP FUNCTION public.add_profile CASCADE")
    connection.execute(USER)
    assert connection.execute("SELECT count(*) FROM public.profiles").fetchone() == (0,)


def test_a_trigger_runs_for_gotrue_only_with_the_rights_of_its_owner(
    postgres_server: PostgresServer, supabase_database: str
) -> None:
    with psycopg.connect(supabase_database) as connection:
        connection.execute(TABLE)
        connection.execute(FUNCTION)
        connection.execute(TRIGGER)
        name = connection.info.dbname
    auth_admin = role_url(postgres_server, name, "supabase_auth_admin")
    with psycopg.connect(auth_admin) as connection:
        connection.execute(USER)
        assert connection.execute("SHOW search_path").fetchone() == ("auth",)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT FROM public.profiles")
    with psycopg.connect(supabase_database) as connection:
        connection.execute("ALTER FUNCTION public.add_profile SECURITY INVOKER")
    with psycopg.connect(auth_admin) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(USER)


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_no_role_of_the_api_reads_auth_users(connection: Connection, role: str) -> None:
    as_role(connection, role)
    assert connection.execute("SELECT auth.uid()").fetchone() == (None,)
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("SELECT FROM auth.users")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_new_table_is_open_to_the_api_only_in_projects_of_the_old_kind(
    postgres_server: PostgresServer, make_supabase_database: Callable[..., str], role: str, *, legacy: bool
) -> None:
    database = make_supabase_database(legacy_default_grants=legacy)
    with psycopg.connect(role_url(postgres_server, database)) as connection:
        connection.execute("CREATE TABLE public.fresh (id bigint GENERATED BY DEFAULT AS IDENTITY, n int)")
        rights = connection.execute(
            "SELECT privilege, has_table_privilege(%s, 'public.fresh', privilege) "
            "FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege",
            (role,),
        ).fetchall()
    assert {granted for _, granted in rights} == {legacy}


def test_the_grant_mode_of_a_database_can_be_changed(
    postgres_server: PostgresServer, make_supabase_database: Callable[..., str]
) -> None:
    database = make_supabase_database(legacy_default_grants=True)
    prepare(postgres_server, database)
    with psycopg.connect(role_url(postgres_server, database)) as connection:
        connection.execute("CREATE TABLE public.fresh ()")
        assert connection.execute("SELECT has_table_privilege('service_role', 'fresh', 'SELECT')").fetchone() == (
            False,
        )


def test_roles_have_the_attributes_of_a_hosted_project(connection: Connection) -> None:
    roles = connection.execute(
        "SELECT rolname, rolsuper, rolcanlogin, rolinherit, rolcreaterole, rolbypassrls FROM pg_roles "
        "WHERE rolname IN ('postgres', 'supabase_auth_admin', 'authenticator', 'anon', 'authenticated', 'service_role')"
    ).fetchall()
    assert sorted(roles) == [
        ("anon", False, False, True, False, False),
        ("authenticated", False, False, True, False, False),
        ("authenticator", False, True, False, False, False),
        ("postgres", False, True, True, True, True),
        ("service_role", False, False, True, False, True),
        ("supabase_auth_admin", False, True, False, False, False),
    ]


def test_auth_users_has_the_35_columns_of_gotrue_in_order(connection: Connection) -> None:
    columns = connection.execute(
        "SELECT column_name, data_type, is_nullable = 'YES', column_default, is_generated = 'ALWAYS' "
        "FROM information_schema.columns WHERE table_schema = 'auth' AND table_name = 'users' ORDER BY ordinal_position"
    ).fetchall()
    assert len(columns) == 35
    assert columns[0] == ("instance_id", "uuid", True, None, False)
    assert columns[1] == ("id", "uuid", False, None, False)
    assert columns[26] == ("confirmed_at", "timestamp with time zone", True, None, True)
    assert columns[34] == ("is_anonymous", "boolean", False, "false", False)
    assert [name for name, _, nullable, _, _ in columns if not nullable] == ["id", "is_sso_user", "is_anonymous"]


def test_an_email_is_unique_among_those_without_single_sign_on(connection: Connection) -> None:
    add = "INSERT INTO auth.users (id, email, is_sso_user) VALUES (gen_random_uuid(), 'same@example.com', %s)"
    for is_sso_user in (True, True, False):
        connection.execute(add, (is_sso_user,))
    with pytest.raises(errors.UniqueViolation):
        connection.execute(add, (False,))


def test_policies_see_the_claims_of_the_caller(connection: Connection) -> None:
    user_id = uuid.uuid4()
    claims = f'{{"sub": "{user_id}", "role": "authenticated", "email": "a@example.com"}}'
    connection.execute("SELECT set_config('request.jwt.claims', %s, true)", (claims,))
    row = connection.execute("SELECT auth.uid(), auth.role(), auth.email(), auth.jwt() ->> 'sub'").fetchone()
    assert row == (user_id, "authenticated", "a@example.com", str(user_id))


def test_preparing_again_changes_the_passwords(postgres_server: PostgresServer, database: str) -> None:
    prepare(postgres_server, database, "another-password")
    try:
        for role in ("postgres", "authenticator", "supabase_auth_admin"):
            psycopg.connect(postgres_server.url(database, role=role, password="another-password")).close()
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(role_url(postgres_server, database, role))
    finally:
        prepare(postgres_server, database)


@pytest.mark.parametrize("role", ["postgres", "supabase_auth_admin"])
def test_users_are_loaded_once(postgres_server: PostgresServer, supabase_database: str, role: str) -> None:
    everyone = people(200, seed=3, until=ORG_MADE_AT)
    expected = {person.auth_user_id: person.email.lower() for person in everyone if person.auth_user_id}
    with psycopg.connect(supabase_database) as connection:
        url = role_url(postgres_server, connection.info.dbname, role)
        assert load_auth_users(url, everyone[:50]) > 0
        load_auth_users(url, everyone)
        assert load_auth_users(url, everyone) == 0
        rows = connection.execute("SELECT id, email, email_confirmed_at IS NULL, confirmation_token FROM auth.users")
        stored = rows.fetchall()
        identities = connection.execute("SELECT count(*), count(DISTINCT user_id) FROM auth.identities").fetchone()
    assert {row[0]: row[1] for row in stored} == expected
    assert 0 < sum(row[2] for row in stored) <= len(everyone) // UNCONFIRMED_EVERY
    assert {row[3] for row in stored} == {""}
    assert identities == (len(expected), len(expected))


def test_special_users_come_on_request(supabase_database: str) -> None:
    assert load_auth_users(supabase_database, people(10, seed=3, until=ORG_MADE_AT), with_special_users=True) > 0
    with psycopg.connect(supabase_database) as connection:
        counts = connection.execute(
            "SELECT count(*) FILTER (WHERE is_anonymous), count(*) FILTER (WHERE deleted_at IS NOT NULL), "
            "count(*) FILTER (WHERE email IS NULL AND phone IS NOT NULL), count(*) FILTER (WHERE banned_until > now()) "
            "FROM auth.users"
        ).fetchone()
    assert counts == (ANONYMOUS_USERS, SOFT_DELETED_USERS, PHONE_ONLY_USERS, BANNED_USERS)
    assert sum(counts) == SPECIAL_USERS
