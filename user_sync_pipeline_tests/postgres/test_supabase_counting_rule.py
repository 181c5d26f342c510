"""Who counts and who gets a profile where nothing but the pages of the APIs is there to tell.

The numbers are those of the table in `docs/profiles-cases.md`; what a database connection sees is in
`test_counting_rule.py`. Users are made by statements of SQL, because some of them no API would make.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles import supabase_census
from user_sync_pipeline.core.profiles.reconcile import sync_profiles
from user_sync_pipeline.core.profiles.report import ProfileStatus
from user_sync_pipeline.core.profiles.supabase_census import Reading
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids

pytestmark = pytest.mark.slow  # thirty times dozens of requests

ODD_COLUMNS = ("confirmation_token", "recovery_token", "email_change", "email_change_token_new", "created_at")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = tuple(Reading(size, oldest_first) for size in (4, 6) for oldest_first in (True, False))
    monkeypatch.setattr(supabase_census, "READINGS", readings)


@contextmanager
def before_page(number: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something right before the request for so manieth page of users."""
    handle = httpx.HTTPTransport.handle_request
    pages = 0

    def counted(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        nonlocal pages
        if "sort" in request.url.params:
            pages += 1
            if pages == number:
                act()
        return handle(transport, request)

    with patch.object(httpx.HTTPTransport, "handle_request", counted):
        yield


def add_users(engine: Engine, count: int) -> list[UUID]:
    """Add users with profiles, each created a second after the one before."""
    users = [add_user(engine, f"user{number}@example.com", profile=True) for number in range(count)]
    for age, user_id in enumerate(reversed(users)):
        change(engine, user_id, f"created_at = now() - interval '{age} seconds'")
    return users


def change(engine: Engine, user_id: UUID, assignment: str) -> None:
    execute(engine, f"UPDATE auth.users SET {assignment} WHERE id = :id", id=user_id)


def column(engine: Engine, name: str) -> dict[UUID, Any]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(f"SELECT id, {name} FROM user_profiles"))}


def figures(status: ProfileStatus) -> tuple[int, int, int]:
    return status.total_auth_users, status.total_user_profiles, status.missing_profiles


@pytest.mark.usefixtures("small_pages")
def test_case_01_through_the_api_a_sign_up_between_pages_is_never_half_counted(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    add_users(profiles, 10)
    with before_page(2, lambda: add_user(profiles, "late@example.com")):
        status = api_door.status()

    assert (figures(status), status.exactness) == ((11, 10, 1), "exact")
    assert sync_profiles(api_door).profiles_created == 1


@pytest.mark.usefixtures("small_pages")
def test_case_02_through_the_api_a_deletion_between_pages_hides_nobody_and_leaves_no_ghost(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = add_users(profiles, 10)
    with before_page(2, lambda: execute(profiles, "DELETE FROM auth.users WHERE id = :id", id=users[0])):
        status = api_door.status()

    assert (figures(status), status.exactness) == ((9, 9, 0), "exact")


@pytest.mark.usefixtures("small_pages")
def test_case_02_through_the_api_a_user_who_vanishes_before_the_profile_is_made_is_no_failure(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = [add_user(profiles, f"user{number}@example.com") for number in range(6)]
    in_the_last_request = 2 * 3 + 3  # two passes of status, then the pages of the sync
    gone = before_page(
        in_the_last_request, lambda: execute(profiles, "DELETE FROM auth.users WHERE id = :id", id=users[0])
    )
    with gone:
        result = sync_profiles(api_door)

    assert (result.profiles_created, result.vanished_users, result.failures) == (5, 1, ())


def test_case_03_through_the_api_soft_deleted_users_are_counted_apart_and_get_no_profile(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    add_user(profiles, "here@example.com", profile=True)
    gone = add_user(profiles, "gone@example.com", deleted=True)

    status = api_door.status()
    sync_profiles(api_door)

    assert (figures(status), status.soft_deleted_users) == ((1, 1, 0), 1)
    assert gone not in profile_ids(profiles)


def test_case_04_through_the_api_anonymous_users_count_and_get_a_profile(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles, verified=False)
    change(profiles, user_id, "is_anonymous = true")

    status = api_door.status()
    sync_profiles(api_door)

    assert (figures(status), status.anonymous_users, status.unconfirmed_users) == ((1, 0, 1), 1, 0)
    assert column(profiles, "email") == {user_id: None}


def test_case_05_through_the_api_users_by_sso_may_share_an_e_mail(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = [add_user(profiles) for _ in range(2)]
    for user_id in users:
        change(profiles, user_id, "email = 'both@example.com', is_sso_user = true")

    assert sync_profiles(api_door).profiles_created == 2
    assert column(profiles, "email") == dict.fromkeys(users, "both@example.com")


def test_case_06_through_the_api_without_an_e_mail_the_profile_holds_null(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles)
    change(profiles, user_id, "phone = '12025550123', phone_confirmed_at = now(), email_confirmed_at = NULL")

    assert sync_profiles(api_door).profiles_created == 1
    assert api_door.status().unconfirmed_users == 0
    assert (column(profiles, "email"), column(profiles, "phone")) == ({user_id: None}, {user_id: "12025550123"})


def test_case_07_through_the_api_a_ban_is_no_deletion(profiles: Engine, api_door: SupabaseDirectory) -> None:
    user_id = add_user(profiles, "banned@example.com", banned=True)

    status = api_door.status()
    sync_profiles(api_door)

    assert (figures(status), status.banned_users) == ((1, 0, 1), 1)
    assert profile_ids(profiles) == {user_id}
    assert [account.can_sign_in for account in api_door.accounts()] == [False]


def test_case_08_through_the_api_unconfirmed_users_count_but_their_e_mail_proves_nothing(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    add_user(profiles, "new@example.com", verified=False)

    assert (figures(api_door.status()), api_door.status().unconfirmed_users) == ((1, 0, 1), 1)
    assert [account.is_verified for account in api_door.accounts()] == [False]


def test_case_09_through_the_api_who_was_invited_and_never_came_counts(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles, "invited@example.com", verified=False)
    change(profiles, user_id, "invited_at = now()")

    assert sync_profiles(api_door).profiles_created == 1


def test_case_10_whom_the_api_does_not_know_is_in_the_figures_of_our_function_alone(
    profiles: Engine, rpc_door: SupabaseDirectory
) -> None:
    add_user(profiles, "known@example.com")
    add_user(profiles, "elsewhere@example.com", aud="elsewhere")
    by_hand = add_user(profiles, "by-hand@example.com")
    change(profiles, by_hand, "instance_id = NULL")

    by_function = rpc_door.status()
    by_pages = supabase_census.take_census(rpc_door._client)

    assert (by_function.total_auth_users, by_function.users_outside_api, by_function.exactness) == (2, 1, "exact")
    assert (by_pages.total_auth_users, by_pages.users_outside_api, by_pages.exactness) == (1, None, "exact")


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("odd", ODD_COLUMNS)
def test_case_11_through_the_api_a_user_who_breaks_the_page_costs_only_himself(
    profiles: Engine, api_door: SupabaseDirectory, odd: str
) -> None:
    users = add_users(profiles, 3)
    execute(profiles, "DELETE FROM user_profiles WHERE id = ANY (:ids)", ids=users[1:])
    change(profiles, users[0], f"{odd} = NULL")

    status = api_door.status()
    result = sync_profiles(api_door)

    assert (figures(status), status.exactness, status.margin) == ((2, 1, 2), "bounded", 1)
    assert status.orphan_profiles == 1
    assert len(status.unreadable_positions) == 1
    assert (result.profiles_created, result.exactness) == (2, "bounded")


def test_case_12_through_the_api_e_mails_are_compared_without_case_and_kept_as_they_are(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles)
    change(profiles, user_id, "email = ' Ada@Example.COM '")
    sync_profiles(api_door)

    assert column(profiles, "email") == {user_id: " Ada@Example.COM "}
    assert [(account.email, account.has_stale_email) for account in api_door.accounts()] == [("ada@example.com", False)]


def test_case_14_through_the_api_an_e_mail_that_changed_later_is_told_and_refreshed_only_when_asked_for(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    user_id = add_user(profiles, "old@example.com", profile=True)
    change(profiles, user_id, "email = 'new@example.com'")

    sync_profiles(api_door)
    assert column(profiles, "email") == {user_id: "old@example.com"}
    assert [account.has_stale_email for account in api_door.accounts()] == [True]

    assert sync_profiles(api_door, preserve=False).refreshed_profiles == 1
    assert column(profiles, "email") == {user_id: "new@example.com"}


@pytest.mark.parametrize(
    ("metadata", "full_name"),
    [
        ("null", None),
        ('{"full_name": ["Ada"]}', None),
        ('{"full_name": 7}', None),
        ('{"full_name": "  Ada  "}', "Ada"),
        (f'{{"full_name": "{"é" * 300}"}}', "é" * 200),
    ],
)
def test_case_15_through_the_api_of_metadata_only_text_is_taken_trimmed_and_cut(
    profiles: Engine, api_door: SupabaseDirectory, metadata: str, full_name: str | None
) -> None:
    user_id = add_user(profiles, "ada@example.com")
    change(profiles, user_id, f"raw_user_meta_data = '{metadata}'")

    assert sync_profiles(api_door).profiles_created == 1
    assert column(profiles, "full_name") == {user_id: full_name}


@pytest.mark.usefixtures("small_pages")
def test_case_16_through_the_api_users_of_one_moment_are_counted_and_synced_to_the_last(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = [add_user(profiles, f"user{number}@example.com") for number in range(23)]
    execute(profiles, "UPDATE auth.users SET created_at = '2026-01-01'")

    status = api_door.status()
    result = sync_profiles(api_door)

    # Pages in no order at all may hide somebody every time; then the report says so.
    if status.exactness == "exact":
        assert figures(status) == (23, 0, 23)
    else:
        assert status.margin is not None
        assert status.total_auth_users + status.margin >= 23
    assert result.profiles_created == len(profile_ids(profiles) & set(users))


def test_case_17_through_the_api_profiles_without_a_user_are_told_and_never_deleted(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    orphan = add_user(profiles, "gone@example.com", profile=True, deleted=True)
    kept = profile_ids(profiles)

    status = api_door.status()
    sync_profiles(api_door)

    assert (figures(status), status.orphan_profiles) == ((0, len(kept), 0), len(kept))
    assert profile_ids(profiles) == kept
    assert orphan in kept | {orphan}


def test_case_19_through_the_api_a_unique_constraint_of_an_application_costs_only_the_row_at_fault(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = [add_user(profiles, f"user{number}@example.com") for number in range(5)]
    execute(profiles, "ALTER TABLE user_profiles ADD CONSTRAINT one_name UNIQUE (full_name)")
    for user_id in users[1:3]:
        change(profiles, user_id, """raw_user_meta_data = '{"full_name": "Ada"}'""")
    try:
        result = sync_profiles(api_door)
    finally:
        execute(profiles, "ALTER TABLE user_profiles DROP CONSTRAINT one_name")

    assert result.profiles_created == 4
    assert [failure.reason for failure in result.failures] == ["SQLSTATE 23505, constraint one_name"]
    assert {failure.user_id for failure in result.failures} < set(users[1:3])


def test_case_20_through_the_api_a_table_of_another_shape_is_refused(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    add_user(profiles, "ada@example.com")
    execute(profiles, "ALTER TABLE user_profiles RENAME COLUMN id TO user_id")
    try:
        with pytest.raises(ConfigurationError, match="other columns than the migrations give it"):
            api_door.status()
    finally:
        execute(profiles, "ALTER TABLE user_profiles RENAME COLUMN user_id TO id")


def test_case_21_through_the_api_a_sign_up_without_its_profile_is_healed_by_the_next_sync(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    execute(profiles, "ALTER TABLE user_profiles ADD CONSTRAINT nobody CHECK (false) NOT VALID")
    try:
        user_id = add_user(profiles, "new@example.com", profile=True)
    finally:
        execute(profiles, "ALTER TABLE user_profiles DROP CONSTRAINT nobody")

    assert sync_profiles(api_door).profiles_created == 1
    assert profile_ids(profiles) == {user_id}


@pytest.mark.usefixtures("small_pages")
def test_case_22_through_the_api_two_syncs_at_once_do_everything_once(
    profiles: Engine, api_door: SupabaseDirectory
) -> None:
    users = [add_user(profiles, f"user{number}@example.com") for number in range(20)]
    made: list[int] = []

    def sync() -> None:
        made.append(sum(creation.created for creation in api_door.create_missing(uuid4())))

    threads = [threading.Thread(target=sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(made) == len(users)
    assert profile_ids(profiles) == set(users)


def test_case_23_through_the_api_a_list_and_a_total_of_different_moments_are_never_called_exact(
    profiles: Engine, api_door: SupabaseDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the list comes from a replica that lags behind."""
    add_users(profiles, 3)
    count = api_door._client.count_users
    monkeypatch.setattr(api_door._client, "count_users", lambda: (count() or 0) - 1)

    assert api_door.status().exactness == "unknown"
