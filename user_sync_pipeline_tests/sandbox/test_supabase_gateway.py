"""Nothing gets past the gateway without a key, and a key stands for its role."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.conftest import ROLE_PASSWORD, role_url, supabase_on

WHO_AM_I = """
    CREATE FUNCTION public.who_am_i() RETURNS json LANGUAGE sql STABLE AS
    $$ SELECT json_build_object('role', current_user, 'sub', auth.uid(), 'claimed', auth.role()) $$
"""
KINDS = {
    "secret_key": "service_role",
    "service_role_key": "service_role",
    "publishable_key": "anon",
    "anon_key": "anon",
}


@pytest.fixture(scope="module")
def simulator(
    postgres_server: PostgresServer, authority: CertificateAuthority, make_supabase_database: Callable[..., str]
) -> Iterator[SupabaseSimulator]:
    database = make_supabase_database()
    with psycopg.connect(role_url(postgres_server, database)) as connection:
        connection.execute(WHO_AM_I)
    with supabase_on(postgres_server, database, authority) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def http(simulator: SupabaseSimulator) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=simulator.environment()["SUPABASE_CA_BUNDLE"])
    with httpx.Client(base_url=simulator.url, verify=trust, trust_env=False) as client:
        yield client


def who_am_i(http: httpx.Client, **headers: str) -> Any:
    answer = http.get("/rest/v1/rpc/who_am_i", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/rest/v1/rpc/who_am_i", "/auth/v1/health", "/auth/v1/admin/users"])
def test_a_request_without_a_key_is_told_so(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"Authorization": "Bearer whatever"})
    assert answer.status_code == 401
    assert answer.json() == {
        "message": "No API key found in request",
        "hint": "No `apikey` request header or url param was found.",
    }


@pytest.mark.parametrize("key", ["nonsense", "sb_secret_of_another_project", "é"])
def test_a_key_of_another_project_is_refused(http: httpx.Client, key: str) -> None:
    answer = http.get("/rest/v1/rpc/who_am_i", headers={b"apikey": key.encode()})
    assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


def test_a_token_that_is_good_but_no_key_is_refused(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    answer = http.get("/auth/v1/health", headers={"apikey": simulator.keys.sign("service_role")})
    assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


@pytest.mark.parametrize(("kind", "role"), KINDS.items())
def test_each_kind_of_key_stands_for_its_role(
    http: httpx.Client, simulator: SupabaseSimulator, kind: str, role: str
) -> None:
    key = getattr(simulator.keys, kind)
    assert who_am_i(http, apikey=key, Authorization=f"Bearer {key}")["role"] == role
    assert http.get("/auth/v1/health", headers={"apikey": key}).json()["name"] == "GoTrue"


def test_an_opaque_key_needs_no_authorization_header(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    assert who_am_i(http, apikey=simulator.keys.secret_key) == {
        "role": "service_role",
        "sub": None,
        "claimed": "service_role",
    }


def test_a_key_may_come_in_the_address(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    answer = http.get("/rest/v1/rpc/who_am_i", params={"apikey": simulator.keys.publishable_key})
    assert answer.json()["role"] == "anon"


def test_a_signed_in_user_is_seen_as_that_user(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    user_id = "8b0b8c1e-0f5e-4c6c-a3f4-7f7c3f0c9a11"
    token = simulator.keys.sign("authenticated", sub=user_id)
    seen = who_am_i(http, apikey=simulator.keys.publishable_key, Authorization=f"Bearer {token}")
    assert seen == {"role": "authenticated", "sub": user_id, "claimed": "authenticated"}


@pytest.mark.parametrize("agent", ["Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Mozilla/5.0 Chrome/141.0"])
def test_the_secret_key_is_refused_from_a_browser(http: httpx.Client, simulator: SupabaseSimulator, agent: str) -> None:
    answer = http.get("/auth/v1/health", headers={"apikey": simulator.keys.secret_key, "User-Agent": agent})
    assert (answer.status_code, answer.json()["message"]) == (401, "Forbidden use of secret API key in browser")
    public = {"apikey": simulator.keys.publishable_key, "User-Agent": agent}
    assert http.get("/auth/v1/health", headers=public).status_code == 200


def test_a_second_opaque_key_in_authorization_is_no_token(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    headers = {"apikey": simulator.keys.publishable_key, "Authorization": f"Bearer {simulator.keys.secret_key}"}
    rest = http.get("/rest/v1/rpc/who_am_i", headers=headers)
    assert (rest.status_code, rest.json()["code"]) == (401, "PGRST301")
    auth = http.get("/auth/v1/admin/users", headers=headers)
    assert (auth.status_code, auth.json()["error_code"]) == (403, "bad_jwt")


def test_forged_and_expired_tokens_are_refused(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    forged = jwt.encode({"role": "service_role"}, "x" * 32, algorithm="HS256")
    expired = jwt.encode({"role": "service_role", "exp": 1}, simulator.keys.jwt_secret, algorithm="HS256")
    for token, code in ((forged, "PGRST301"), (expired, "PGRST303")):
        headers = {"apikey": simulator.keys.publishable_key, "Authorization": f"Bearer {token}"}
        answer = http.get("/rest/v1/rpc/who_am_i", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"
        assert http.get("/auth/v1/admin/users", headers=headers).status_code == 403


def test_a_token_cannot_name_a_role_that_the_api_may_not_take(http: httpx.Client, simulator: SupabaseSimulator) -> None:
    for role, status in (("postgres", 403), ("supabase_admin", 403), ("nobody_knows", 401)):
        headers = {
            "apikey": simulator.keys.publishable_key,
            "Authorization": f"Bearer {simulator.keys.sign(role)}",
        }
        assert http.get("/rest/v1/rpc/who_am_i", headers=headers).status_code == status


def test_the_settings_of_the_sandbox_are_accepted_by_the_pipeline(simulator: SupabaseSimulator) -> None:
    settings = SupabaseSettings.from_environment(simulator.environment())
    assert settings.url == simulator.url
    assert settings.service_role_key == simulator.keys.secret_key
    assert simulator.keys.secret_key not in repr(simulator.keys) + repr(settings)


@pytest.mark.slow
def test_a_project_may_have_switched_its_legacy_keys_off(
    postgres_server: PostgresServer, authority: CertificateAuthority, supabase_template: str
) -> None:
    project = SupabaseSimulator(
        postgres_server,
        supabase_template,
        authority,
        authenticator_password=ROLE_PASSWORD,
        auth_admin_password=ROLE_PASSWORD,
        takes_legacy_keys=False,
    )
    with project:
        trust = ssl.create_default_context(cafile=project.environment()["SUPABASE_CA_BUNDLE"])
        with httpx.Client(base_url=project.url, verify=trust, trust_env=False) as client:
            for key in (project.keys.service_role_key, project.keys.anon_key):
                answer = client.get("/auth/v1/health", headers={"apikey": key})
                assert (answer.status_code, answer.json()["message"]) == (401, "Legacy API keys are disabled")
            assert client.get("/auth/v1/health", headers={"apikey": project.keys.secret_key}).status_code == 200

        with (
            SupabaseDirectory(project.url, project.keys.service_role_key, ca_bundle=str(authority.ca_file)) as door,
            pytest.raises(ConfigurationError, match="legacy service_role key, which the project"),
        ):
            door.status()
