"""Both doors to auth users and profiles: the same users, the same figures, the same profiles in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

import pytest
from sqlalchemy import Engine, make_url

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.profiles.directory import ProfileDirectory, open_directory
from user_sync_pipeline.core.profiles.reconcile import sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.conftest import supabase_on
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids, refuse_profiles_of

DOORS = ("sql", "rpc", "api")


@pytest.fixture
def supabase(
    postgres_server: PostgresServer, migrated_database: str, authority: CertificateAuthority
) -> Iterator[SupabaseSimulator]:
    """The HTTP side of the database that `engine` leads to."""
    database = make_url(migrated_database).database
    assert database is not None
    with supabase_on(postgres_server, database, authority) as simulator:
        yield simulator


def settings_of(supabase: SupabaseSimulator) -> SupabaseSettings:
    return SupabaseSettings.from_environment(supabase.environment())


@pytest.fixture(params=DOORS)
def directory(
    request: pytest.FixtureRequest, engine: Engine, supabase: SupabaseSimulator
) -> Iterator[ProfileDirectory]:
    """Each door in turn; `api` is the project on which nobody installed our functions."""
    with ExitStack() as stack:
        if request.param == "sql":
            yield stack.enter_context(SqlDirectory(engine))
            return
        if request.param == "api":
            execute(engine, "DROP FUNCTION profile_sync_report(); DROP FUNCTION profile_backfill(integer, uuid, uuid)")
        settings = settings_of(supabase)
        assert settings.url is not None
        assert settings.service_role_key is not None
        yield stack.enter_context(
            SupabaseDirectory(settings.url, settings.service_role_key, ca_bundle=settings.ca_bundle)
        )


def test_status_counts_who_is_in_scope_and_what_is_missing(directory: ProfileDirectory, engine: Engine) -> None:
    for number in range(5):
        add_user(engine, f"with{number}@example.com", profile=True)
    for number in range(2):
        add_user(engine, f"without{number}@example.com")
    add_user(engine, deleted=True)

    status = directory.status()

    assert (status.total_auth_users, status.total_user_profiles, status.missing_profiles) == (7, 5, 2)
    assert (status.orphan_profiles, status.soft_deleted_users) == (0, 1)
    assert status.sync_percentage == 71.43
    assert status.exactness == "exact"


def test_a_soft_deleted_user_with_a_profile_is_an_orphan_and_the_sum_still_holds(
    directory: ProfileDirectory, engine: Engine
) -> None:
    user_id = add_user(engine, profile=True)
    execute(engine, "UPDATE auth.users SET deleted_at = now() WHERE id = :id", id=user_id)
    status = directory.status()
    assert (status.total_auth_users, status.total_user_profiles, status.orphan_profiles) == (0, 1, 1)
    assert status.total_user_profiles - status.orphan_profiles + status.missing_profiles == status.total_auth_users


def test_a_project_without_users_is_in_step(directory: ProfileDirectory) -> None:
    status = directory.status()
    assert (status.total_auth_users, status.sync_percentage) == (0, 100)


@pytest.mark.slow
def test_a_sync_creates_what_is_missing_and_the_next_one_nothing(directory: ProfileDirectory, engine: Engine) -> None:
    missing = {add_user(engine, f"u{number}@example.com") for number in range(7)}
    present = add_user(engine, "here@example.com", profile=True)
    execute(engine, "UPDATE user_profiles SET full_name = 'Chosen By Hand', role = 'admin' WHERE id = :id", id=present)

    first = sync_profiles(directory)
    assert (first.profiles_created, first.existing_profiles, first.failed_creations) == (7, 1, 0)
    assert profile_ids(engine) == missing | {present}

    second = sync_profiles(directory)
    assert (second.profiles_created, second.success_rate) == (0, 100)
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT full_name, role FROM user_profiles WHERE source = 'trigger'").one()
    assert tuple(kept) == ("Chosen By Hand", "admin")


def test_a_dry_run_counts_the_same_and_writes_nothing(directory: ProfileDirectory, engine: Engine) -> None:
    for number in range(3):
        add_user(engine, f"u{number}@example.com")
    preview = sync_profiles(directory, dry_run=True)
    assert (preview.profiles_created, preview.dry_run) == (3, True)
    assert profile_ids(engine) == set()


def test_soft_deleted_users_never_get_a_profile(directory: ProfileDirectory, engine: Engine) -> None:
    add_user(engine, deleted=True)
    assert sync_profiles(directory).profiles_created == 0
    assert profile_ids(engine) == set()


@pytest.mark.slow
def test_a_refused_user_costs_only_the_own_profile_and_is_named_with_the_constraint(
    directory: ProfileDirectory, engine: Engine
) -> None:
    users = [add_user(engine, f"u{number}@example.com") for number in range(9)]
    refuse_profiles_of(engine, users[3:5])

    result = sync_profiles(directory)

    assert result.profiles_created == 7
    assert {failure.user_id for failure in result.failures} == set(users[3:5])
    assert {failure.reason for failure in result.failures} == {"SQLSTATE 23514, constraint refused_here"}
    assert "example.com" not in str(result.as_json())


@pytest.mark.slow
def test_two_syncs_at_once_create_each_profile_once(engine: Engine) -> None:
    for number in range(300):
        add_user(engine, f"u{number}@example.com")
    created: list[int] = []
    threads = [
        Thread(target=lambda: created.append(sync_profiles(SqlDirectory(engine)).profiles_created)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(created) == len(profile_ids(engine)) == 300


def test_refreshing_mirrors_the_e_mail_and_leaves_the_role(engine: Engine) -> None:
    user_id = add_user(engine, "old@example.com", profile=True)
    execute(engine, "UPDATE user_profiles SET role = 'admin'")
    execute(engine, "UPDATE auth.users SET email = 'new@example.com' WHERE id = :id", id=user_id)

    assert sync_profiles(SqlDirectory(engine), dry_run=True, preserve=False).refreshed_profiles == 1
    assert sync_profiles(SqlDirectory(engine)).refreshed_profiles is None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT email FROM user_profiles").scalar() == "old@example.com"

    assert sync_profiles(SqlDirectory(engine), preserve=False).refreshed_profiles == 1
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT email, role FROM user_profiles").one()
    assert tuple(row) == ("new@example.com", "admin")


# Which door is taken ------------------------------------------------------------------------------------------------


def test_the_database_is_the_better_door_when_both_are_there(engine: Engine, supabase: SupabaseSimulator) -> None:
    with open_directory(settings_of(supabase), engine) as directory:
        assert directory.status().method == "sql"


def test_without_a_database_the_key_is_enough(engine: Engine, supabase: SupabaseSimulator) -> None:
    with open_directory(settings_of(supabase)) as directory:
        assert directory.status().method == "rpc"


def test_with_nothing_configured_the_settings_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"SUPABASE_DB_URL.*SUPABASE_URL"):
        open_directory(SupabaseSettings())


def test_a_database_before_the_migration_names_the_command(supabase_database: str) -> None:
    from user_sync_pipeline.core.warehouse.database import create_database_engine

    engine = create_database_engine(supabase_database)
    with pytest.raises(ConfigurationError, match="user-sync migrate apply"):
        open_directory(SupabaseSettings(), engine)
    engine.dispose()


def test_a_project_before_the_migration_is_explained(engine: Engine, supabase: SupabaseSimulator) -> None:
    execute(engine, "DROP TABLE user_profiles CASCADE; DROP FUNCTION profile_sync_report()")
    with open_directory(settings_of(supabase)) as directory, pytest.raises(ConfigurationError, match="migrations"):
        directory.status()


def test_a_project_that_is_not_there_is_unreachable(engine: Engine, supabase: SupabaseSimulator) -> None:
    with open_directory(settings_of(supabase)) as directory:
        supabase.stop()
        with pytest.raises(UnreachableError, match="SUPABASE_URL"):
            directory.status()
