"""The admin users of GoTrue, asked by the real client and by hand."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator, load_auth_users
from user_sync_pipeline.sandbox.supabase.auth_users import SPECIAL_USERS
from user_sync_pipeline_tests.conftest import ORG_MADE_AT, role_url, supabase_on

PEOPLE = 120
NO_ONE = "00000000-0000-4000-8000-000000000000"
VERSION = {"X-Supabase-Api-Version": "2024-01-01"}
CLEAN = (
    "DROP TABLE IF EXISTS public.profiles; DROP FUNCTION IF EXISTS public.add_profile CASCADE; DELETE FROM auth.users"
)
PROFILES = """
    CREATE TABLE public.profiles (id uuid PRIMARY KEY REFERENCES auth.users (id){on_delete}, seen jsonb);
    CREATE FUNCTION public.add_profile() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
    BEGIN
        INSERT INTO public.profiles (id, seen) VALUES (NEW.id, to_jsonb(NEW));
        RETURN NULL;
    END $$;
    CREATE TRIGGER on_user AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.add_profile();
"""


@pytest.fixture(scope="module")
def project(postgres_server: PostgresServer, make_supabase_database: Callable[..., str]) -> str:
    """The name of the database of one project for all tests of this file."""
    return make_supabase_database()


@pytest.fixture
def database(postgres_server: PostgresServer, project: str) -> str:
    """Address of the project's database as role postgres, with nothing left of the test before."""
    address = role_url(postgres_server, project)
    execute(address, CLEAN)
    return address


@pytest.fixture(scope="module")
def simulator(
    postgres_server: PostgresServer, authority: CertificateAuthority, project: str
) -> Iterator[SupabaseSimulator]:
    with supabase_on(postgres_server, project, authority) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def transport(simulator: SupabaseSimulator) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=simulator.environment()["SUPABASE_CA_BUNDLE"])
    with httpx.Client(verify=trust, trust_env=False) as client:
        yield client


@pytest.fixture
def http(simulator: SupabaseSimulator, database: str) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=simulator.environment()["SUPABASE_CA_BUNDLE"])
    key = {"apikey": simulator.keys.secret_key}
    with httpx.Client(base_url=f"{simulator.url}/auth/v1", verify=trust, headers=key, trust_env=False) as client:
        yield client


@pytest.fixture
def client(simulator: SupabaseSimulator, transport: httpx.Client, database: str) -> Any:
    from supabase import ClientOptions, create_client

    options = ClientOptions(httpx_client=transport, auto_refresh_token=False, persist_session=False)
    return create_client(simulator.url, simulator.keys.secret_key, options=options)


@pytest.fixture
def users(database: str) -> int:
    """Load users and return how many."""
    return load_auth_users(database, people(PEOPLE, seed=1, until=ORG_MADE_AT), with_special_users=True)


def execute(database: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.slow
def test_the_client_pages_through_all_users(client: Any, users: int) -> None:
    assert len(client.auth.admin.list_users()) == 50
    pages = [client.auth.admin.list_users(page=page, per_page=40) for page in range(1, 5)]
    listed = [user for page in pages for user in page]
    assert [len(page) for page in pages] == [40, 40, users - 80, 0]
    assert len({user.id for user in listed}) == len(listed) == users
    assert sum(user.is_anonymous for user in listed) == 3
    assert sum(user.deleted_at is not None for user in listed) == 2
    assert all(user.identities is None for user in listed)


def test_a_page_says_how_many_there_are_and_where_the_next_is(http: httpx.Client, users: int) -> None:
    answer = http.get("/admin/users?page=2&per_page=50")
    assert answer.headers["X-Total-Count"] == str(users)
    assert answer.headers["Link"] == (
        '</admin/users?page=3&per_page=50>; rel="next", </admin/users?page=3&per_page=50>; rel="last"'
    )
    assert set(answer.json()) == {"users", "aud"}
    last = http.get("/admin/users?page=3&per_page=50")
    assert last.headers["Link"] == '</admin/users?page=3&per_page=50>; rel="last"'
    assert len(last.json()["users"]) == users - 100
    beyond = http.get("/admin/users?page=9&per_page=50")
    assert (beyond.status_code, beyond.json()["users"]) == (200, [])


def test_users_come_newest_first_unless_asked_otherwise(http: httpx.Client, users: int) -> None:
    def created(**parameters: str) -> list[str]:
        answer = http.get("/admin/users", params={"per_page": "1000", **parameters})
        return [user["created_at"] for user in answer.json()["users"]]

    newest_first = created()
    assert len(newest_first) == users
    assert newest_first == sorted(newest_first, reverse=True)
    assert created(sort="created_at asc") == sorted(newest_first)
    assert created(sort="created_at") == newest_first


def test_a_filter_looks_into_email_and_full_name(http: httpx.Client, users: int) -> None:
    everyone = http.get("/admin/users?per_page=1000").json()["users"]
    someone = next(user for user in everyone if user["user_metadata"].get("full_name"))
    for text in (someone["email"][:8], someone["user_metadata"]["full_name"].upper()):
        found = http.get("/admin/users", params={"filter": text}).json()["users"]
        assert someone["id"] in {user["id"] for user in found}
    assert http.get("/admin/users", params={"filter": "no such person"}).headers["X-Total-Count"] == "0"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("page=x", 'Bad Pagination Parameters: strconv.ParseUint: parsing "x": invalid syntax'),
        ("per_page=-1", 'Bad Pagination Parameters: strconv.ParseUint: parsing "-1": invalid syntax'),
        ("per_page=0", "Bad Pagination Parameters: per_page must be greater than 0"),
        ("sort=email asc", "Bad Sort Parameters: bad field for sort 'email'"),
        (
            "sort=created_at up",
            "Bad Sort Parameters: bad direction for sort 'up', only 'asc' and 'desc' allowed",
        ),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(http: httpx.Client, query: str, message: str) -> None:
    answer = http.get(f"/admin/users?{query}", headers=VERSION)
    assert answer.status_code == 400
    assert answer.json() == {"code": "validation_failed", "message": message}
    assert answer.headers["X-Supabase-Api-Version"] == "2024-01-01"
    assert answer.headers["X-Sb-Error-Code"] == "validation_failed"
    old_form = http.get(f"/admin/users?{query}").json()
    assert old_form == {"code": 400, "error_code": "validation_failed", "msg": message}


def test_only_an_administrator_is_let_in(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    def answer(**headers: str) -> tuple[int, str]:
        response = http.get("/admin/users", headers={**headers, **VERSION})
        return response.status_code, response.json()["code"]

    assert answer(apikey=simulator.keys.publishable_key) == (403, "not_admin")
    assert answer(apikey=simulator.keys.anon_key) == (401, "no_authorization")
    user = f"Bearer {simulator.keys.sign('authenticated', sub=NO_ONE)}"
    assert answer(Authorization=user) == (403, "not_admin")
    assert answer(Authorization="Bearer x.y.z") == (403, "bad_jwt")


def test_rows_of_another_instance_or_audience_do_not_exist(http: httpx.Client, database: str) -> None:
    add = "INSERT INTO auth.users (id, instance_id, aud, email) VALUES (%s, %s, %s, %s) RETURNING id"
    execute(database, add, uuid.uuid4(), None, "authenticated", "a@example.com")
    execute(database, add, uuid.uuid4(), uuid.UUID(int=0), "other", "b@example.com")
    execute(database, add, uuid.uuid4(), uuid.UUID(int=0), None, "c@example.com")
    assert http.get("/admin/users").headers["X-Total-Count"] == "0"


@pytest.mark.parametrize(
    "damage",
    [
        "confirmation_token = NULL",
        "email_change_token_current = NULL",
        "role = NULL",
        "updated_at = NULL",
        "raw_user_meta_data = '[]'",
        "raw_app_meta_data = '\"text\"'",
    ],
)
def test_one_row_that_gotrue_cannot_read_breaks_its_whole_page(
    http: httpx.Client, users: int, database: str, damage: str
) -> None:
    newest = "(SELECT id FROM auth.users ORDER BY created_at DESC LIMIT 1)"
    ((user_id,),) = execute(database, f"UPDATE auth.users SET {damage} WHERE id = {newest} RETURNING id")
    broken = http.get("/admin/users?per_page=10", headers=VERSION)
    assert broken.status_code == 500
    assert broken.json() == {"code": "unexpected_failure", "message": "Database error finding users"}
    assert http.get("/admin/users?per_page=10&page=2").status_code == 200
    assert http.get(f"/admin/users/{user_id}").status_code == 500


def test_metadata_that_is_json_null_stays_null(http: httpx.Client, users: int, database: str) -> None:
    execute(database, "UPDATE auth.users SET raw_user_meta_data = 'null', raw_app_meta_data = NULL")
    user = http.get("/admin/users").json()["users"][0]
    assert (user["user_metadata"], user["app_metadata"]) == (None, {})


def test_a_user_is_shown_without_what_is_empty_or_secret(http: httpx.Client) -> None:
    created = http.post("/admin/users", json={"email": "New.Person@Example.com"})
    assert created.status_code == 200
    user = created.json()
    assert set(user) == {
        "id", "aud", "role", "email", "phone", "app_metadata", "user_metadata", "identities", "created_at",
        "updated_at", "is_anonymous",
    }  # fmt: skip
    assert (user["email"], user["phone"], user["role"], user["aud"]) == (
        "new.person@example.com", "", "authenticated", "authenticated",
    )  # fmt: skip
    assert user["created_at"].endswith("Z")
    (identity,) = user["identities"]
    assert identity["identity_data"] == {
        "sub": user["id"],
        "email": "new.person@example.com",
        "email_verified": False,
        "phone_verified": False,
    }
    assert http.get(f"/admin/users/{user['id']}").json() == user


def test_the_client_creates_changes_and_deletes_a_user(client: Any) -> None:
    admin = client.auth.admin
    user_id = str(uuid.uuid4())
    created = admin.create_user(
        {
            "id": user_id,
            "email": "someone@example.com",
            "phone": "+1 202 555 0100",
            "password": "correct horse",
            "email_confirm": True,
            "user_metadata": {"full_name": "Someone", "colour": "red"},
            "app_metadata": {"team": "blue"},
            "ban_duration": "1h30m",
        }
    ).user
    assert (created.id, created.phone) == (user_id, "12025550100")
    assert created.email_confirmed_at is not None
    assert created.phone_confirmed_at is None
    assert created.user_metadata == {"full_name": "Someone", "colour": "red", "email_verified": True}
    assert created.app_metadata == {"provider": "email", "providers": ["email", "phone"], "team": "blue"}
    assert created.identities is not None
    assert {identity.provider for identity in created.identities} == {"email", "phone"}
    assert created.banned_until is not None
    ban = datetime.fromisoformat(created.banned_until) - datetime.now(UTC)
    assert timedelta(minutes=89) < ban <= timedelta(minutes=90)

    changed = admin.update_user_by_id(
        user_id,
        {"email": "Other@example.com", "user_metadata": {"colour": None, "size": 3}, "ban_duration": "none"},
    ).user
    assert changed.email == "other@example.com"
    assert changed.user_metadata == {"full_name": "Someone", "email_verified": True, "size": 3}
    assert changed.banned_until is None
    assert admin.get_user_by_id(user_id).user == changed

    admin.delete_user(user_id)
    from supabase import AuthApiError

    with pytest.raises(AuthApiError) as gone:
        admin.get_user_by_id(user_id)
    assert (gone.value.status, gone.value.code) == (404, "user_not_found")


@pytest.mark.parametrize(
    ("attributes", "status", "code"),
    [
        ({}, 400, "validation_failed"),
        ({"user_metadata": {"full_name": "x"}}, 400, "validation_failed"),
        ({"email": "not an address"}, 400, "validation_failed"),
        ({"email": f"{'x' * 250}@example.com"}, 400, "validation_failed"),
        ({"phone": "0049"}, 400, "validation_failed"),
        ({"email": "a@example.com", "password": "x", "password_hash": "y"}, 400, "validation_failed"),
        ({"email": "a@example.com", "id": "7"}, 400, "validation_failed"),
        ({"email": "a@example.com", "id": str(uuid.UUID(int=0))}, 400, "validation_failed"),
        ({"email": "a@example.com", "ban_duration": "a year"}, 400, "validation_failed"),
        ({"email": "a@example.com", "user_metadata": []}, 400, "bad_json"),
        ({"email": "TAKEN@example.com"}, 422, "email_exists"),
        ({"phone": "+12025550100"}, 422, "phone_exists"),
    ],
)
def test_a_user_that_cannot_be_is_refused(
    http: httpx.Client, attributes: dict[str, Any], status: int, code: str
) -> None:
    http.post("/admin/users", json={"email": "taken@example.com", "phone": "12025550100"}).raise_for_status()
    answer = http.post("/admin/users", json=attributes, headers=VERSION)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert http.get("/admin/users").headers["X-Total-Count"] == "1"


def test_a_body_that_is_no_json_is_refused(http: httpx.Client) -> None:
    answer = http.post("/admin/users", content=b"\xff{", headers=VERSION)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


def test_a_trigger_sees_a_new_user_before_role_and_app_metadata_are_written(http: httpx.Client, database: str) -> None:
    execute(database, PROFILES.replace("{on_delete}", " ON DELETE CASCADE"))
    wanted = {"email": "a@example.com", "email_confirm": True, "role": "auditor", "app_metadata": {"role": "admin"}}
    user = http.post("/admin/users", json=wanted).json()
    assert (user["role"], user["app_metadata"]["role"]) == ("auditor", "admin")
    ((seen,),) = execute(database, "SELECT seen FROM public.profiles")
    assert seen["role"] == ""
    assert seen["raw_app_meta_data"] == {"provider": "email", "providers": ["email"]}
    assert seen["email_confirmed_at"] is None
    assert http.request("DELETE", f"/admin/users/{user['id']}", json={"should_soft_delete": False}).json() == {}
    assert execute(database, "SELECT count(*) FROM public.profiles") == [(0,)]


def test_a_trigger_that_fails_blocks_the_new_user(http: httpx.Client, database: str) -> None:
    execute(database, PROFILES.replace("{on_delete}", ""))
    execute(database, "ALTER TABLE public.profiles ADD COLUMN needed text NOT NULL")
    answer = http.post("/admin/users", json={"email": "a@example.com"}, headers=VERSION)
    assert answer.status_code == 500
    assert answer.json() == {"code": "unexpected_failure", "message": "Database error creating new user"}
    assert http.get("/admin/users").headers["X-Total-Count"] == "0"


def test_a_user_with_a_profile_without_cascade_cannot_be_deleted(http: httpx.Client, database: str) -> None:
    execute(database, PROFILES.replace("{on_delete}", ""))
    user = http.post("/admin/users", json={"email": "a@example.com"}).json()
    answer = http.delete(f"/admin/users/{user['id']}", headers=VERSION)
    assert (answer.status_code, answer.json()["message"]) == (500, "Database error deleting user")


def test_two_users_cannot_swap_into_one_email(http: httpx.Client) -> None:
    first, second = (http.post("/admin/users", json={"email": f"{name}@example.com"}).json() for name in ("one", "two"))
    answer = http.put(f"/admin/users/{second['id']}", json={"email": first["email"]}, headers=VERSION)
    assert (answer.status_code, answer.json()["message"]) == (500, "Error updating user")
    assert http.get(f"/admin/users/{second['id']}").json()["email"] == "two@example.com"


def test_a_soft_deletion_leaves_a_row_that_says_nothing(client: Any, http: httpx.Client) -> None:
    from pydantic import ValidationError

    wanted: Any = {"email": "a@example.com", "email_confirm": True, "user_metadata": {"full_name": "A"}}
    user_id = client.auth.admin.create_user(wanted).user.id
    client.auth.admin.delete_user(user_id, should_soft_delete=True)
    (user,) = client.auth.admin.list_users()
    assert user.deleted_at is not None
    assert (len(user.email or ""), len(user.phone or "")) == (43, 15)
    assert (user.user_metadata, user.app_metadata) == ({}, {})
    (identity,) = http.get(f"/admin/users/{user_id}").json()["identities"]
    assert "identity_data" not in identity
    with pytest.raises(ValidationError):
        client.auth.admin.get_user_by_id(user_id)
    client.auth.admin.delete_user(user_id, should_soft_delete=True)
    assert client.auth.admin.list_users() == [user]


def test_an_anonymous_user_becomes_a_known_one(http: httpx.Client, users: int) -> None:
    everyone = http.get("/admin/users?per_page=1000").json()["users"]
    someone = next(user for user in everyone if user["is_anonymous"])
    wanted = {"email": "known@example.com", "email_confirm": True}
    known = http.put(f"/admin/users/{someone['id']}", json=wanted).json()
    assert (known["email"], known["is_anonymous"], len(known["identities"])) == ("known@example.com", False, 1)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_id_that_nobody_has_is_not_found(http: httpx.Client, method: str) -> None:
    unknown = http.request(method, f"/admin/users/{NO_ONE}", json={}, headers=VERSION)
    assert (unknown.status_code, unknown.json()) == (404, {"code": "user_not_found", "message": "User not found"})
    malformed = http.request(method, "/admin/users/7", json={}, headers=VERSION)
    assert (malformed.status_code, malformed.json()["code"]) == (404, "validation_failed")


def test_special_users_are_listed_like_all_others(http: httpx.Client, users: int) -> None:
    everyone = http.get("/admin/users?per_page=1000").json()["users"]
    special = [
        user
        for user in everyone
        if user["is_anonymous"] or "deleted_at" in user or "banned_until" in user or not user["email"]
    ]
    assert len(special) == SPECIAL_USERS
