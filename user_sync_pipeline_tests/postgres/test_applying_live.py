"""The profiles side put in, mended and taken away while people sign up and sign in all the time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.warehouse import migrations
from user_sync_pipeline.core.warehouse.migrations import (
    apply_migrations,
    mend_profiles,
    remove_profiles,
    switch_off_profiles,
)
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url

SIGN_UP = "INSERT INTO auth.users (id, aud, email) VALUES (%s, 'authenticated', %s)"
SIGN_IN = "UPDATE auth.users SET last_sign_in_at = now() WHERE id = %s"


@contextmanager
def people_signing_up(url: str) -> Iterator[list[Exception]]:
    """Three who sign up, sign in and leave, again and again; yields what went wrong for them."""
    failures: list[Exception] = []
    done = threading.Event()

    def come_and_go() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not done.is_set():
                    user_id = uuid4()
                    connection.execute(SIGN_UP, [user_id, f"{user_id}@example.com"])
                    connection.execute(SIGN_IN, [user_id])
                    if user_id.int % 2:
                        connection.execute("DELETE FROM auth.users WHERE id = %s", [user_id])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_nobody_is_turned_away_and_the_next_sync_makes_up_for_what_was_left_out(
    supabase_database: str, postgres_server: PostgresServer
) -> None:
    people = role_url(postgres_server, make_url(supabase_database).database or "", "supabase_auth_admin")
    with people_signing_up(people) as failures:
        for _ in range(5):
            apply_migrations(database_url=supabase_database, profiles_url=None)
            mend_profiles(supabase_database)
            switch_off_profiles(supabase_database)
            mend_profiles(supabase_database)
            remove_profiles(supabase_database)
        apply_migrations(database_url=supabase_database, profiles_url=None)
    assert failures == []
    with psycopg.connect(supabase_database, autocommit=True) as connection:
        connection.execute("SELECT public.profile_backfill(1000000)")
        report = connection.execute(
            "SELECT total_auth_users > 0, missing_profiles, orphan_profiles, trigger_installed"
            " FROM public.profile_sync_report()"
        ).fetchone()
        assert report == (True, 0, 0, True)


@pytest.mark.slow
def test_whoever_waits_for_a_long_transaction_lets_sign_ins_through(
    supabase_database: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_TRIES", 3)
    apply_migrations(database_url=supabase_database, profiles_url=None)
    with psycopg.connect(supabase_database) as long_one, psycopg.connect(supabase_database) as sign_in:
        long_one.execute(SIGN_UP, [uuid4(), "long@example.com"])
        with pytest.raises(UnreachableError, match="kept a lock for another session"):
            mend_profiles(supabase_database)
        sign_in.execute(SIGN_UP, [uuid4(), "next@example.com"])
    mend_profiles(supabase_database)


def test_the_switch_waits_for_nobody(supabase_database: str) -> None:
    apply_migrations(database_url=supabase_database, profiles_url=None)
    with psycopg.connect(supabase_database) as holder:
        holder.execute("LOCK TABLE auth.users, public.user_profiles IN SHARE ROW EXCLUSIVE MODE")
        switch_off_profiles(supabase_database)
        holder.execute(SIGN_UP, [uuid4(), "a@example.com"])
        assert holder.execute("SELECT count(*) FROM public.user_profiles").fetchone() == (0,)
