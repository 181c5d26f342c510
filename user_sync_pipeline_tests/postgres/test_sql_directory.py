"""What only the SQL door can see or refuse: every kind of user, slices, rights of the role."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles import sql_directory
from user_sync_pipeline.core.profiles.directory import open_directory
from user_sync_pipeline.core.profiles.reconcile import ProfileProgress, sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import patient
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, refuse_profiles_of

# What may be true of one id: the values of a row of auth.users, or None for nobody.
KINDS: dict[str, str | None] = {
    "ordinary": "'authenticated', 'a@example.com', NULL, NULL, false",
    "anonymous": "'authenticated', NULL, NULL, NULL, true",
    "banned": "'authenticated', NULL, timestamptz '2999-01-01', NULL, false",
    "soft-deleted": "'authenticated', NULL, NULL, now(), false",
    "other audience": "'other', NULL, NULL, NULL, false",
    "no audience": "NULL, NULL, NULL, NULL, false",
    "nobody": None,
}
IN_SCOPE = ("ordinary", "anonymous", "banned")


@pytest.fixture
def directory(engine: Engine) -> SqlDirectory:
    return SqlDirectory(engine)


@pytest.fixture
def superuser(engine: Engine, postgres_server: PostgresServer) -> Iterator[Engine]:
    superuser = create_database_engine(patient(postgres_server.url(engine.url.database or "")))
    yield superuser
    superuser.dispose()


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(KINDS)), st.booleans()), max_size=12))
def test_the_status_counts_as_the_rule_says_and_the_function_reports_the_same(
    engine: Engine, directory: SqlDirectory, world: list[tuple[str, bool]]
) -> None:
    build(engine, world)

    status = directory.status()

    profiles_of_users = [has_profile for kind, has_profile in world if kind in IN_SCOPE]
    assert status.total_auth_users == len(profiles_of_users)
    assert status.missing_profiles == profiles_of_users.count(False)
    assert status.total_user_profiles == sum(has_profile for _, has_profile in world)
    assert status.total_user_profiles - status.orphan_profiles + status.missing_profiles == status.total_auth_users
    assert status.soft_deleted_users == sum(kind == "soft-deleted" for kind, _ in world)
    assert status.users_outside_api == sum(kind.endswith("audience") for kind, _ in world)
    assert (status.method, status.exactness, status.trigger_installed) == ("sql", "exact", True)
    with engine.connect() as connection:
        report = connection.execute(text("SELECT * FROM public.profile_sync_report()")).mappings().one()
    assert {name: getattr(status, name) for name in report} == dict(report)


def build(engine: Engine, world: list[tuple[str, bool]]) -> None:
    """Make that world and no other; the foreign key, which a restored table may lack, is not in its way."""
    ids = [uuid4() for _ in world]
    users = [(user_id, KINDS[kind]) for user_id, (kind, _) in zip(ids, world, strict=True)]
    execute(engine, "ALTER TABLE user_profiles DROP CONSTRAINT IF EXISTS user_profiles_id_fkey")
    execute(engine, "DELETE FROM auth.users")
    for user_id, values in users:
        if values is not None:
            columns = "id, aud, email, banned_until, deleted_at, is_anonymous, is_sso_user"
            execute(engine, f"INSERT INTO auth.users ({columns}) VALUES ('{user_id}', {values}, true)")
    execute(engine, "DELETE FROM user_profiles")
    with_profile = [user_id for user_id, (_, has_profile) in zip(ids, world, strict=True) if has_profile]
    execute(engine, "INSERT INTO user_profiles (id) SELECT unnest(CAST(:ids AS uuid[]))", ids=with_profile)


@pytest.mark.slow
def test_145_of_150_is_96_67(engine: Engine, directory: SqlDirectory) -> None:
    build(engine, [("ordinary", number >= 5) for number in range(150)])

    assert directory.status().sync_percentage == 96.67


def test_progress_is_told_slice_by_slice_and_counts_refusals_as_done(
    engine: Engine, directory: SqlDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_directory, "SLICE", 8)
    users = [add_user(engine) for _ in range(20)]
    refuse_profiles_of(engine, users[:3])
    progress: list[ProfileProgress] = []

    result = sync_profiles(directory, progress=progress.append)

    assert [(step.done, step.total) for step in progress] == [(8, 20), (16, 20), (20, 20)]
    assert (result.profiles_created, result.failed_creations, result.success_rate) == (17, 3, 85.0)


def test_a_required_column_is_named_as_the_reason(engine: Engine, directory: SqlDirectory) -> None:
    add_user(engine)
    execute(engine, "ALTER TABLE user_profiles ADD team text NOT NULL")

    assert [failure.reason for failure in sync_profiles(directory).failures] == ["SQLSTATE 23502, column team"]


def test_a_user_who_vanishes_meanwhile_is_no_failure(engine: Engine, directory: SqlDirectory) -> None:
    users = [add_user(engine) for _ in range(3)]
    vanish(engine, users[1])

    result = sync_profiles(directory)

    assert (result.profiles_created, result.vanished_users, result.failures) == (2, 1, ())


def vanish(engine: Engine, user_id: UUID) -> None:
    """Let the foreign key miss that user, as when a deletion comes between the reading and the writing."""
    execute(
        engine,
        f"""
        CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.id = '{user_id}' THEN new.id = gen_random_uuid(); END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER vanish BEFORE INSERT ON user_profiles FOR EACH ROW EXECUTE FUNCTION vanish();
        """,
    )


def test_an_error_that_is_about_no_row_ends_the_sync(engine: Engine, directory: SqlDirectory) -> None:
    add_user(engine)
    execute(engine, "ALTER TABLE user_profiles RENAME source TO origin")

    with pytest.raises(DBAPIError):
        sync_profiles(directory)


@pytest.mark.slow
def test_the_first_sync_into_an_empty_table_does_not_slow_down_as_it_fills(
    engine: Engine, superuser: Engine, directory: SqlDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join planned for an empty table, and still running, would go through all new profiles for each user left."""
    monkeypatch.setattr(sql_directory, "SLICE", 500)
    execute(
        engine,
        "INSERT INTO auth.users (id, aud) SELECT gen_random_uuid(), 'authenticated' FROM generate_series(1, 5000)",
    )
    execute(engine, "TRUNCATE user_profiles")
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE auth.users, user_profiles"))

    assert sync_profiles(directory).profiles_created == 5000

    engine.dispose()  # sessions that end tell what they did
    with superuser.connect() as connection:
        pages = "SELECT heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'user_profiles'"
        assert connection.scalar(text(pages)) < 50_000


def test_a_role_to_which_the_users_look_empty_is_not_believed(engine: Engine, superuser: Engine) -> None:
    execute(
        superuser,
        """
        CREATE ROLE profile_reader LOGIN PASSWORD 'x';
        GRANT USAGE ON SCHEMA auth TO profile_reader;
        GRANT SELECT ON auth.users, user_profiles TO profile_reader;
        """,
    )
    add_user(engine)
    reader = create_database_engine(
        engine.url.set(username="profile_reader", password="x").render_as_string(hide_password=False)
    )
    with reader.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM auth.users")) == 0
    with pytest.raises(ConfigurationError, match="SUPABASE_DB_URL"):
        open_directory(SupabaseSettings(), reader)
    reader.dispose()
