"""The profiles side as a sign-up, a user, a visitor and the service key meet it, in both modes of default grants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url

Connection = psycopg.Connection[dict[str, Any]]

SIGN_UP = """
    INSERT INTO auth.users (instance_id, id, aud, role, email, phone, raw_app_meta_data, raw_user_meta_data)
    VALUES ('00000000-0000-0000-0000-000000000000', %(id)s, 'authenticated', '', %(email)s, %(phone)s,
            '{"provider": "email", "role": "admin"}', %(metadata)s)
"""


def script(direction: str) -> bytes:
    return (shipped_path("sql/migrations") / f"0002_profiles_side.{direction}.sql").read_bytes()


@pytest.fixture(scope="module", params=[False, True], ids=["new grants", "legacy grants"])
def database(
    request: pytest.FixtureRequest, make_supabase_database: Callable[..., str], postgres_server: PostgresServer
) -> str:
    name = make_supabase_database(legacy_default_grants=request.param)
    with psycopg.connect(role_url(postgres_server, name)) as connection:
        connection.execute(script("up"))
    return name


@pytest.fixture
def connection(postgres_server: PostgresServer, database: str) -> Iterator[Connection]:
    """A superuser's connection, to take on any role; nothing of it is ever committed."""
    with psycopg.connect(postgres_server.url(database), row_factory=dict_row) as connection:
        yield connection
        connection.rollback()


def become(connection: Connection, role: str, user_id: UUID | None = None) -> None:
    claims = json.dumps({"role": role, "sub": str(user_id)} if user_id else {"role": role})
    connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
    connection.execute(f"SET LOCAL ROLE {role}".encode())


def sign_up(
    connection: Connection,
    *,
    email: str | None = "a@example.com",
    phone: str | None = None,
    metadata: Any = None,
) -> UUID:
    """Sign up as GoTrue does it; returns the id of the user, who is there."""
    user_id = uuid4()
    become(connection, "supabase_auth_admin")
    connection.execute("SET LOCAL search_path = auth")
    connection.execute(SIGN_UP, {"id": user_id, "email": email, "phone": phone, "metadata": metadata})
    connection.execute("RESET ROLE")
    connection.execute("SET LOCAL search_path = public")
    assert connection.execute("SELECT FROM auth.users WHERE id = %s", [user_id]).rowcount == 1
    return user_id


def profile(connection: Connection, user_id: UUID) -> dict[str, Any] | None:
    return connection.execute("SELECT * FROM public.user_profiles WHERE id = %s", [user_id]).fetchone()


def failure(connection: Connection, user_id: UUID) -> dict[str, Any] | None:
    return connection.execute("SELECT * FROM app_private.profile_failures WHERE user_id = %s", [user_id]).fetchone()


@pytest.mark.slow
def test_a_sign_up_creates_the_profile(connection: Connection) -> None:
    user_id = sign_up(connection, metadata=Jsonb({"full_name": "  Ada Byron ", "avatar_url": "https://example.com/a"}))

    created = profile(connection, user_id)
    assert created is not None
    assert {name: created[name] for name in ("email", "phone", "full_name", "avatar_url", "role", "source")} == {
        "email": "a@example.com",
        "phone": None,
        "full_name": "Ada Byron",
        "avatar_url": "https://example.com/a",
        "role": "user",
        "source": "trigger",
    }


def test_a_role_in_the_metadata_is_ignored(connection: Connection) -> None:
    user_id = sign_up(connection, metadata=Jsonb({"role": "admin", "user_role": "admin", "is_admin": True}))

    created = profile(connection, user_id)
    assert created is not None
    assert created["role"] == "user"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        Jsonb(None),
        Jsonb([{"full_name": "x"}]),
        Jsonb("text"),
        Jsonb(1),
        Jsonb({}),
        Jsonb({"full_name": None, "avatar_url": 7}),
        Jsonb({"full_name": {"first": "x"}, "avatar_url": ["x"]}),
        Jsonb({"full_name": "   "}),
    ],
    ids=repr,
)
def test_metadata_that_holds_no_name_gives_a_profile_without_one(connection: Connection, metadata: Any) -> None:
    created = profile(connection, sign_up(connection, metadata=metadata))

    assert created is not None
    assert (created["full_name"], created["avatar_url"]) == (None, None)


def test_long_metadata_is_cut_to_what_the_table_takes(connection: Connection) -> None:
    created = profile(
        connection, sign_up(connection, metadata=Jsonb({"full_name": "é" * 9000, "avatar_url": "a" * 9000}))
    )

    assert created is not None
    assert (len(created["full_name"]), len(created["avatar_url"])) == (200, 2000)


def test_users_without_an_e_mail_get_profiles_with_null(connection: Connection) -> None:
    users = [sign_up(connection, email=None), sign_up(connection, email="", phone="12025550123")]

    assert [(profile(connection, user) or {})["email"] for user in users] == [None, None]


def test_users_who_share_an_e_mail_get_a_profile_each(connection: Connection) -> None:
    first = sign_up(connection, email="shared@example.com")
    connection.execute("UPDATE auth.users SET is_sso_user = true")
    second = sign_up(connection, email="shared@example.com")

    assert [(profile(connection, user) or {})["email"] for user in (first, second)] == ["shared@example.com"] * 2


def test_a_user_of_another_audience_gets_no_profile(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO auth.users (id, aud) VALUES (gen_random_uuid(), 'other'), (gen_random_uuid(), NULL)"
    )

    assert connection.execute("SELECT FROM public.user_profiles").rowcount == 0
    assert connection.execute("SELECT FROM app_private.profile_failures").rowcount == 0


def test_deleting_a_user_takes_the_profile_and_the_failure_along(connection: Connection) -> None:
    user_id = sign_up(connection)
    connection.execute("INSERT INTO app_private.profile_failures VALUES (%s, '23505', 'x')", [user_id])
    become(connection, "supabase_auth_admin")
    connection.execute("DELETE FROM auth.users WHERE id = %s", [user_id])
    connection.execute("RESET ROLE")

    assert profile(connection, user_id) is None
    assert failure(connection, user_id) is None


def test_a_user_sees_and_edits_only_the_own_profile(connection: Connection) -> None:
    mine, other = sign_up(connection), sign_up(connection, email="b@example.com")
    become(connection, "authenticated", mine)

    assert connection.execute("SELECT id FROM public.user_profiles").fetchall() == [{"id": mine}]
    assert connection.execute("UPDATE public.user_profiles SET full_name = 'New'").rowcount == 1
    connection.execute("RESET ROLE")
    names = [(profile(connection, user_id) or {})["full_name"] for user_id in (mine, other)]
    assert names == ["New", None]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE public.user_profiles SET role = 'admin'",
        "UPDATE public.user_profiles SET full_name = 'New', role = 'admin'",
        "UPDATE public.user_profiles SET id = gen_random_uuid()",
        "UPDATE public.user_profiles SET email = 'x@example.com'",
        "INSERT INTO public.user_profiles (id) VALUES (gen_random_uuid())",
        "DELETE FROM public.user_profiles",
        "TRUNCATE public.user_profiles",
        "SELECT public.profile_sync_report()",
        "SELECT public.profile_backfill(1)",
        "SELECT app_private.create_profiles(NULL)",
        "SELECT FROM app_private.profile_failures",
    ],
)
def test_a_user_may_not(connection: Connection, statement: str) -> None:
    become(connection, "authenticated", sign_up(connection))

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM public.user_profiles",
        "UPDATE public.user_profiles SET full_name = 'New'",
        "SELECT public.profile_sync_report()",
        "SELECT public.profile_backfill(1)",
        "SELECT FROM app_private.profile_failures",
    ],
)
def test_a_visitor_may_not(connection: Connection, statement: str) -> None:
    become(connection, "anon")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_the_service_key_reads_and_writes_profiles_and_nothing_else(connection: Connection) -> None:
    user_id = sign_up(connection)
    become(connection, "service_role")

    assert connection.execute("UPDATE public.user_profiles SET role = 'admin' WHERE id = %s", [user_id]).rowcount == 1
    report = connection.execute("SELECT * FROM public.profile_sync_report()").fetchone()
    assert report is not None
    assert (report["total_auth_users"], report["missing_profiles"], report["trigger_installed"]) == (1, 0, True)
    for statement in ("DELETE FROM public.user_profiles", "SELECT FROM auth.users"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement.encode())


def test_the_role_of_a_profile_comes_from_a_list(connection: Connection) -> None:
    user_id = sign_up(connection)

    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("UPDATE public.user_profiles SET role = 'root' WHERE id = %s", [user_id])


def test_a_change_to_a_profile_is_dated(connection: Connection) -> None:
    user_id = sign_up(connection)
    connection.execute("UPDATE public.user_profiles SET created_at = created_at - interval '1 day'")

    changed = profile(connection, user_id)
    assert changed is not None
    assert changed["updated_at"] > changed["created_at"]


def test_no_function_can_be_led_astray_by_a_search_path(connection: Connection) -> None:
    functions = connection.execute(
        """
        SELECT proconfig FROM pg_proc
        WHERE pronamespace = 'app_private'::regnamespace OR starts_with(proname, 'profile_')
        """
    ).fetchall()

    assert len(functions) == 7
    assert all('search_path=""' in function["proconfig"] for function in functions)


def test_the_report_does_not_call_a_disabled_trigger_installed(connection: Connection) -> None:
    connection.execute("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created")

    report = connection.execute("SELECT trigger_installed FROM public.profile_sync_report()").fetchone()

    assert report == {"trigger_installed": False}


def test_the_way_back_removes_everything_that_the_pipeline_made(connection: Connection) -> None:
    sign_up(connection)
    become(connection, "postgres")
    connection.execute(script("down"))

    assert connection.execute("SELECT to_regclass('public.user_profiles') AS t").fetchone() == {"t": None}
    assert connection.execute("SELECT to_regnamespace('app_private') AS s").fetchone() == {"s": None}
    assert connection.execute("SELECT FROM pg_trigger WHERE tgname = 'on_auth_user_created'").rowcount == 0
    connection.execute("RESET ROLE")
    sign_up(connection, email="later@example.com")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE public.user_profiles SET source = 'manual', updated_at = created_at",
        "UPDATE public.user_profiles SET created_at = created_at - interval '1 day'",
    ],
    ids=["made by an application", "changed later"],
)
def test_the_way_back_keeps_profiles_that_others_made_or_changed(connection: Connection, change: str) -> None:
    user_id = sign_up(connection)
    connection.execute(change.encode())
    become(connection, "postgres")
    connection.execute(script("down"))

    connection.execute("RESET ROLE")
    assert profile(connection, user_id) is not None
    sign_up(connection, email="meanwhile@example.com")
    become(connection, "postgres")
    connection.execute(script("up"))
    assert profile(connection, user_id) is not None
    assert profile(connection, sign_up(connection, email="again@example.com")) is not None


def test_a_table_that_somebody_else_made_is_left_alone(supabase_database: str) -> None:
    with psycopg.connect(supabase_database) as connection:
        connection.execute("CREATE TABLE public.user_profiles (user_id uuid)")
        with (
            pytest.raises(psycopg.errors.RaiseException, match=r"public\.user_profiles exists already"),
            connection.transaction(),
        ):
            connection.execute(script("up"))

        assert connection.execute("SELECT to_regnamespace('app_private')").fetchone() == (None,)
