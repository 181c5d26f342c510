"""Single profiles, refreshing and undoing by the Supabase door: nobody's change is overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles import supabase_client
from user_sync_pipeline.core.profiles.directory import Creation, ProfileImage, Undone
from user_sync_pipeline.core.profiles.report import ProfileFailure
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline_tests.postgres.accounts import add_user, execute

NOBODY = UUID(int=1)


def profile_of(engine: Engine, user_id: UUID) -> dict[str, Any]:
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM user_profiles WHERE id = :id"), {"id": user_id})
        return dict(row.mappings().one())


def move(engine: Engine, user_id: UUID, email: str) -> None:
    execute(engine, "UPDATE auth.users SET email = :email WHERE id = :id", id=user_id, email=email)


def test_a_single_profile_is_made_with_its_role_and_its_run(profiles: Engine, api_door: SupabaseDirectory) -> None:
    user_id, run_id = add_user(profiles, "ada@example.com"), uuid4()

    assert api_door.create_profile(user_id, role="admin", run_id=run_id) == Creation(created=1)
    assert api_door.create_profile(user_id, role="user") == Creation()

    profile = profile_of(profiles, user_id)
    assert (profile["role"], profile["sync_run_id"], profile["source"]) == ("admin", run_id, "sync")


def test_nobody_and_a_deleted_user_get_no_profile(profiles: Engine, api_door: SupabaseDirectory) -> None:
    deleted = add_user(profiles, "gone@example.com", deleted=True)
    assert api_door.create_profile(NOBODY, role="user") == api_door.create_profile(deleted, role="user") == Creation()


def test_a_role_that_the_table_refuses_is_a_failure_with_its_constraint(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles, "ada@example.com")
    failures = api_door.create_profile(user_id, role="emperor").failures
    assert failures == (ProfileFailure(user_id, "SQLSTATE 23514, constraint user_profiles_role_allowed"),)


def test_an_account_is_shown_as_it_is(profiles: Engine, api_door: SupabaseDirectory) -> None:
    user_id = add_user(profiles, "Ada@Example.com", profile=True, verified=False)
    move(profiles, user_id, "byron@example.com")
    deleted = add_user(profiles, "gone@example.com", deleted=True)

    account = api_door.account(user_id)

    assert account is not None
    assert (account.email, account.role) == ("byron@example.com", "user")
    assert (account.is_in_scope, account.has_profile, account.has_stale_email) == (True, True, True)
    assert (account.is_verified, account.can_sign_in) == (False, True)
    gone = api_door.account(deleted)
    assert gone is not None
    assert (gone.is_in_scope, gone.has_profile, gone.role) == (False, False, None)
    assert api_door.account(NOBODY) is None


def test_a_user_who_cannot_be_shown_names_the_way_out(profiles: Engine, api_door: SupabaseDirectory) -> None:
    user_id = add_user(profiles, "odd@example.com")
    execute(profiles, "UPDATE auth.users SET recovery_token = NULL WHERE id = :id", id=user_id)
    with pytest.raises(ConfigurationError, match="set SUPABASE_DB_URL"):
        api_door.account(user_id)


@pytest.mark.slow
def test_a_refresh_mirrors_addresses_after_it_told_of_them_and_an_undo_takes_them_back(
    profiles: Engine, rpc_door: SupabaseDirectory
) -> None:
    moved, changed, same = (add_user(profiles, f"{name}@example.com", profile=True) for name in ("a", "b", "c"))
    made = add_user(profiles, "d@example.com")
    for user_id in (moved, changed):
        move(profiles, user_id, f"new-{user_id}@example.com")
    before = {user_id: profile_of(profiles, user_id) for user_id in (moved, changed, same)}
    run_id = uuid4()
    images: list[ProfileImage] = []

    def journal(noted: Sequence[ProfileImage]) -> None:
        assert [profile_of(profiles, image.user_id)["email"] for image in noted] == [
            before[image.user_id]["email"] for image in noted
        ]
        images.extend(noted)

    assert rpc_door.refresh_mirrored(dry_run=True) == 2
    assert profile_of(profiles, moved) == before[moved]
    assert rpc_door.refresh_mirrored(dry_run=False, journal=journal) == 2
    assert rpc_door.refresh_mirrored(dry_run=False) == 0
    assert sum(creation.created for creation in rpc_door.create_missing(run_id)) == 1
    assert profile_of(profiles, moved)["email"] == f"new-{moved}@example.com"
    assert profile_of(profiles, same) == before[same]
    execute(profiles, "UPDATE user_profiles SET email = 'own@example.com' WHERE id = :id", id=changed)

    undone = rpc_door.undo(run_id, iter(images))

    assert (undone.removed, undone.restored) == (1, 1)
    assert [(kept.user_id, kept.reason) for kept in undone.kept] == [(changed, "changed since")]
    assert profile_of(profiles, moved)["email"] == before[moved]["email"]
    assert rpc_door.undo(run_id, iter(images[:1] if images[0].user_id == moved else images[1:])) == Undone()
    with profiles.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM user_profiles WHERE id = :id"), {"id": made}) == 0


def test_a_refresh_does_not_write_over_somebody_who_was_quicker(profiles: Engine, api_door: SupabaseDirectory) -> None:
    user_id = add_user(profiles, "a@example.com", profile=True)
    move(profiles, user_id, "b@example.com")

    def be_quicker(_: Sequence[ProfileImage]) -> None:
        execute(profiles, "UPDATE user_profiles SET email = 'own@example.com' WHERE id = :id", id=user_id)

    assert api_door.refresh_mirrored(dry_run=False, journal=be_quicker) == 0
    assert profile_of(profiles, user_id)["email"] == "own@example.com"


def test_a_refresh_that_is_refused_costs_only_that_profile(profiles: Engine, api_door: SupabaseDirectory) -> None:
    users = [add_user(profiles, f"{number}@example.com", profile=True) for number in range(3)]
    for user_id in users:
        move(profiles, user_id, f"new-{user_id}@example.com")
    execute(
        profiles,
        f"ALTER TABLE user_profiles ADD CONSTRAINT not_this_one CHECK (email <> 'new-{users[1]}@example.com')",
    )
    refused: list[ProfileFailure] = []
    try:
        assert api_door.refresh_mirrored(dry_run=False, refused=refused.append) == 2
    finally:
        execute(profiles, "ALTER TABLE user_profiles DROP CONSTRAINT not_this_one")
    assert refused == [ProfileFailure(users[1], "SQLSTATE 23514, constraint not_this_one")]


def test_without_our_function_an_undo_says_what_it_needs(api_door: SupabaseDirectory) -> None:
    with pytest.raises(ConfigurationError, match="cannot undo a run"):
        api_door.undo(uuid4(), iter(()))


@pytest.mark.slow
def test_what_was_written_before_the_answer_got_lost_is_counted_once(
    profiles: Engine, api_door: SupabaseDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supabase_client, "_PAUSES", (0.01, 0.01))
    users = [add_user(profiles, f"user{number}@example.com") for number in range(5)]
    handle = httpx.HTTPTransport.handle_request
    lost: list[str] = []

    def lose_the_first(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = handle(transport, request)
        if request.method == "POST" and request.url.path.endswith("/user_profiles") and not lost:
            lost.append(request.url.path)
            return httpx.Response(504)
        return response

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lose_the_first)
    run_id = uuid4()

    assert sum(creation.created for creation in api_door.create_missing(run_id)) == len(users)
    assert lost
    assert {profile_of(profiles, user_id)["sync_run_id"] for user_id in users} == {run_id}


@pytest.mark.slow
def test_the_profile_of_a_user_who_cannot_be_shown_is_not_taken_for_an_orphan(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    odd, here = (add_user(profiles, f"{name}@example.com", profile=True) for name in ("odd", "here"))
    gone = add_user(profiles, "gone@example.com", profile=True, deleted=True)
    execute(profiles, "INSERT INTO user_profiles (id) VALUES (:id) ON CONFLICT DO NOTHING", id=gone)
    execute(profiles, "UPDATE auth.users SET recovery_token = NULL WHERE id = :id", id=odd)

    accounts = {UUID(account.auth_user_id): account.is_in_scope for account in api_door.accounts()}

    assert accounts == {here: True, gone: False}
