"""Auth users and profiles for the tests of the profiles side, written as a restore or an import would write them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

_NO_INSTANCE = UUID(int=0)
_USER = text("""
    INSERT INTO auth.users (instance_id, id, aud, role, email, email_confirmed_at, deleted_at, banned_until,
                            confirmation_token, recovery_token, email_change, email_change_token_new,
                            raw_app_meta_data, raw_user_meta_data, created_at, updated_at)
    VALUES (:instance, :id, :aud, 'authenticated', :email, CASE WHEN :verified THEN now() END,
            CASE WHEN :deleted THEN now() END, CASE WHEN :banned THEN now() + interval '1 day' END,
            '', '', '', '', '{}', '{}', now(), now())
""")


def add_user(
    engine: Engine,
    email: str | None = None,
    *,
    aud: str = "authenticated",
    verified: bool = True,
    deleted: bool = False,
    banned: bool = False,
    profile: bool = False,
) -> UUID:
    """Add a user in scope unless told otherwise; without `profile` the one that the trigger made is taken away."""
    user_id = uuid4()
    with engine.begin() as connection:
        connection.execute(
            _USER,
            {
                "instance": _NO_INSTANCE,
                "id": user_id,
                "aud": aud,
                "email": email,
                "verified": verified,
                "deleted": deleted,
                "banned": banned,
            },
        )
    if not profile:
        execute(engine, "DELETE FROM user_profiles WHERE id = :id", id=user_id)
    return user_id


def execute(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def profile_ids(engine: Engine) -> set[UUID]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT id FROM user_profiles")))


def refuse_profiles_of(engine: Engine, user_ids: Iterable[UUID]) -> None:
    """Let the table refuse these users, as a constraint of an application would."""
    refused = ", ".join(f"'{user_id}'" for user_id in user_ids)
    execute(engine, f"ALTER TABLE user_profiles ADD CONSTRAINT refused_here CHECK (id NOT IN ({refused}))")
