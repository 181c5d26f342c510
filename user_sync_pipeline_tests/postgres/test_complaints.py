"""What people complain about elsewhere when sign-ups and profiles are kept in step, and that it does not happen here.

The numbers are those of the table in `docs/profiles-cases.md`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from starlette.responses import JSONResponse, Response

import user_sync_pipeline
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.profiles import sql_directory
from user_sync_pipeline.core.profiles.installation import verify_installation
from user_sync_pipeline.core.profiles.reconcile import sync_profiles
from user_sync_pipeline.core.profiles.report import format_status
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.http_server import HttpServer
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url
from user_sync_pipeline_tests.end_to_end.commands import run_json
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids

# How the sign-in service makes a user: first the row, and only then the role and what the administrator said of it.
SIGN_UP = """
    INSERT INTO auth.users (instance_id, id, aud, role, email, raw_app_meta_data, raw_user_meta_data)
    VALUES ('00000000-0000-0000-0000-000000000000', :id, 'authenticated', '', :email, '{}', CAST(:metadata AS jsonb));
"""
SECOND_STEP = """
    UPDATE auth.users SET role = 'authenticated', raw_app_meta_data = '{"role": "admin"}', email_confirmed_at = now()
    WHERE id = :id
"""
REPORT = {
    "total_auth_users": 3,
    "total_user_profiles": 2,
    "missing_profiles": 1,
    "orphan_profiles": 0,
    "soft_deleted_users": 0,
    "users_outside_api": 0,
    "trigger_installed": True,
}


def sign_up(engine: Engine, email: str = "ann@example.com", metadata: dict[str, Any] | None = None) -> UUID:
    user_id = uuid4()
    with engine.begin() as connection:
        values = {"id": user_id, "email": email, "metadata": json.dumps(metadata or {})}
        connection.execute(text(SIGN_UP), values)
        connection.execute(text(SECOND_STEP), {"id": user_id})
    return user_id


def scalar(engine: Engine, query: str, **values: object) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query), values).scalar_one()


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def as_role(engine: Engine, role: str, user_id: UUID | None, statement: str) -> int:
    """Run a statement as a role of the API, for that user; returns how many rows it was about."""
    with engine.begin() as connection:
        claims = json.dumps({"role": role, "sub": str(user_id)})
        connection.execute(text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        return connection.execute(text(statement)).rowcount


def program_texts() -> Iterator[tuple[Path, str]]:
    """Every file of the program, and of its SQL, without comments."""
    package = Path(user_sync_pipeline.__file__).parent
    for file in (*package.rglob("*.py"), *shipped_path("sql").rglob("*.sql")):
        if "sandbox" not in file.parts:
            yield file, re.sub(r"^\s*(--|#).*$", "", file.read_text(), flags=re.MULTILINE)


@pytest.fixture
def serve(authority: CertificateAuthority) -> Iterator[Callable[[Callable[[], Response]], SupabaseDirectory]]:
    """Make a project that has one answer to everything."""
    started: list[HttpServer | SupabaseDirectory] = []

    def make(answer: Callable[[], Response]) -> SupabaseDirectory:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await answer()(scope, receive, send)

        server = HttpServer(app, authority)
        server.start()
        door = SupabaseDirectory(server.url, "sb_secret_of_the_tests", ca_bundle=str(authority.ca_file))
        started.extend((server, door))
        return door

    yield make
    for one in reversed(started):
        one.close() if isinstance(one, SupabaseDirectory) else one.stop()


@pytest.mark.parametrize(
    "fault",
    [
        "ALTER TABLE user_profiles RENAME TO profiles",
        "ALTER TABLE user_profiles RENAME email TO mail",
        "ALTER TABLE user_profiles ADD team text NOT NULL",
    ],
)
def test_complaint_01_no_fault_of_the_profiles_stops_a_sign_up(engine: Engine, fault: str) -> None:
    execute(engine, fault)
    user_id = sign_up(engine)
    assert scalar(engine, "SELECT count(*) FROM auth.users WHERE id = :id", id=user_id) == 1
    noted = scalar(engine, "SELECT sqlstate FROM app_private.profile_failures WHERE user_id = :id", id=user_id)
    assert noted in ("42P01", "42703", "23502")


@pytest.mark.slow
def test_complaint_02_a_sign_in_never_waits_for_the_profiles(profiles: Engine) -> None:
    user_id = sign_up(profiles)
    with psycopg.connect(url_of(profiles).replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE user_profiles IN ACCESS EXCLUSIVE MODE")
        execute(
            profiles,
            "SET LOCAL lock_timeout = '2s'; UPDATE auth.users SET last_sign_in_at = now(), updated_at = now()",
        )
        other.rollback()
    assert user_id in profile_ids(profiles)
    events = "SELECT DISTINCT event_manipulation FROM information_schema.triggers WHERE event_object_schema = 'auth'"
    assert scalar(profiles, events) == "INSERT"


@pytest.mark.slow
def test_complaint_03_seventy_users_are_seventy_through_every_door(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    for number in range(70):
        add_user(profiles, f"{number}@example.com", profile=number % 2 == 0)
    for door in (SqlDirectory(profiles), api_door):
        status = door.status()
        assert (status.total_auth_users, status.missing_profiles, status.exactness) == (70, 35, "exact")


def test_complaint_04_any_number_of_users_is_counted_by_one_statement(profiles: Engine) -> None:
    add_user(profiles)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(profiles, "before_cursor_execute", note)
    try:
        assert SqlDirectory(profiles).status().total_auth_users == 1
    finally:
        event.remove(profiles, "before_cursor_execute", note)
    counting = [statement for statement in statements if "auth.users" in statement]
    assert len(counting) == 1
    assert "OFFSET" not in counting[0]


def test_complaint_05_users_inserted_by_hand_break_neither_status_nor_sync(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", url_of(profiles))
    execute(profiles, "INSERT INTO auth.users (id, aud) VALUES (gen_random_uuid(), 'authenticated')")
    execute(profiles, "DELETE FROM user_profiles")
    assert run_json("status")["missing_profiles"] == 1
    assert run_json("sync")["profiles_created"] == 1
    assert run_json("status")["sync_percentage"] == 100


def test_complaint_06_what_the_administrator_says_of_a_new_user_comes_too_late_for_the_profile(
    profiles: Engine,
) -> None:
    user_id = sign_up(profiles)
    assert scalar(profiles, "SELECT role FROM user_profiles") == "user"
    assert as_role(profiles, "service_role", None, "UPDATE user_profiles SET role = 'admin'") == 1
    sync_profiles(SqlDirectory(profiles), preserve=False)
    assert scalar(profiles, "SELECT role FROM user_profiles WHERE id = :id", id=user_id) == "admin"


def test_complaint_07_nobody_makes_himself_an_administrator(profiles: Engine) -> None:
    metadata = {"role": "admin", "user_role": "admin", "is_admin": True, "full_name": "Mallory"}
    by_trigger, by_sync = sign_up(profiles, metadata=metadata), sign_up(profiles, "b@example.com", metadata)
    execute(profiles, "DELETE FROM user_profiles WHERE id = :id", id=by_sync)
    sync_profiles(SqlDirectory(profiles), preserve=False)
    roles = "SELECT string_agg(role, ',') FROM user_profiles"
    assert scalar(profiles, roles) == "user,user"
    with pytest.raises(Exception, match="permission denied"):
        as_role(profiles, "authenticated", by_trigger, "UPDATE user_profiles SET role = 'admin'")
    execute(profiles, "UPDATE auth.users SET raw_app_meta_data = '{}'")
    assert as_role(profiles, "authenticated", by_trigger, "UPDATE user_profiles SET full_name = 'M'") == 1
    assert scalar(profiles, roles) == "user,user"


@pytest.mark.parametrize(
    "loss",
    [
        "DROP FUNCTION app_private.handle_new_auth_user() CASCADE",
        "ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created",
    ],
)
def test_complaint_08_a_trigger_that_got_lost_is_seen_and_the_mend_is_named(
    engine: Engine, postgres_server: PostgresServer, loss: str
) -> None:
    with psycopg.connect(postgres_server.url(str(engine.url.database)), autocommit=True) as superuser:
        superuser.execute(loss.encode())
    assert "Sign-Up Trigger:      missing or disabled" in format_status(SqlDirectory(engine).status(), verbose=True)
    with engine.connect() as connection:
        deviations = verify_installation(connection)
    assert deviations
    assert all(deviation.mend for deviation in deviations)


def test_complaint_09_who_may_not_drop_the_trigger_takes_it_away_nevertheless(engine: Engine) -> None:
    with psycopg.connect(url_of(engine).replace("+psycopg", ""), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TRIGGER on_auth_user_created ON auth.users")
        connection.execute((shipped_path("sql/migrations") / "0002_profiles_side.down.sql").read_bytes())
    assert scalar(engine, "SELECT count(*) FROM pg_trigger WHERE tgname = 'on_auth_user_created'") == 0
    sign_up(engine)


def test_complaint_10_no_trigger_is_ever_dropped_by_name() -> None:
    dropping = [file.name for file, source in program_texts() if re.search(r"\bDROP\s+TRIGGER\b", source)]
    assert [name for name in dropping if name.endswith(".sql")] == []


def test_complaint_11_a_user_can_be_deleted_and_takes_the_profile_along(profiles: Engine) -> None:
    user_id = sign_up(profiles)
    execute(profiles, "INSERT INTO app_private.profile_failures VALUES (:id, '23505', 'x')", id=user_id)
    execute(profiles, "DELETE FROM auth.users WHERE id = :id", id=user_id)
    assert profile_ids(profiles) == set()
    keys = """
        SELECT string_agg(DISTINCT confdeltype::text, '') FROM pg_constraint
        WHERE contype = 'f' AND confrelid = 'auth.users'::regclass AND connamespace <> 'auth'::regnamespace
    """
    assert scalar(profiles, keys) == "c"


def test_complaint_12_nobody_signs_in_on_the_client_that_holds_the_service_key() -> None:
    signing_in = re.compile(r"\.auth\b|\b(sign_in_with|sign_up\(|set_session|refresh_session)")
    program = [(file, source) for file, source in program_texts() if file.name.startswith("supabase_")]
    assert [file.name for file, source in program if signing_in.search(source)] == []


@pytest.mark.slow
def test_complaint_13_a_slow_answer_is_waited_for(
    serve: Callable[[Callable[[], Response]], SupabaseDirectory],
) -> None:
    def late() -> Response:
        time.sleep(6)
        return JSONResponse([REPORT])

    assert serve(late).status().missing_profiles == 1


@pytest.mark.slow
def test_complaint_14_what_a_server_cuts_off_at_a_thousand_rows_is_read_to_the_end(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    execute(
        profiles,
        """
        INSERT INTO auth.users (instance_id, id, aud, role, created_at, updated_at, raw_app_meta_data,
                                raw_user_meta_data, confirmation_token, recovery_token, email_change,
                                email_change_token_new)
        SELECT '00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated', now(),
               now(), '{}', '{}', '', '', '', ''
        FROM generate_series(1, 1050)
        """,
    )
    status = api_door.status()
    assert (status.total_auth_users, status.total_user_profiles, status.missing_profiles) == (1050, 1050, 0)


def test_complaint_15_what_was_written_before_the_answer_got_lost_is_neither_lost_nor_made_twice(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_directory, "SLICE", 4)
    users = {add_user(profiles, f"{number}@example.com") for number in range(10)}

    def break_off(_: object) -> None:
        raise ConnectionError("the answer was lost")

    with pytest.raises(ConnectionError):
        sync_profiles(SqlDirectory(profiles), progress=break_off)
    assert len(profile_ids(profiles)) == 4
    result = sync_profiles(SqlDirectory(profiles))
    assert (result.existing_profiles, result.profiles_created, result.failures) == (4, 6, ())
    assert profile_ids(profiles) == users


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["new grants", "legacy grants"])
def test_complaint_16_the_service_key_reaches_the_profiles_and_a_visitor_does_not(
    legacy: bool, profiles: Engine, make_supabase_database: Callable[..., str], postgres_server: PostgresServer
) -> None:
    engine = profiles
    if legacy:
        url = role_url(postgres_server, make_supabase_database(legacy_default_grants=True))
        apply_migrations(database_url=url, profiles_url=url)
        engine = create_database_engine(url)
    sign_up(engine)
    assert as_role(engine, "service_role", None, "SELECT FROM user_profiles") == 1
    for role, relation in (("anon", "user_profiles"), ("anon", "sf_users"), ("authenticated", "sf_users")):
        with pytest.raises(Exception, match="permission denied"):
            as_role(engine, role, None, f"SELECT FROM {relation}")
    if legacy:
        engine.dispose()


def test_complaint_17_a_key_that_is_refused_without_a_word_is_explained(
    serve: Callable[[Callable[[], Response]], SupabaseDirectory],
) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY") as refused:
        serve(lambda: Response(status_code=401)).status()
    assert "sb_secret_of_the_tests" not in str(refused.value)


def test_complaint_18_no_table_of_ours_is_open_to_everybody(profiles: Engine) -> None:
    unprotected = """
        SELECT count(*) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relrowsecurity
          AND relname <> 'alembic_version'
    """
    assert scalar(profiles, unprotected) == 0
    views = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')"
    assert scalar(profiles, views) == 0
