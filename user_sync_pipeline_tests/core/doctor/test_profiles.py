"""Each thing that can be wrong with auth users, profiles and the key of the project, one a test."""

from __future__ import annotations

import time
from collections.abc import Callable

import jwt
import pytest

from user_sync_pipeline.core.doctor.examination import examine
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.core.doctor.conftest import finding

PROFILES = "profiles"
APPLY = "Type: user-sync migrate apply"
Change = Callable[[str], None]


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("DROP TRIGGER on_auth_user_created ON auth.users", "missing"),
        ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", "switched off"),
        ("ALTER FUNCTION app_private.handle_new_auth_user() RESET lock_timeout", "changed"),
    ],
)
def test_a_trigger_that_makes_no_profiles(damaged_database: Change, statement: str, word: str) -> None:
    damaged_database(statement)
    examination = examine()
    found = finding(PROFILES, "trigger", examination)
    assert (found.state, found.mend, examination.exit_code) == ("broken", APPLY, 3)
    assert word in found.detail


def test_an_installation_that_was_changed_is_named_with_what_mends_it(damaged_database: Change) -> None:
    damaged_database("ALTER TABLE user_profiles DISABLE ROW LEVEL SECURITY")
    found = finding(PROFILES, "installation")
    assert found.state == "broken"
    assert "row level security" in found.detail
    assert found.mend.startswith("Run: ")


def test_another_trigger_on_sign_ups_is_pointed_out(damaged_database: Change) -> None:
    damaged_database(
        """
        CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER theirs AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.theirs();
        """
    )
    examination = examine()
    assert finding(PROFILES, "installation", examination).state == "warning"
    assert examination.is_healthy


def test_sign_ups_without_their_profile(damaged_database: Change) -> None:
    damaged_database(
        """
        INSERT INTO auth.users (id, aud) VALUES ('00000000-0000-0000-0000-000000000001', 'other');
        INSERT INTO app_private.profile_failures (user_id, sqlstate, message)
        VALUES ('00000000-0000-0000-0000-000000000001', '55P03', 'ann@example.com');
        """
    )
    examination = examine()
    found = finding(PROFILES, "failed sign-ups", examination)
    assert (found.state, found.mend) == ("warning", "Type: user-sync sync")
    assert "example.com" not in str(examination.as_json())


def test_auth_users_without_profiles(supabase_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_DB_URL", supabase_database)
    found = finding(PROFILES, "door")
    assert (found.state, found.mend) == ("broken", APPLY)


def test_the_api_alone_is_a_door_as_well(with_project: SupabaseSimulator) -> None:
    examination = examine()
    assert finding(PROFILES, "door", examination).state == "ok"
    assert finding(PROFILES, "trigger", examination).state == "not configured"
    assert finding(PROFILES, "project", examination).state == "ok"


def test_a_legacy_key_that_still_works(with_project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    key = with_project.keys.service_role_key
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", key)
    examination = examine()
    found = finding(PROFILES, "key", examination)
    assert found.state == "warning"
    assert "legacy" in found.detail
    assert finding(PROFILES, "project", examination).state == "ok"
    assert key not in str(examination.as_json())


def test_an_old_legacy_key_that_soon_ends(with_project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    claims = {"role": "service_role", "iat": now - 900 * 86_400, "exp": now + 5 * 86_400 + 60}
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", jwt.encode(claims, "another secret" * 4, algorithm="HS256"))
    examination = examine()
    detail = finding(PROFILES, "key", examination).detail
    assert "900 days old" in detail
    assert "ends in 5 days" in detail
    assert finding(PROFILES, "project", examination).state == "broken"


@pytest.mark.parametrize("kind", ["publishable_key", "anon_key"])
def test_a_key_that_may_not_read_users(
    with_project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", getattr(with_project.keys, kind))
    found = finding(PROFILES, "key")
    assert found.state == "broken"
    assert "secret key" in found.mend


def test_a_key_of_another_project(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = {"role": "service_role", "ref": "another", "exp": int(time.time()) + 10**6}
    monkeypatch.setenv("SUPABASE_URL", "https://example.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", jwt.encode(claims, "secret" * 8, algorithm="HS256"))
    found = finding(PROFILES, "key")
    assert found.state == "broken"
    assert "another project" in found.detail


def test_a_key_that_the_project_does_not_know(with_project: SupabaseSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_nobody_knows_this_one")
    examination = examine()
    assert finding(PROFILES, "key", examination).state == "ok"
    found = finding(PROFILES, "project", examination)
    assert (found.state, found.unreachable) == ("broken", False)


def test_half_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://example.supabase.co")
    found = finding(PROFILES, "settings")
    assert found.state == "broken"
    assert "SUPABASE_SERVICE_ROLE_KEY" in found.detail
