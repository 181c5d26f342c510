"""Who counts, who gets a profile and what is only reported: one test for each case that is easily got wrong.

The numbers are those of the table in `docs/profiles-cases.md`. Here is what a database connection sees; what is
different through the API is in `test_supabase_*.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, make_url, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles import sql_directory
from user_sync_pipeline.core.profiles.reconcile import sync_profiles
from user_sync_pipeline.core.profiles.report import ProfileStatus, ProfileSyncResult, format_status
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine, database_errors
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids
from user_sync_pipeline_tests.postgres.test_findings import add_salesforce_user, findings, links


def status_of(engine: Engine) -> ProfileStatus:
    status = SqlDirectory(engine).status()
    assert status.total_user_profiles - status.orphan_profiles + status.missing_profiles == status.total_auth_users
    assert status.exactness == "exact"
    return status


def sync(engine: Engine, **options: Any) -> ProfileSyncResult:
    return sync_profiles(SqlDirectory(engine), **options)


def line_of(engine: Engine, label: str) -> str:
    [line] = [line for line in format_status(status_of(engine), verbose=True).splitlines() if line.startswith(label)]
    return line.removeprefix(f"{label}:").strip()


def change(engine: Engine, user_id: UUID, assignments: str) -> None:
    execute(engine, f"UPDATE auth.users SET {assignments} WHERE id = :id", id=user_id)


def profile(engine: Engine, user_id: UUID) -> dict[str, Any]:
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM user_profiles WHERE id = :id"), {"id": user_id}).mappings().one()
    return dict(row)


def during_a_sync(engine: Engine, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> ProfileSyncResult:
    """Sync in slices of two, and let something happen after the first."""
    monkeypatch.setattr(sql_directory, "SLICE", 2)
    waiting = [act]
    return sync(engine, progress=lambda _: waiting.pop()() if waiting else None)


def test_case_01_users_who_sign_up_during_the_sync_are_counted_and_caught_up_with(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        add_user(profiles)
    result = during_a_sync(profiles, monkeypatch, lambda: [add_user(profiles) for _ in range(3)] and None)
    assert (result.profiles_created, result.failed_creations) == (5, 0)
    assert (status_of(profiles).total_auth_users, status_of(profiles).missing_profiles) == (8, 3)
    assert sync(profiles).profiles_created == 3
    assert status_of(profiles).sync_percentage == 100


def test_case_02_users_who_are_deleted_during_the_sync_are_no_failures(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = sorted(add_user(profiles) for _ in range(6))
    last_ones = ", ".join(f"'{user_id}'" for user_id in users)

    def delete() -> None:
        without = f"id IN ({last_ones}) AND id NOT IN (SELECT id FROM user_profiles)"
        execute(profiles, f"DELETE FROM auth.users WHERE id = (SELECT id FROM auth.users WHERE {without} LIMIT 1)")

    result = during_a_sync(profiles, monkeypatch, delete)
    assert (result.profiles_created, result.failures) == (5, ())
    assert status_of(profiles).missing_profiles == 0


def test_case_03_soft_deleted_users_have_a_line_of_their_own_and_never_get_a_profile(profiles: Engine) -> None:
    without, with_profile = add_user(profiles, deleted=True), add_user(profiles, profile=True)
    change(profiles, with_profile, "deleted_at = now()")
    assert sync(profiles, preserve=False).profiles_created == 0
    assert profile_ids(profiles) == {with_profile}
    assert without not in profile_ids(profiles)
    status = status_of(profiles)
    assert (status.total_auth_users, status.missing_profiles, status.orphan_profiles) == (0, 0, 1)
    assert line_of(profiles, "Soft-Deleted Users") == "2"


def test_case_04_anonymous_users_count_and_their_conversion_needs_nothing(profiles: Engine) -> None:
    user_id = add_user(profiles)
    change(profiles, user_id, "is_anonymous = true, email_confirmed_at = NULL")
    assert (status_of(profiles).total_auth_users, line_of(profiles, "Anonymous Users")) == (1, "1")
    assert sync(profiles).profiles_created == 1
    change(profiles, user_id, "is_anonymous = false, email = 'now@example.com'")
    assert (status_of(profiles).missing_profiles, line_of(profiles, "Anonymous Users")) == (0, "0")


def test_case_05_users_by_sso_may_share_an_e_mail_and_are_not_matched_by_it(profiles: Engine) -> None:
    users = {add_user(profiles, "shared@example.com")}
    execute(profiles, "UPDATE auth.users SET is_sso_user = true")
    users.add(add_user(profiles, "shared@example.com"))
    assert sync(profiles).profiles_created == 2
    assert profile_ids(profiles) == users
    add_salesforce_user(profiles, 1, "shared@example.com")
    assert {finding for finding, _, _ in findings(profiles)} == {"ambiguous_email"}
    assert links(profiles) == set()


@pytest.mark.parametrize("email", [None, ""])
def test_case_06_without_an_e_mail_the_profile_holds_null(profiles: Engine, email: str | None) -> None:
    user_id = add_user(profiles, email)
    change(profiles, user_id, "phone = '12025550123'")
    assert sync(profiles).profiles_created == 1
    made = profile(profiles, user_id)
    assert (made["email"], made["phone"]) == (None, "12025550123")
    assert findings(profiles) == set()
    assert sync(profiles, dry_run=True, preserve=False).refreshed_profiles == 0


def test_case_07_a_ban_is_no_deletion(profiles: Engine) -> None:
    add_user(profiles, banned=True)
    change(profiles, add_user(profiles), "banned_until = now() - interval '1 day'")
    assert (status_of(profiles).total_auth_users, line_of(profiles, "Banned Users")) == (2, "1")
    assert sync(profiles).profiles_created == 2


def test_case_08_unconfirmed_users_count_but_their_e_mail_proves_nothing(profiles: Engine) -> None:
    user_id = add_user(profiles, "ann@example.com", verified=False)
    alone = add_salesforce_user(profiles, 1, "ann@example.com")
    assert (status_of(profiles).missing_profiles, line_of(profiles, "Unconfirmed Users")) == (1, "1")
    assert sync(profiles).profiles_created == 1
    assert findings(profiles) == {("active_in_salesforce_without_sign_in", None, alone)}
    assert links(profiles) == set()
    assert profile(profiles, user_id)["email"] == "ann@example.com"


def test_case_09_who_was_invited_and_never_came_counts(profiles: Engine) -> None:
    user_id = add_user(profiles, "ann@example.com", verified=False)
    change(profiles, user_id, "invited_at = now(), role = ''")
    assert status_of(profiles).missing_profiles == 1
    assert sync(profiles).profiles_created == 1


def test_case_10_users_made_by_hand_are_counted_by_audience_and_those_of_another_apart(profiles: Engine) -> None:
    execute(profiles, "INSERT INTO auth.users (id, aud) VALUES (gen_random_uuid(), 'authenticated')")
    execute(profiles, "INSERT INTO auth.users (id) VALUES (gen_random_uuid())")
    execute(profiles, "INSERT INTO auth.users (id, aud) VALUES (gen_random_uuid(), 'other')")
    execute(profiles, "DELETE FROM user_profiles")
    assert (status_of(profiles).total_auth_users, line_of(profiles, "Users Outside API")) == (1, "2")
    assert sync(profiles).profiles_created == 1


def test_case_11_poison_rows_are_counted_get_profiles_and_are_never_written_to(profiles: Engine) -> None:
    user_id = add_user(profiles, "ann@example.com")
    change(
        profiles,
        user_id,
        "role = NULL, confirmation_token = NULL, recovery_token = NULL, created_at = NULL, raw_user_meta_data = '[1]'",
    )
    everything = text("SELECT to_jsonb(u) FROM auth.users AS u")
    with profiles.connect() as connection:
        before = connection.execute(everything).scalar_one()
    assert status_of(profiles).missing_profiles == 1
    assert sync(profiles, preserve=False).profiles_created == 1
    with profiles.connect() as connection:
        assert connection.execute(everything).scalar_one() == before


def test_case_12_e_mails_are_compared_without_case_and_kept_as_they_are(profiles: Engine) -> None:
    user_id = add_user(profiles, " Ann@Example.COM ")
    assert sync(profiles).profiles_created == 1
    assert profile(profiles, user_id)["email"] == " Ann@Example.COM "
    person = add_salesforce_user(profiles, 1, "ann@example.com")
    assert findings(profiles) == set()
    assert links(profiles) == {(user_id, person, "verified e-mail")}
    execute(profiles, "UPDATE user_profiles SET email = 'ann@example.com'")
    assert findings(profiles) == set()


def test_case_13_an_e_mail_of_two_salesforce_users_links_nobody_unless_an_id_does(profiles: Engine) -> None:
    user_id = add_user(profiles, "ann@example.com", profile=True)
    first = add_salesforce_user(profiles, 1, "ann@example.com")
    second = add_salesforce_user(profiles, 2, "ANN@example.com")
    ambiguous = {
        ("ambiguous_email", user_id, None),
        ("ambiguous_email", None, first),
        ("ambiguous_email", None, second),
    }
    assert findings(profiles) == ambiguous
    assert links(profiles) == set()
    execute(profiles, "UPDATE sf_users SET external_id = :id WHERE id = :person", id=str(user_id), person=first)
    findings(profiles)
    assert links(profiles) == {(user_id, first, "External_ID__c")}


def test_case_14_an_e_mail_that_changed_later_is_found_and_refreshed_only_when_asked_for(profiles: Engine) -> None:
    user_id = add_user(profiles, "old@example.com", profile=True)
    change(profiles, user_id, "email = 'new@example.com'")
    stale = {("stale_email", user_id, None)}
    assert findings(profiles) == stale
    assert sync(profiles).refreshed_profiles is None
    assert findings(profiles) == stale
    assert sync(profiles, preserve=False).refreshed_profiles == 1
    assert findings(profiles) == set()
    assert profile(profiles, user_id)["email"] == "new@example.com"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ("null", None),
        ("[]", None),
        ('"text"', None),
        ("7", None),
        ("{}", None),
        ('{"full_name": null}', None),
        ('{"full_name": 7}', None),
        ('{"full_name": {"first": "A"}}', None),
        ('{"full_name": ["A"]}', None),
        ('{"full_name": "   "}', None),
        ('{"full_name": "  Ada Byron "}', "Ada Byron"),
        ('{"full_name": "' + "é" * 900 + '"}', "é" * 200),
    ],
)
def test_case_15_of_metadata_only_text_is_taken_trimmed_and_cut(
    profiles: Engine, metadata: str, name: str | None
) -> None:
    user_id = add_user(profiles)
    execute(profiles, "UPDATE auth.users SET raw_user_meta_data = CAST(:metadata AS jsonb)", metadata=metadata)
    assert sync(profiles).profiles_created == 1
    assert profile(profiles, user_id)["full_name"] == name


def test_case_16_users_of_one_moment_are_counted_and_synced_to_the_last(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        profiles,
        "INSERT INTO auth.users (id, aud, created_at)"
        " SELECT gen_random_uuid(), 'authenticated', timestamptz '2026-01-01' FROM generate_series(1, 700)",
    )
    execute(profiles, "DELETE FROM user_profiles")
    monkeypatch.setattr(sql_directory, "SLICE", 100)
    assert status_of(profiles).missing_profiles == 700
    assert sync(profiles).profiles_created == 700
    assert status_of(profiles).missing_profiles == 0


def test_case_17_profiles_without_a_user_are_told_and_never_deleted(engine: Engine) -> None:
    execute(engine, "ALTER TABLE user_profiles DROP CONSTRAINT user_profiles_id_fkey")
    orphan = UUID(int=7)
    execute(engine, "INSERT INTO user_profiles (id) VALUES (:id)", id=orphan)
    assert line_of(engine, "Orphan Profiles") == "1"
    sync(engine, preserve=False)
    assert findings(engine) == {("orphan_profile", orphan, None)}
    assert profile_ids(engine) == {orphan}


def test_case_18_one_person_with_two_users_has_two_profiles(profiles: Engine) -> None:
    users = {add_user(profiles, "ann@example.com"), add_user(profiles)}
    execute(profiles, "UPDATE auth.users SET phone = '12025550123' WHERE email IS NULL")
    assert sync(profiles).profiles_created == 2
    assert profile_ids(profiles) == users


def test_case_19_a_unique_constraint_of_an_application_costs_only_the_row_at_fault(engine: Engine) -> None:
    execute(engine, "ALTER TABLE user_profiles ADD CONSTRAINT one_name UNIQUE (full_name)")
    users = [add_user(engine, f"{number}@example.com") for number in range(6)]
    names = ["Ann", "Bob", "Ann", "Cid", "Dan", "Eve"]
    for user_id, name in zip(users, names, strict=True):
        change(engine, user_id, f"""raw_user_meta_data = '{{"full_name": "{name}"}}'""")
    result = sync(engine)
    assert result.profiles_created == 5
    [failure] = result.failures
    assert failure.user_id in (users[0], users[2])
    assert failure.reason == "SQLSTATE 23505, constraint one_name"
    assert result.success_rate == 83.33


def test_case_20_a_table_of_another_shape_is_refused_and_left_as_it_is(supabase_database: str) -> None:
    engine = create_database_engine(supabase_database)
    execute(engine, "CREATE TABLE public.user_profiles (user_id uuid PRIMARY KEY, team text NOT NULL)")
    with pytest.raises(ConfigurationError, match="user_profiles"):
        apply_migrations(database_url=supabase_database, profiles_url=supabase_database)
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 'user_profiles'::regclass AND attnum > 0 ORDER BY attnum"
    with engine.connect() as connection:
        assert connection.scalars(text(query)).all() == ["user_id", "team"]
    engine.dispose()


def test_case_21_a_sign_up_without_its_profile_is_noted_and_healed_by_the_next_sync(engine: Engine) -> None:
    execute(engine, "ALTER TABLE user_profiles ADD CONSTRAINT nobody CHECK (email IS NULL)")
    users = {add_user(engine, f"{number}@example.com", profile=True) for number in range(3)}
    failures = "SELECT count(*) FROM app_private.profile_failures"
    with engine.connect() as connection:
        assert connection.scalar(text(failures)) == 3
    assert sync(engine).failed_creations == 3
    with engine.connect() as connection:
        assert connection.scalar(text(failures)) == 3
    execute(engine, "ALTER TABLE user_profiles DROP CONSTRAINT nobody")
    by_hand = users.pop()
    execute(engine, "INSERT INTO user_profiles (id) VALUES (:id)", id=by_hand)
    assert sync(engine).profiles_created == 2
    assert profile_ids(engine) == users | {by_hand}
    with engine.connect() as connection:
        assert connection.scalar(text(failures)) == 0


def test_case_21_the_function_for_the_service_key_heals_as_well(engine: Engine) -> None:
    user_id = add_user(engine)
    execute(engine, "INSERT INTO app_private.profile_failures VALUES (:id, '23505', 'x')", id=user_id)
    execute(engine, "SELECT profile_backfill(10)")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM app_private.profile_failures")) == 0
    assert profile_ids(engine) == {user_id}


@pytest.mark.slow
@pytest.mark.parametrize("preserve", [True, False])
def test_case_22_two_syncs_at_once_do_everything_once(
    profiles: Engine, monkeypatch: pytest.MonkeyPatch, preserve: bool
) -> None:
    monkeypatch.setattr(sql_directory, "SLICE", 20)
    for number in range(60):
        add_user(profiles, f"{number}@example.com", profile=number < 30)
    execute(profiles, "UPDATE auth.users SET email = 'later-' || email")
    results: list[ProfileSyncResult] = []
    together = threading.Barrier(2)

    def one() -> None:
        together.wait()
        results.append(sync(profiles, preserve=preserve))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.profiles_created for result in results) == 30
    assert sum(result.refreshed_profiles or 0 for result in results) == (0 if preserve else 30)
    assert [result.failures for result in results] == [(), ()]
    assert status_of(profiles).missing_profiles == 0


def test_case_23_a_replica_is_counted_by_one_statement_and_takes_no_sync(profiles: Engine) -> None:
    add_user(profiles)
    url = make_url(profiles.url.render_as_string(hide_password=False))
    replica = create_database_engine(
        url.update_query_dict({"options": "-c default_transaction_read_only=on"}).render_as_string(hide_password=False)
    )
    assert status_of(replica).missing_profiles == 1
    with pytest.raises(ConfigurationError, match="replica"), database_errors():
        sync(replica)
    replica.dispose()
    assert profile_ids(profiles) == set()
