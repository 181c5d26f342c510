"""Makes a database what a Supabase project starts with, and fills `auth.users`.

What belongs here: roles, the schema `auth`, default grants (`roles.sql`, `auth_schema.sql`) and loading users.
What does not: supautils, with which a hosted project lets `postgres` drop a trigger on `auth.users` and create
policies there. Plain Postgres refuses that, so a migration that works here works in both places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.sample_people import Person
from user_sync_pipeline.sandbox.supabase.auth_users import AuthUser, auth_users, special_users

MIGRATION_ROLE = "postgres"
API_LOGIN_ROLE = "authenticator"
AUTH_ADMIN_ROLE = "supabase_auth_admin"

_FOLDER = Path(__file__).parent
_API_ROLES: LiteralString = "anon, authenticated, service_role"
_OBJECTS: tuple[LiteralString, ...] = ("TABLES", "SEQUENCES", "FUNCTIONS")

_INCOMING = """
    CREATE TEMPORARY TABLE incoming (
        id uuid, email text, phone text, created_at timestamptz, email_confirmed_at timestamptz,
        phone_confirmed_at timestamptz, last_sign_in_at timestamptz, banned_until timestamptz,
        deleted_at timestamptz, is_anonymous boolean, app_metadata jsonb, user_metadata jsonb,
        provider text, provider_id text, identity_data jsonb
    ) ON COMMIT DROP
"""
_ADD_USERS = """
    INSERT INTO auth.users (
        instance_id, id, aud, role, email, phone, encrypted_password, created_at, updated_at, email_confirmed_at,
        phone_confirmed_at, last_sign_in_at, banned_until, deleted_at, is_anonymous, raw_app_meta_data,
        raw_user_meta_data, confirmation_token, recovery_token, email_change_token_new, email_change
    )
    SELECT '00000000-0000-0000-0000-000000000000', id, 'authenticated', 'authenticated', email, phone, '', created_at,
           coalesce(deleted_at, last_sign_in_at, email_confirmed_at, phone_confirmed_at, created_at),
           email_confirmed_at, phone_confirmed_at, last_sign_in_at, banned_until, deleted_at, is_anonymous,
           app_metadata, user_metadata, '', '', '', ''
    FROM incoming
    ON CONFLICT DO NOTHING
"""
_ADD_IDENTITIES = """
    INSERT INTO auth.identities (
        provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at
    )
    SELECT i.provider_id, i.id, i.identity_data, i.provider, i.last_sign_in_at, i.created_at, i.created_at
    FROM incoming i
    JOIN auth.users u ON u.id = i.id
    WHERE i.provider IS NOT NULL
    ON CONFLICT DO NOTHING
"""


def prepare_supabase(
    server: PostgresServer,
    database: str,
    *,
    legacy_default_grants: bool,
    postgres_password: str,
    authenticator_password: str,
    auth_admin_password: str,
) -> None:
    """Bring roles, schema `auth` and grants into `database`, which is made when it does not exist.

    With `legacy_default_grants` a new table of `postgres` in `public` is open to the API's roles, as in projects
    older than 30 May 2026; without, nobody is granted anything. May be called again, also with other passwords.
    """
    passwords = {
        MIGRATION_ROLE: postgres_password,
        API_LOGIN_ROLE: authenticator_password,
        AUTH_ADMIN_ROLE: auth_admin_password,
    }
    # Creating a database cannot be part of a transaction, and the owner has to exist by then.
    with psycopg.connect(server.url(), autocommit=True) as connection:
        with connection.transaction():
            connection.execute(_script("roles.sql"))
            for role, password in passwords.items():
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
                )
        known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone()
        statement = "ALTER DATABASE {} OWNER TO {}" if known is not None else "CREATE DATABASE {} OWNER {}"
        connection.execute(sql.SQL(statement).format(sql.Identifier(database), sql.Identifier(MIGRATION_ROLE)))
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(_script("auth_schema.sql"))
        for objects in _OBJECTS:
            change = "GRANT ALL ON {} TO {}" if legacy_default_grants else "REVOKE ALL ON {} FROM {}"
            connection.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public ")
                + sql.SQL(change).format(sql.SQL(objects), sql.SQL(_API_ROLES))
            )


def load_auth_users(url: str, people: Sequence[Person], *, with_special_users: bool = False) -> int:
    """Add a user for everyone of `people` who can sign in, and return how many were new.

    A user whose id or e-mail is there already stays as it is. `with_special_users` adds anonymous, soft-deleted,
    phone-only and banned ones. `url` is for a role that may write `auth.users`.
    """
    rows: chain[AuthUser] = chain(auth_users(people))
    if with_special_users and people:
        rows = chain(rows, special_users(min(person.created for person in people)))
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_INCOMING)
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        added = cursor.execute(_ADD_USERS).rowcount
        cursor.execute(_ADD_IDENTITIES)
    return added


def _script(name: str) -> sql.SQL:
    return sql.SQL((_FOLDER / name).read_text(encoding="utf-8"))
