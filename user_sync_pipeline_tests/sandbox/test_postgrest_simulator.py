"""The part of PostgREST that the Supabase client uses, asked by the real client and by hand."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid5

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline.sandbox.supabase.simulator import MAX_ROWS
from user_sync_pipeline_tests.conftest import role_url, supabase_on

SCHEMA = """
    CREATE TABLE public.teams (id int PRIMARY KEY);
    CREATE TABLE public.profiles (
        id          uuid PRIMARY KEY,
        email       text UNIQUE,
        role        text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
        visits      int,
        tags        text[],
        extra       jsonb,
        team        int REFERENCES public.teams,
        "50% odd"   text,
        created_at  timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, INSERT, UPDATE, DELETE ON public.profiles TO service_role;
    GRANT SELECT, UPDATE (email) ON public.profiles TO authenticated;
    CREATE POLICY own ON public.profiles TO authenticated USING ((SELECT auth.uid()) = id);
    CREATE TABLE public.secrets (id int PRIMARY KEY);
    CREATE VIEW public.emails WITH (security_invoker = on) AS SELECT id, email FROM public.profiles;
    GRANT SELECT ON public.emails TO service_role;

    CREATE FUNCTION public.add(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql STABLE AS 'SELECT a + b';
    CREATE FUNCTION public.series(up_to int) RETURNS SETOF int LANGUAGE sql STABLE
        AS 'SELECT generate_series(1, up_to)';
    CREATE FUNCTION public.report() RETURNS TABLE (total bigint, missing bigint) LANGUAGE sql STABLE
        AS 'SELECT 3::bigint, 1::bigint';
    CREATE FUNCTION public.one_report(OUT total bigint, OUT missing bigint) LANGUAGE sql STABLE AS 'SELECT 3, 1';
    CREATE FUNCTION public.by_ids(ids uuid[]) RETURNS SETOF public.profiles LANGUAGE sql STABLE
        AS 'SELECT * FROM public.profiles WHERE id = ANY (ids)';
    CREATE FUNCTION public.forget() RETURNS void LANGUAGE sql AS 'DELETE FROM public.profiles WHERE true';
    CREATE FUNCTION public.refuse(state text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = state, HINT = 'try later', DETAIL = 'because'; END $$;
    CREATE FUNCTION public.settings() RETURNS json LANGUAGE sql STABLE AS
        $$ SELECT json_build_object('timeout', current_setting('statement_timeout'), 'role', current_user,
                                    'path', current_setting('search_path'),
                                    'read_only', current_setting('transaction_read_only')) $$;
"""
CLEAN = "TRUNCATE public.profiles, public.teams"
NAMESPACE = UUID("0d0f6c5e-3a1b-4d59-8a55-0f6f6e1f9a10")
TOO_MANY = MAX_ROWS + 500


def key_of(number: int) -> str:
    return str(uuid5(NAMESPACE, str(number)))


@pytest.fixture(scope="module")
def project(postgres_server: PostgresServer, make_supabase_database: Callable[..., str]) -> str:
    name = make_supabase_database()
    execute(role_url(postgres_server, name), SCHEMA)
    return name


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


@pytest.fixture(scope="module")
def any_client(simulator: SupabaseSimulator, transport: httpx.Client) -> Any:
    from supabase import ClientOptions, create_client

    options = ClientOptions(httpx_client=transport, auto_refresh_token=False, persist_session=False)
    return create_client(simulator.url, simulator.keys.secret_key, options=options)


@pytest.fixture
def database(postgres_server: PostgresServer, project: str) -> str:
    """Address of the project's database as role postgres, with empty tables."""
    address = role_url(postgres_server, project)
    execute(address, CLEAN)
    return address


@pytest.fixture
def client(any_client: Any, database: str) -> Any:
    return any_client


@pytest.fixture
def ask(simulator: SupabaseSimulator, transport: httpx.Client, database: str) -> Callable[..., httpx.Response]:
    """Send a request by hand; `as_role` signs in as somebody else than the service."""

    def ask(method: str, path: str, *, as_role: str | None = None, sub: str | None = None, **request: Any) -> Any:
        headers = {"apikey": simulator.keys.secret_key, **request.pop("headers", {})}
        if as_role is not None:
            claims = {"sub": sub} if sub else {}
            headers["Authorization"] = f"Bearer {simulator.keys.sign(as_role, **claims)}"
        return transport.request(method, f"{simulator.url}/rest/v1/{path}", headers=headers, **request)

    return ask


Ask = Callable[..., httpx.Response]


def execute(database: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def fill(database: str, count: int) -> None:
    rows = [(key_of(number), f"{number}@example.com", number) for number in range(count)]
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO public.profiles (id, email, visits) VALUES (%s, %s, %s)", rows)


# Reading ------------------------------------------------------------------------------------------------------------


def test_the_client_reads_columns_filters_order_and_pages(client: Any, database: str) -> None:
    fill(database, 30)
    rows = (
        client.table("profiles")
        .select("mail:email, visits")
        .gte("visits", 10)
        .lt("visits", 20)
        .neq("visits", 15)
        .order("visits", desc=True)
        .range(1, 3)
        .execute()
    )
    assert rows.data == [{"mail": f"{number}@example.com", "visits": number} for number in (18, 17, 16)]
    assert rows.count is None


def test_null_and_lists_can_be_asked_for(client: Any, database: str) -> None:
    fill(database, 5)
    execute(database, "UPDATE public.profiles SET email = NULL WHERE visits = 3")
    table = client.table("profiles")
    assert [row["visits"] for row in table.select("visits").is_("email", None).execute().data] == [3]
    assert len(client.table("profiles").select("id").not_.is_("email", None).execute().data) == 4
    chosen = client.table("profiles").select("visits").in_("id", [key_of(1), key_of(4), key_of(99)])
    assert [row["visits"] for row in chosen.order("visits").execute().data] == [1, 4]
    assert client.table("profiles").select("visits").in_("id", []).execute().data == []


def test_a_keyset_walk_meets_every_row_once(client: Any, database: str) -> None:
    fill(database, 57)
    seen: list[str] = []
    while True:
        query = client.table("profiles").select("id").order("id").limit(10)
        page = (query.gt("id", seen[-1]) if seen else query).execute().data
        if not page:
            break
        seen += [row["id"] for row in page]
    assert seen == sorted(key_of(number) for number in range(57))


def test_a_page_never_has_more_than_a_thousand_rows_and_only_a_count_tells(client: Any, database: str) -> None:
    fill(database, TOO_MANY)
    assert len(client.table("profiles").select("id").execute().data) == MAX_ROWS
    assert len(client.table("profiles").select("id").limit(5000).execute().data) == MAX_ROWS
    assert len(client.rpc("series", {"up_to": TOO_MANY}).execute().data) == MAX_ROWS
    counted = client.table("profiles").select("*", count="exact", head=True).execute()
    assert (counted.count, counted.data) == (TOO_MANY, [])
    ids = [{"id": key_of(number)} for number in range(TOO_MANY)]
    written = client.table("profiles").upsert(ids, on_conflict="id", ignore_duplicates=True, count="exact").execute()
    assert written.count == 0


@pytest.mark.parametrize(
    ("rows", "query", "status", "content_range"),
    [
        (5, "limit=2", 206, "0-1/5"),
        (5, "limit=2&offset=4", 206, "4-4/5"),
        (5, "", 200, "0-4/5"),
        (0, "", 200, "*/0"),
        (5, "limit=0", 206, "*/5"),
        (5, "offset=6", 416, "*/5"),
    ],
)
def test_a_count_changes_status_and_content_range(
    ask: Ask, database: str, rows: int, query: str, status: int, content_range: str
) -> None:
    fill(database, rows)
    counted = {"Prefer": "count=exact"}
    answer = ask("GET", f"profiles?select=id&{query}", headers=counted)
    assert (answer.status_code, answer.headers["Content-Range"]) == (status, content_range)
    assert answer.headers["Preference-Applied"] == "count=exact"
    head = ask("HEAD", f"profiles?select=id&{query}", headers=counted)
    assert (head.status_code, head.headers["Content-Range"], head.content) == (status, content_range, b"")
    if status == 416:
        assert answer.json()["code"] == "PGRST103"
        assert answer.json()["details"] == "An offset of 6 was requested, but there are only 5 rows."


def test_without_a_count_the_total_is_a_star(ask: Ask, database: str) -> None:
    fill(database, 3)
    assert ask("GET", "profiles?select=id").headers["Content-Range"] == "0-2/*"
    beyond = ask("GET", "profiles?select=id&offset=9")
    assert (beyond.status_code, beyond.headers["Content-Range"], beyond.json()) == (200, "*/*", [])


def test_values_come_as_postgres_writes_json(ask: Ask, database: str) -> None:
    execute(
        database,
        "INSERT INTO public.profiles (id, tags, extra, created_at) "
        f"VALUES ('{key_of(1)}', '{{a,b}}', '{{\"n\": 1.50}}', '2026-11-21 02:36:47.58+00')",
    )
    answer = ask("GET", "profiles")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    (row,) = answer.json()
    assert row["created_at"] == "2026-11-21T02:36:47.58+00:00"
    assert (row["tags"], row["email"]) == (["a", "b"], None)
    assert '"n": 1.50' in answer.text


def test_a_single_object_is_exactly_one(client: Any, database: str) -> None:
    from postgrest import APIError

    fill(database, 2)
    table = client.table("profiles")
    assert table.select("visits").eq("id", key_of(1)).single().execute().data == {"visits": 1}
    assert client.table("profiles").select("visits").eq("id", key_of(7)).maybe_single().execute() is None
    with pytest.raises(APIError) as refused:
        client.table("profiles").select("visits").single().execute()
    assert (refused.value.code, refused.value.details) == ("PGRST116", "The result contains 2 rows")


def test_a_view_is_read_like_a_table(client: Any, database: str) -> None:
    fill(database, 1)
    assert client.table("emails").select("email").execute().data == [{"email": "0@example.com"}]


# Texts of every kind come back as they went, and are found again by eq and in.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts | st.sampled_from(['a,b"c\\', "(x)", "null", "%s%(x)s", "{a,b}", "'; DROP TABLE x; --", "*", " "]))
def test_any_text_survives_and_is_found_again(client: Any, database: str, text: str) -> None:
    execute(database, CLEAN)
    client.table("profiles").insert([{"id": key_of(1), "email": text}, {"id": key_of(2), "email": "other"}]).execute()
    query = client.table("profiles").select("email")
    assert query.eq("email", text).execute().data == [{"email": text}]
    found = client.table("profiles").select("email").in_("email", [text, "b", "no,body"]).execute().data
    assert found == [{"email": text}]


# Writing ------------------------------------------------------------------------------------------------------------


def test_an_insert_gives_back_what_was_stored(client: Any, ask: Ask) -> None:
    (row,) = (
        client.table("profiles")
        .insert({"id": key_of(1), "email": "a", "tags": ["x"], "extra": {"k": [1]}})
        .execute()
        .data
    )
    assert (row["role"], row["tags"], row["extra"]) == ("user", ["x"], {"k": [1]})
    quiet = ask("POST", "profiles", json={"id": key_of(2)})
    assert (quiet.status_code, quiet.content, quiet.headers["Content-Range"]) == (201, b"", "*/*")
    assert "Preference-Applied" not in quiet.headers
    counted = ask(
        "POST", "profiles?select=id", json=[{"id": key_of(3)}], headers={"Prefer": "return=representation,count=exact"}
    )
    assert (counted.json(), counted.headers["Content-Range"]) == ([{"id": key_of(3)}], "*/1")
    assert counted.headers["Preference-Applied"] == "return=representation, count=exact"


def test_a_key_that_is_absent_in_one_row_becomes_null_or_the_default(client: Any) -> None:
    from postgrest import APIError

    rows = [{"id": key_of(1), "role": "admin"}, {"id": key_of(2)}]
    with pytest.raises(APIError) as refused:
        client.table("profiles").insert(rows).execute()
    assert refused.value.code == "23502"
    stored = client.table("profiles").insert(rows, default_to_null=False).execute().data
    assert [row["role"] for row in stored] == ["admin", "user"]


def test_ignoring_duplicates_gives_back_only_what_is_new(client: Any, ask: Ask, database: str) -> None:
    fill(database, 2)
    rows = [{"id": key_of(number), "email": f"new-{number}"} for number in range(1, 4)]
    stored = client.table("profiles").upsert(rows, on_conflict="id", ignore_duplicates=True).execute().data
    assert {row["id"] for row in stored} == {key_of(2), key_of(3)}
    again = ask(
        "POST",
        "profiles?on_conflict=id",
        json=rows,
        headers={"Prefer": "return=representation,resolution=ignore-duplicates,count=exact"},
    )
    assert (again.status_code, again.json(), again.headers["Content-Range"]) == (201, [], "*/0")
    assert again.headers["Preference-Applied"].startswith("resolution=ignore-duplicates")


def test_merging_duplicates_says_by_its_status_whether_anything_is_new(ask: Ask, database: str) -> None:
    fill(database, 2)
    merge = {"Prefer": "return=representation,resolution=merge-duplicates"}
    old, new = {"id": key_of(1), "visits": 7}, {"id": key_of(9), "visits": 8}
    both = ask("POST", "profiles", json=[old, new], headers=merge)
    assert (both.status_code, [row["visits"] for row in both.json()]) == (201, [7, 8])
    assert both.json()[0]["email"] == "1@example.com"
    only_old = ask("POST", "profiles", json=[old], headers=merge)
    assert (only_old.status_code, len(only_old.json())) == (200, 1)
    assert ask("POST", "profiles", json=[], headers=merge).status_code == 200
    assert ask("POST", "profiles", json=[]).status_code == 201
    twice = ask("POST", "profiles", json=[old, old], headers=merge)
    assert (twice.status_code, twice.json()["code"]) == (500, "21000")


def test_a_failing_row_takes_the_whole_batch_back(ask: Ask, database: str) -> None:
    fill(database, 1)
    rows = [{"id": key_of(5), "email": "5"}, {"id": key_of(6), "email": "0@example.com"}]
    answer = ask("POST", "profiles?on_conflict=id", json=rows, headers={"Prefer": "resolution=ignore-duplicates"})
    assert (answer.status_code, answer.json()["code"]) == (409, "23505")
    assert execute(database, "SELECT count(*) FROM public.profiles") == [(1,)]


def test_rows_are_changed_and_deleted_by_filter(client: Any, ask: Ask, database: str) -> None:
    fill(database, 4)
    changed = client.table("profiles").update({"role": "admin", "visits": None}).in_("visits", [1, 2]).execute().data
    assert {(row["id"], row["role"], row["visits"]) for row in changed} == {
        (key_of(1), "admin", None),
        (key_of(2), "admin", None),
    }
    quiet = ask("PATCH", "profiles?visits=eq.3", json={"visits": 30}, headers={"Prefer": "count=exact"})
    assert (quiet.status_code, quiet.headers["Content-Range"]) == (204, "0-0/1")
    assert ask("PATCH", "profiles?visits=eq.99", json={"visits": 1}).status_code == 204
    assert ask("PATCH", "profiles?visits=eq.30", json={}).status_code == 204
    gone = client.table("profiles").delete().eq("visits", 30).execute().data
    assert [row["id"] for row in gone] == [key_of(3)]
    assert execute(database, "SELECT count(*) FROM public.profiles") == [(3,)]


@pytest.mark.parametrize(("method", "command"), [("PATCH", "UPDATE"), ("DELETE", "DELETE")])
def test_a_change_without_a_filter_is_refused(ask: Ask, database: str, method: str, command: str) -> None:
    fill(database, 1)
    answer = ask(method, "profiles", json={"visits": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "21000")
    assert answer.json()["message"] == f"{command} requires a WHERE clause"


def test_a_change_that_is_not_single_is_taken_back(ask: Ask, database: str) -> None:
    fill(database, 2)
    wanted = {"Accept": "application/vnd.pgrst.object+json", "Prefer": "return=representation"}
    answer = ask("DELETE", "profiles?visits=gte.0", headers=wanted)
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert execute(database, "SELECT count(*) FROM public.profiles") == [(2,)]


def test_names_are_quoted(client: Any) -> None:
    client.table("profiles").insert({"id": key_of(1), "50% odd": "yes"}).execute()
    assert client.table("profiles").select('"50% odd"').eq("50% odd", "yes").execute().data == [{"50% odd": "yes"}]


# Functions ----------------------------------------------------------------------------------------------------------


def test_functions_give_back_what_they_return(client: Any, database: str) -> None:
    fill(database, 3)
    assert client.rpc("add", {"a": 2}).execute().data == 3
    assert client.rpc("add", {"a": 2, "b": 5}, get=True).execute().data == 7
    assert client.rpc("series", {"up_to": 3}).execute().data == [1, 2, 3]
    assert client.rpc("report").execute().data == [{"total": 3, "missing": 1}]
    assert client.rpc("one_report").execute().data == {"total": 3, "missing": 1}
    ids = [key_of(0), key_of(2)]
    for by_get in (False, True):
        found = client.rpc("by_ids", {"ids": ids}, get=by_get).select("visits").order("visits", desc=True).limit(1)
        assert found.execute().data == [{"visits": 2}]
    counted = client.rpc("by_ids", {"ids": ids}, count="exact").execute()
    assert counted.count == 2


def test_a_function_that_writes_is_called_by_post_only(ask: Ask, database: str) -> None:
    fill(database, 1)
    refused = ask("GET", "rpc/forget")
    assert (refused.status_code, refused.json()["code"]) == (405, "25006")
    done = ask("POST", "rpc/forget", json={})
    assert (done.status_code, done.content) == (204, b"")
    assert execute(database, "SELECT count(*) FROM public.profiles") == [(0,)]


def test_a_function_that_raises_chooses_its_status(ask: Ask) -> None:
    for state, status in (("P0001", 400), ("PT418", 418), ("P0002", 500), ("22023", 400)):
        answer = ask("POST", "rpc/refuse", json={"state": state})
        assert answer.status_code == status
        assert answer.json() == {"code": state, "details": "because", "hint": "try later", "message": "no"}


@pytest.mark.parametrize(("role", "timeout"), [("service_role", "8s"), ("authenticated", "8s"), ("anon", "3s")])
def test_a_request_runs_as_its_role_with_the_settings_of_that_role(ask: Ask, role: str, timeout: str) -> None:
    seen = ask("GET", "rpc/settings", as_role=role).json()
    assert seen == {"timeout": timeout, "role": role, "path": "public, extensions", "read_only": "on"}


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "nowhere", None, 404, "PGRST205"),
        ("POST", "nowhere", {}, 404, "PGRST205"),
        ("GET", "a/b/c", None, 404, "PGRST125"),
        ("PUT", "profiles", {}, 405, "PGRST117"),
        ("GET", "profiles?select=nothing", None, 400, "42703"),
        ("GET", "profiles?nothing=eq.1", None, 400, "42703"),
        ("GET", "profiles?order=nothing", None, 400, "42703"),
        ("GET", "profiles?id=eq.7", None, 400, "22P02"),
        ("GET", "profiles?id=in.(7)", None, 400, "22P02"),
        ("GET", "profiles?email=eq.%00", None, 400, "22021"),
        ("POST", "profiles", {"id": key_of(1), "email": "a\0b"}, 400, "22P05"),
        ("GET", "profiles?id=7", None, 400, "PGRST100"),
        ("GET", "profiles?id=is.7", None, 400, "PGRST100"),
        ("GET", "profiles?id=in.7", None, 400, "PGRST100"),
        ("GET", "profiles?order=id.up", None, 400, "PGRST100"),
        ("GET", "profiles?limit=x", None, 400, "PGRST100"),
        ("GET", "profiles?limit=-1", None, 416, "PGRST103"),
        ("GET", "profiles?email=like.*x*", None, 400, "PGRST127"),
        ("GET", "profiles?or=(id.eq.1,id.eq.2)", None, 400, "PGRST127"),
        ("GET", "profiles?select=id,teams(id)", None, 400, "PGRST127"),
        ("GET", "profiles?select=id::text", None, 400, "PGRST127"),
        ("POST", "profiles", {"nothing": 1}, 400, "PGRST204"),
        ("POST", "profiles?columns=nothing", {"id": key_of(1)}, 400, "PGRST204"),
        ("POST", "profiles", [{"id": key_of(1)}, {"email": "x"}], 400, "PGRST102"),
        ("POST", "profiles", [1], 400, "PGRST102"),
        ("POST", "profiles", None, 400, "PGRST102"),
        ("POST", "profiles", {"id": "7"}, 400, "22P02"),
        ("POST", "profiles", {"email": "x"}, 400, "23502"),
        ("POST", "profiles", {"id": key_of(1), "team": 7}, 409, "23503"),
        ("POST", "profiles", {"id": key_of(1), "role": "boss"}, 400, "23514"),
        ("POST", "rpc/nothing", {}, 404, "PGRST202"),
        ("POST", "rpc/add", {"a": 1, "c": 2}, 404, "PGRST202"),
        ("POST", "rpc/add", {"b": 2}, 404, "PGRST202"),
        ("POST", "rpc/add", {"a": "x"}, 400, "22P02"),
        ("POST", "rpc/add", [1], 400, "PGRST102"),
        ("POST", "rpc/add", [{"a": 1}], 400, "PGRST102"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_as_postgrest_does(
    ask: Ask, method: str, path: str, body: Any, status: int, code: str
) -> None:
    content = None if body is None else json.dumps(body)
    answer = ask(method, path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list(answer.json()) == ["code", "details", "hint", "message"]
    assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"


@pytest.mark.parametrize("query", ["on_conflict=visits", "on_conflict=nothing"])
def test_a_conflict_target_needs_a_unique_index(ask: Ask, query: str) -> None:
    prefer = {"Prefer": "resolution=ignore-duplicates"}
    answer = ask("POST", f"profiles?{query}", json={"id": key_of(1)}, headers=prefer)
    assert (answer.status_code, answer.json()["code"]) == (400, "42P10" if "visits" in query else "42703")


def test_a_schema_that_is_not_exposed_is_named(client: Any, ask: Ask) -> None:
    from postgrest import APIError

    with pytest.raises(APIError) as refused:
        client.schema("auth").table("users").select("*").execute()
    assert (refused.value.code, refused.value.message) == ("PGRST106", "Invalid schema: auth")
    assert ask("POST", "x", json={}, headers={"Content-Profile": "auth"}).status_code == 406


def test_a_head_request_carries_the_error_in_a_header(client: Any) -> None:
    from postgrest import APIError

    with pytest.raises(APIError) as refused:
        client.table("nowhere").select("*", count="exact", head=True).execute()
    assert refused.value.code == "PGRST205"


def test_missing_rights_are_403_for_those_who_signed_in_and_401_for_others(ask: Ask) -> None:
    for role, status in (("service_role", 403), ("authenticated", 403), ("anon", 401)):
        answer = ask("GET", "secrets", as_role=role)
        assert (answer.status_code, answer.json()["code"]) == (status, "42501")
        assert answer.json()["message"] == "permission denied for table secrets"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_row_level_security_and_column_grants_hold(ask: Ask, database: str) -> None:
    fill(database, 3)
    me = {"as_role": "authenticated", "sub": key_of(1)}
    assert [row["visits"] for row in ask("GET", "profiles", **me).json()] == [1]
    assert ask("PATCH", "profiles?visits=gte.0", json={"email": "mine"}, **me).status_code == 204
    refused = ask("PATCH", "profiles?visits=gte.0", json={"role": "admin"}, **me)
    assert (refused.status_code, refused.json()["code"]) == (403, "42501")
    assert execute(database, "SELECT visits FROM public.profiles WHERE email = 'mine'") == [(1,)]


def test_a_table_that_was_just_made_is_known_at_once(ask: Ask, database: str) -> None:
    try:
        execute(database, "CREATE TABLE public.fresh (id int); GRANT SELECT ON public.fresh TO service_role")
        assert ask("GET", "fresh").json() == []
    finally:
        execute(database, "DROP TABLE public.fresh")
