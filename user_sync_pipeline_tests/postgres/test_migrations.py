from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.warehouse import migration_scripts, migrations
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migration_scripts import migrations_in
from user_sync_pipeline.core.warehouse.migrations import apply_migrations, migrations_applied
from user_sync_pipeline_tests.postgres.conftest import execute

SALESFORCE_SIDE, PROFILES_SIDE = "0001_salesforce_side", "0002_profiles_side"


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as connection:
        yield connection


def tables_of(url: str) -> list[str]:
    with connected(url) as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT schemaname || '.' || tablename FROM pg_tables "
                "WHERE schemaname IN ('public', 'user_sync', 'app_private') ORDER BY 1"
            )
        ]


def shipped_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Let the package ship these files instead; their names are those of the `up` files."""
    for name, statements in files.items():
        (folder / f"{name.removeprefix('_')}.up.sql").write_text(statements, encoding="utf-8")
    monkeypatch.setattr(migrations, "shipped_path", lambda _name: folder)


def test_a_plain_postgres_gets_the_salesforce_side_and_hears_what_was_left_out(empty_database: str) -> None:
    report = apply_migrations(database_url=empty_database, profiles_url=None)
    assert (report.applied, report.present) == ((SALESFORCE_SIDE,), ())
    (left_out,) = report.left_out
    assert left_out.name == PROFILES_SIDE
    assert left_out.reason.startswith("USER_SYNC_DATABASE_URL has no auth.users; set SUPABASE_DB_URL")
    assert "public.sf_users" in tables_of(empty_database)
    assert "public.user_profiles" not in tables_of(empty_database)
    assert migrations_applied(empty_database) == (SALESFORCE_SIDE,)


def test_applying_again_changes_nothing(empty_database: str) -> None:
    apply_migrations(database_url=empty_database, profiles_url=None)
    execute(
        empty_database,
        "INSERT INTO user_sync.profile_reconciliation (finding, reason) VALUES ('kept', 'kept')",
    )
    report = apply_migrations(database_url=empty_database, profiles_url=None)
    assert (report.applied, report.present) == ((), (SALESFORCE_SIDE,))
    with connected(empty_database) as connection:
        assert connection.execute("SELECT finding FROM user_sync.profile_reconciliation").fetchall() == [("kept",)]


def test_a_supabase_database_holds_both_sides(supabase_database: str) -> None:
    report = apply_migrations(database_url=supabase_database, profiles_url=supabase_database)
    assert (report.applied, report.left_out) == ((SALESFORCE_SIDE, PROFILES_SIDE), ())
    assert {"public.sf_users", "public.user_profiles"} <= set(tables_of(supabase_database))
    assert apply_migrations(database_url=supabase_database, profiles_url=None).present == (
        SALESFORCE_SIDE,
        PROFILES_SIDE,
    )


@pytest.mark.slow
def test_the_sides_may_live_in_two_databases(empty_database: str, supabase_database: str) -> None:
    report = apply_migrations(database_url=empty_database, profiles_url=supabase_database)
    assert (report.applied, report.left_out) == ((SALESFORCE_SIDE, PROFILES_SIDE), ())
    assert migrations_applied(empty_database) == (SALESFORCE_SIDE,)
    assert migrations_applied(supabase_database) == (PROFILES_SIDE,)
    assert "public.sf_users" not in tables_of(supabase_database)


def test_the_other_database_is_named_by_its_own_setting(empty_database: str, supabase_database: str) -> None:
    nowhere = make_url(supabase_database).set(port=1).render_as_string(hide_password=False)
    with pytest.raises(UnreachableError, match=r"^SUPABASE_DB_URL: the server at 127.0.0.1:1"):
        apply_migrations(database_url=empty_database, profiles_url=nowhere)


def test_a_database_without_any_migration_says_so(empty_database: str) -> None:
    assert migrations_applied(empty_database) == ()


def test_two_at_once_are_harmless(empty_database: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(lambda url: apply_migrations(database_url=url, profiles_url=None), [empty_database] * 2)
        )
    assert sorted(report.applied for report in reports) == [(), (SALESFORCE_SIDE,)]
    assert migrations_applied(empty_database) == (SALESFORCE_SIDE,)


@pytest.mark.slow
def test_down_undoes_up_and_up_works_again(empty_database: str) -> None:
    apply_migrations(database_url=empty_database, profiles_url=None)
    (salesforce_side, *_) = migrations_in(shipped_path("sql/migrations"))
    engine = create_database_engine(empty_database)
    with engine.begin() as connection:
        salesforce_side.run("down", connection)
        connection.execute(text("DELETE FROM user_sync.alembic_version"))
    engine.dispose()
    assert tables_of(empty_database) == ["user_sync.alembic_version"]
    assert apply_migrations(database_url=empty_database, profiles_url=None).applied == (SALESFORCE_SIDE,)


def test_every_migration_can_be_undone() -> None:
    shipped = migrations_in(shipped_path("sql/migrations"))
    assert [migration.name for migration in shipped][:2] == [SALESFORCE_SIDE, PROFILES_SIDE]
    assert all((migration.folder / f"{migration.name}.down.sql").is_file() for migration in shipped)


@pytest.mark.slow
def test_a_lock_that_is_held_for_a_while_is_waited_for(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_elsewhere(tmp_path, monkeypatch, _0001_salesforce_index="CREATE INDEX ON public.busy (id);")
    monkeypatch.setattr(migration_scripts, "_LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.1)
    execute(empty_database, "CREATE TABLE public.busy (id integer)")
    with connected(empty_database) as holder:
        holder.execute("LOCK TABLE public.busy")
        release = threading.Timer(0.2, holder.rollback)
        release.start()
        report = apply_migrations(database_url=empty_database, profiles_url=None)
        release.join()
    assert report.applied == ("0001_salesforce_index",)


@pytest.mark.slow
def test_a_lock_that_is_held_for_ever_is_given_up_with_a_sentence(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_elsewhere(tmp_path, monkeypatch, _0001_salesforce_index="CREATE INDEX ON public.busy (id);")
    monkeypatch.setattr(migration_scripts, "_LOCK_TIMEOUT", "10ms")
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.0)
    execute(empty_database, "CREATE TABLE public.busy (id integer)")
    with connected(empty_database) as holder:
        holder.execute("LOCK TABLE public.busy")
        with pytest.raises(UnreachableError, match="kept a lock for another session"):
            apply_migrations(database_url=empty_database, profiles_url=None)
    assert migrations_applied(empty_database) == ()


def test_a_file_that_fails_leaves_nothing_and_the_ones_before_it_stay(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_elsewhere(
        tmp_path,
        monkeypatch,
        _0001_salesforce_first="CREATE TABLE public.first (note text DEFAULT '100 %');",
        _0002_salesforce_second="CREATE TABLE public.second (); SELECT 1 / 0;",
    )
    with pytest.raises(
        ConfigurationError, match=r"0002_salesforce_second\.up\.sql cannot be applied: division by zero"
    ):
        apply_migrations(database_url=empty_database, profiles_url=None)
    assert tables_of(empty_database) == ["public.first", "user_sync.alembic_version"]

    (tmp_path / "0002_salesforce_second.up.sql").write_text("CREATE TABLE public.second ();", encoding="utf-8")
    report = apply_migrations(database_url=empty_database, profiles_url=None)
    assert (report.applied, report.present) == (("0002_salesforce_second",), ("0001_salesforce_first",))


def test_a_database_of_a_newer_version_is_refused(empty_database: str) -> None:
    apply_migrations(database_url=empty_database, profiles_url=None)
    execute(empty_database, "UPDATE user_sync.alembic_version SET version_num = '0099'")
    with pytest.raises(ConfigurationError, match=r"holds migration 0099.*update user-sync-pipeline"):
        apply_migrations(database_url=empty_database, profiles_url=None)


def test_a_role_that_may_not_create_anything_is_told_so(empty_database: str) -> None:
    execute(empty_database, "CREATE ROLE nobody_much LOGIN PASSWORD 'nothing'")
    try:
        visitor = make_url(empty_database).set(username="nobody_much", password="nothing")
        with pytest.raises(ConfigurationError, match="refuses this role a permission"):
            apply_migrations(database_url=visitor.render_as_string(hide_password=False), profiles_url=None)
    finally:
        execute(empty_database, "DROP ROLE nobody_much")


@pytest.mark.slow
def test_alembic_says_nothing_and_is_imported_only_when_it_works(
    empty_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    apply_migrations(database_url=empty_database, profiles_url=None)
    assert caplog.text == ""
    program = f"import sys, {migrations.__name__}; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
