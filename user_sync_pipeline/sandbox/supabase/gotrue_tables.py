"""What GoTrue reads and writes in `auth.users` and `auth.identities`.

What belongs here: its statements, each as narrow as its own, since triggers see them one by one.
What does not: transactions, checks and answers (`gotrue.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from user_sync_pipeline.sandbox.supabase.auth_users import identity_claims, obfuscated
from user_sync_pipeline.sandbox.supabase.gotrue_users import UserAttributes

INSTANCE = UUID(int=0)  # rows of another instance do not exist for GoTrue

Connection = AsyncConnection[DictRow]

# Metadata is read as text, to tell NULL from JSON's null.
_KNOWN = "FROM auth.users WHERE instance_id = %(instance)s"
_USERS = f"SELECT *, raw_app_meta_data::text AS app_metadata, raw_user_meta_data::text AS user_metadata {_KNOWN}"
_ADD_USER = """
    INSERT INTO auth.users (
        instance_id, id, aud, role, email, phone, encrypted_password, raw_app_meta_data, raw_user_meta_data,
        created_at, updated_at, confirmation_token, recovery_token, email_change_token_new, email_change
    ) VALUES (
        %(instance)s, %(id)s, %(aud)s, '', nullif(%(email)s, ''), nullif(%(phone)s, ''), %(password_hash)s,
        %(app_metadata)s, %(user_metadata)s, %(now)s, %(now)s, '', '', '', ''
    )
"""
_PUT_IDENTITY = """
    INSERT INTO auth.identities (
        provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at
    ) VALUES (%(user_id)s, %(user_id)s, %(claims)s, %(provider)s, %(now)s, %(now)s, %(now)s)
    ON CONFLICT (provider_id, provider) DO UPDATE
    SET identity_data = identities.identity_data || EXCLUDED.identity_data, updated_at = EXCLUDED.updated_at
"""
_WITH_ADDRESS = """
    SELECT FROM auth.users
    WHERE instance_id = %(instance)s AND aud = %(aud)s AND NOT is_sso_user
      AND CASE WHEN %(provider)s = 'email' THEN lower(email) ELSE phone END = %(address)s
"""


async def list_users(
    connection: Connection, *, audience: str, pattern: str | None, order: str, limit: int, offset: int
) -> tuple[int, list[DictRow]]:
    """Return how many users there are, and a page of them; two statements, so they may disagree.

    `pattern` is for LIKE on e-mail and full name; `order` is SQL.
    """
    values = {"instance": INSTANCE, "aud": audience, "pattern": pattern, "limit": limit, "offset": offset}
    chosen = _KNOWN + " AND aud = %(aud)s"
    if pattern is not None:
        chosen += " AND (email LIKE %(pattern)s OR raw_user_meta_data ->> 'full_name' ILIKE %(pattern)s)"
    (counted,) = await (await connection.execute(f"SELECT count(*) {chosen}", values)).fetchall()
    # Only the keys are sorted in full, not the wide rows.
    keys = f"SELECT id {chosen} ORDER BY {order} LIMIT %(limit)s OFFSET %(offset)s"
    page = await connection.execute(f"{_USERS} AND id IN ({keys}) ORDER BY {order}", values)
    return counted["count"], await page.fetchall()


async def find_user(connection: Connection, user_id: UUID) -> DictRow | None:
    """Return the row of a user, or None."""
    values = {"instance": INSTANCE, "id": user_id}
    return await (await connection.execute(_USERS + " AND id = %(id)s", values)).fetchone()


async def find_identities(connection: Connection, user_id: UUID) -> list[DictRow]:
    """Return the identities of a user, the oldest first."""
    select = "SELECT * FROM auth.identities WHERE user_id = %s ORDER BY created_at, provider"
    return await (await connection.execute(select, (user_id,))).fetchall()


async def has_user_with(connection: Connection, provider: str, address: str, *, audience: str) -> bool:
    """Tell whether an e-mail or phone is taken."""
    values = {"instance": INSTANCE, "aud": audience, "provider": provider, "address": address}
    return (await connection.execute(_WITH_ADDRESS, values)).rowcount > 0


async def add_user(
    connection: Connection,
    user_id: UUID,
    wanted: UserAttributes,
    *,
    audience: str,
    app_metadata: dict[str, Any],
    user_metadata: dict[str, Any] | None,
    now: datetime,
) -> None:
    """Insert a user: role, further metadata and confirmation are not in this row yet, they come as updates."""
    values = {
        "instance": INSTANCE,
        "id": user_id,
        "aud": audience,
        "email": wanted.email,
        "phone": wanted.phone,
        "password_hash": wanted.password_hash or "",
        "app_metadata": Jsonb(app_metadata),
        "user_metadata": Jsonb(user_metadata),
        "now": now,
    }
    await connection.execute(_ADD_USER, values)


async def put_identity(
    connection: Connection, user_id: UUID, provider: str, address: str, *, is_verified: bool, now: datetime
) -> None:
    """Add the identity of an e-mail or phone, or change the address in it."""
    claims = identity_claims(user_id, provider, address, is_verified=is_verified)
    values = {"user_id": user_id, "provider": provider, "claims": Jsonb(claims), "now": now}
    await connection.execute(_PUT_IDENTITY, values)


async def update_user(connection: Connection, user_id: UUID, changes: Mapping[str, Any]) -> None:
    """Change some columns of a user."""
    assignments = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in changes]
    statement = sql.SQL("UPDATE auth.users SET {} WHERE id = {}").format(
        sql.SQL(", ").join([*assignments, sql.SQL("updated_at = now()")]), sql.Placeholder("id")
    )
    await connection.execute(statement, {**changes, "id": user_id})


async def delete_user(connection: Connection, user_id: UUID) -> None:
    """Delete a user, and with it what refers to it with a cascade."""
    await connection.execute("DELETE FROM auth.users WHERE id = %s", (user_id,))


async def delete_user_softly(connection: Connection, row: DictRow) -> None:
    """Leave the row, but nothing in it that tells who it was."""
    user_id = row["id"]
    changes = {
        "email": obfuscated(user_id, row["email"] or ""),
        "phone": obfuscated(user_id, row["phone"] or "")[:15],
        "email_change": obfuscated(user_id, row["email_change"] or ""),
        "phone_change": obfuscated(user_id, row["phone_change"] or "")[:15],
        "encrypted_password": None,
        "confirmation_token": "",
        "recovery_token": "",
        "email_change_token_current": "",
        "email_change_token_new": "",
        "phone_change_token": "",
        "raw_app_meta_data": Jsonb({}),
        "raw_user_meta_data": Jsonb({}),
        "deleted_at": datetime.now(UTC),
    }
    await update_user(connection, user_id, changes)
    for identity in await find_identities(connection, user_id):
        hidden = obfuscated(user_id, f"{identity['provider']}:{identity['provider_id']}")
        forget = "UPDATE auth.identities SET identity_data = '{}', provider_id = %s WHERE id = %s"
        await connection.execute(forget, (hidden, identity["id"]))
