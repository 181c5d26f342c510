"""The Supabase door where HTTP shows: pages and totals, refusals, answers that no Supabase project gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, make_url, text
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.profiles import supabase_client
from user_sync_pipeline.core.profiles.directory import open_directory
from user_sync_pipeline.core.profiles.reconcile import find_findings, sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.http_server import HttpServer
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.conftest import supabase_on
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, refuse_profiles_of

KEY = "sb_secret_of_the_tests"
REPORT = {
    "total_auth_users": 3,
    "total_user_profiles": 2,
    "missing_profiles": 1,
    "orphan_profiles": 0,
    "soft_deleted_users": 0,
    "users_outside_api": 0,
    "trigger_installed": True,
}
MANY = 1200
METADATA = (
    '{"full_name": "  Ada Byron ", "avatar_url": "https://example.com/a", "role": "admin"}',
    '{"full_name": {"first": "x"}, "avatar_url": 7}',
    '{"full_name": "   "}',
    "{}",
)


@pytest.fixture
def supabase(
    postgres_server: PostgresServer, migrated_database: str, authority: CertificateAuthority
) -> Iterator[SupabaseSimulator]:
    database = make_url(migrated_database).database or ""
    with supabase_on(postgres_server, database, authority) as simulator:
        yield simulator


@pytest.fixture
def directory(supabase: SupabaseSimulator, authority: CertificateAuthority) -> Iterator[SupabaseDirectory]:
    with SupabaseDirectory(supabase.url, supabase.keys.secret_key, ca_bundle=str(authority.ca_file)) as directory:
        yield directory


@pytest.fixture
def without_functions(engine: Engine) -> None:
    """A project on which nobody installed our functions: only the admin API is left."""
    execute(engine, "DROP FUNCTION profile_sync_report(); DROP FUNCTION profile_backfill(integer, uuid, uuid)")


class ScriptedProject:
    """Answers the requests in order, the last answer for ever, and remembers their paths."""

    def __init__(self, *answers: Callable[[], Response]) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._answers = list(answers)
        self._lock = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            with self._lock:
                self.asked.append(Request(scope).url.path)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            await answer()(scope, receive, send)


Serve = Callable[..., tuple[SupabaseDirectory, ScriptedProject]]


@pytest.fixture
def scripted(authority: CertificateAuthority) -> Iterator[Serve]:
    servers: list[HttpServer] = []
    directories: list[SupabaseDirectory] = []

    def serve(*answers: Callable[[], Response]) -> tuple[SupabaseDirectory, ScriptedProject]:
        project = ScriptedProject(*answers)
        servers.append(HttpServer(project, authority))
        servers[-1].start()
        project.url = servers[-1].url
        directories.append(SupabaseDirectory(project.url, KEY, ca_bundle=str(authority.ca_file)))
        return directories[-1], project

    yield serve
    for directory in directories:
        directory.close()
    for server in servers:
        server.stop()


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Callable[[], Response]:
    return lambda: JSONResponse(value, status, headers)


NO_FUNCTION = json_answer({"code": "PGRST202", "message": "no such function", "details": None, "hint": None}, 404)
NO_PROFILES = json_answer([], headers={"Content-Range": "*/0"})


# Pages and totals ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("without_functions")
def test_more_users_and_profiles_than_a_page_holds_are_all_counted(
    engine: Engine, directory: SupabaseDirectory
) -> None:
    execute(
        engine,
        """
        INSERT INTO auth.users (instance_id, id, aud, role, email, created_at, updated_at, raw_app_meta_data,
                                raw_user_meta_data, confirmation_token, recovery_token, email_change,
                                email_change_token_new)
        SELECT '00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated',
               'user' || n || '@example.com', now() - n * interval '1 second', now(), '{}', '{}', '', '', '', ''
        FROM generate_series(1, CAST(:count AS integer)) AS n
        """,
        count=MANY,
    )
    execute(engine, "DELETE FROM user_profiles WHERE id IN (SELECT id FROM user_profiles ORDER BY id LIMIT 700)")

    before, created, after = directory.status(), sync_profiles(directory).profiles_created, directory.status()

    assert (before.total_auth_users, before.total_user_profiles, before.missing_profiles) == (MANY, MANY - 700, 700)
    assert created == 700
    assert (after.total_user_profiles, after.missing_profiles) == (MANY, 0)
    assert (before.method, before.exactness, after.exactness) == ("api", "exact", "exact")


# The same profiles, the same refusals, by whichever way ---------------------------------------------------------------


@pytest.mark.slow
def test_all_three_ways_make_the_same_profiles_and_find_the_same(engine: Engine, directory: SupabaseDirectory) -> None:
    users = [add_user(engine, f"User{number}@example.com") for number in range(len(METADATA))]
    users.append(add_user(engine))
    for user_id, metadata in zip(users, METADATA, strict=False):
        execute(
            engine,
            "UPDATE auth.users SET raw_user_meta_data = CAST(:m AS jsonb) WHERE id = :id",
            id=user_id,
            m=metadata,
        )
    execute(engine, "UPDATE auth.users SET phone = '12025550123' WHERE id = :id", id=users[-1])

    made: list[dict[UUID, dict[str, Any]]] = []
    for door in (SqlDirectory(engine), directory, directory):
        if made:
            execute(engine, "TRUNCATE user_profiles")
        if len(made) == 2:
            execute(engine, "DROP FUNCTION profile_sync_report(); DROP FUNCTION profile_backfill(integer, uuid, uuid)")
        with engine.begin() as connection:
            findings = find_findings(door, connection)
        assert sorted(findings.column("auth_user_id").to_pylist()) == sorted(map(str, users))
        assert sync_profiles(door).profiles_created == len(users)
        made.append(stored_profiles(engine))

    assert made[0] == made[1] == made[2]
    assert {profile["role"] for profile in made[0].values()} == {"user"}
    assert made[0][users[0]]["full_name"] == "Ada Byron"


def stored_profiles(engine: Engine) -> dict[UUID, dict[str, Any]]:
    with engine.connect() as connection:
        columns = "id, email, phone, full_name, avatar_url, role, source"
        rows = connection.execute(text(f"SELECT {columns} FROM user_profiles"))
        return {row["id"]: dict(row) for row in rows.mappings()}


@pytest.mark.slow
@pytest.mark.usefixtures("without_functions")
def test_a_user_who_vanished_and_one_who_is_refused_are_told_apart(
    engine: Engine, directory: SupabaseDirectory
) -> None:
    users = [add_user(engine, f"user{number}@example.com") for number in range(4)]
    refuse_profiles_of(engine, users[2:3])
    execute(
        engine,
        f"""
        CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.id = '{users[1]}' THEN new.id = gen_random_uuid(); END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER vanish BEFORE INSERT ON user_profiles FOR EACH ROW EXECUTE FUNCTION vanish();
        """,
    )

    result = sync_profiles(directory)

    assert (result.profiles_created, result.vanished_users) == (2, 1)
    assert [failure.user_id for failure in result.failures] == users[2:3]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rpc", "api"])
def test_what_the_server_says_about_a_row_is_not_repeated(
    engine: Engine, directory: SupabaseDirectory, way: str
) -> None:
    add_user(engine, "somebody@example.com")
    execute(
        engine,
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'not %', new.email USING DETAIL = new.email; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_profiles FOR EACH ROW EXECUTE FUNCTION refuse();
        """,
    )
    if way == "api":
        execute(engine, "DROP FUNCTION profile_sync_report(); DROP FUNCTION profile_backfill(integer, uuid, uuid)")

    assert [failure.reason for failure in sync_profiles(directory).failures] == ["SQLSTATE P0001"]


# Keys, rights, certificates -----------------------------------------------------------------------------------------


def test_a_key_of_another_project_is_refused_and_not_repeated(
    supabase: SupabaseSimulator, authority: CertificateAuthority
) -> None:
    with (
        SupabaseDirectory(supabase.url, KEY, ca_bundle=str(authority.ca_file)) as directory,
        pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY is refused") as refused,
    ):
        directory.status()
    assert KEY not in str(refused.value)


def test_a_publishable_key_is_refused_before_any_request(supabase: SupabaseSimulator) -> None:
    settings = SupabaseSettings(url="https://localhost:9", service_role_key=supabase.keys.publishable_key)
    with pytest.raises(ConfigurationError, match="publishable"):
        open_directory(settings)


def test_the_signed_service_key_of_former_years_is_taken(
    supabase: SupabaseSimulator, authority: CertificateAuthority
) -> None:
    key = supabase.keys.service_role_key
    with SupabaseDirectory(supabase.url, key, ca_bundle=str(authority.ca_file)) as directory:
        assert directory.status().method == "rpc"


def test_a_missing_grant_is_explained(engine: Engine, directory: SupabaseDirectory) -> None:
    execute(engine, "REVOKE EXECUTE ON FUNCTION profile_sync_report() FROM service_role")
    with pytest.raises(ConfigurationError, match="may not use function profile_sync_report"):
        directory.status()


def test_a_certificate_that_is_not_trusted_names_the_setting(supabase: SupabaseSimulator) -> None:
    with (
        SupabaseDirectory(supabase.url, supabase.keys.secret_key) as directory,
        pytest.raises(ConfigurationError, match="SUPABASE_CA_BUNDLE"),
    ):
        directory.status()


# Answers that are none ----------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(scripted: Serve) -> None:
    _, elsewhere = scripted(json_answer([REPORT]))
    directory, _ = scripted(lambda: RedirectResponse(elsewhere.url, 302))

    with pytest.raises(ConfigurationError, match="redirect"):
        directory.status()

    assert elsewhere.asked == []


def test_a_failure_that_passes_is_asked_again(scripted: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supabase_client, "_PAUSES", (0.01, 0.01))
    busy = json_answer({"message": "busy"}, 503)
    directory, project = scripted(busy, lambda: HTMLResponse("<h1>Bad gateway</h1>", 502), json_answer([REPORT]))

    assert directory.status().missing_profiles == 1
    assert project.asked == ["/rest/v1/rpc/profile_sync_report"] * 3


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (json_answer({"message": "busy"}, 503), UnreachableError, "HTTP 503"),
        (lambda: HTMLResponse("<h1>Bad gateway</h1>", 502), UnreachableError, "HTTP 502"),
        (json_answer({"code": "57014", "message": "canceled"}, 500), UnreachableError, "57014"),
        (lambda: Response(status_code=401), ConfigurationError, "is refused"),
        (lambda: HTMLResponse("<h1>Welcome</h1>"), ConfigurationError, "as a Supabase project does"),
        (lambda: HTMLResponse("<h1>Not found</h1>", 404), ConfigurationError, "as a Supabase project does"),
        (json_answer([{"total": 1}]), ConfigurationError, "another version"),
    ],
)
def test_an_answer_that_is_none_is_explained(
    scripted: Serve,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[], Response],
    error: type[Exception],
    says: str,
) -> None:
    monkeypatch.setattr(supabase_client, "_PAUSES", (0.01, 0.01))
    directory, _ = scripted(answer)

    with pytest.raises(error, match=says) as explained:
        directory.status()

    assert "SUPABASE_" in str(explained.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: HTMLResponse("<h1>Welcome</h1>"), "as a Supabase project does"),
        (json_answer({"users": [{"id": "x"}]}), "as a Supabase project does"),
    ],
)
def test_a_page_of_users_that_is_none_is_explained(scripted: Serve, answer: Callable[[], Response], says: str) -> None:
    directory, _ = scripted(NO_FUNCTION, json_answer({"users": []}), NO_PROFILES, answer)

    with pytest.raises(ConfigurationError, match=says):
        directory.status()


def test_a_page_of_profiles_that_is_none_is_explained(scripted: Serve) -> None:
    directory, _ = scripted(NO_FUNCTION, json_answer({"users": []}), lambda: HTMLResponse("<h1>Welcome</h1>"))

    with pytest.raises(ConfigurationError, match="as a Supabase project does"):
        directory.status()
