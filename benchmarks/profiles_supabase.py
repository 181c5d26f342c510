"""Profiles by the Supabase door: counting users page by page, and creating what is missing, at so much a request.

Prints one Markdown table with medians; run it as

    python benchmarks/profiles_supabase.py [--runs 3] [--users 100000] [--missing 1000] [--latency-ms 20]

Postgres and the simulator have processes of their own, so they need a core of their own too. The pages are those of
the admin API (`api`), as in a project where our functions are not installed; `rpc` is the same where they are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import httpx
import psycopg

from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory

_USERS = """
    INSERT INTO auth.users (
        instance_id, id, aud, role, email, raw_app_meta_data, raw_user_meta_data, confirmation_token, recovery_token,
        email_change, email_change_token_new, created_at, updated_at, email_confirmed_at
    )
    SELECT '00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated',
        'user' || i || '@example.com', '{"provider": "email", "providers": ["email"]}',
        jsonb_build_object('full_name', 'Ada Byron ' || i), '', '', '', '',
        now() - i * interval '1 second', now(), now()
    FROM generate_series(1, %s) AS i
"""
_LOSE = """
    DELETE FROM public.user_profiles
    WHERE id IN (SELECT id FROM public.user_profiles ORDER BY md5(id::text) LIMIT %s)
"""
_WITHOUT_FUNCTIONS = """
    ALTER FUNCTION public.profile_sync_report() RENAME TO profile_sync_report_away;
    ALTER FUNCTION public.profile_backfill(integer, uuid, uuid) RENAME TO profile_backfill_away;
"""


class Project(NamedTuple):
    """Where a served project is: its database as role postgres, its address, its key and its issuer's certificate."""

    database_url: str
    url: str
    key: str
    ca_file: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--missing", type=int, default=1_000)
    parser.add_argument("--latency-ms", type=float, default=20)
    options = parser.parse_args()

    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    rows: list[tuple[str, str, str]] = []
    with served(options.users, options.latency_ms / 1000) as project:
        rows += measure(project, "rpc", options)
        execute(project, _WITHOUT_FUNCTIONS)
        rows += measure(project, "api", options)
    rows.append(("peak memory of the door's process", f"{peak_memory():.0f} MB", "-"))
    print("| what | measured | to reach |", "| --- | --- | --- |", sep="\n")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def measure(project: Project, way: str, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    counting, creating, requests = [], [], []
    with SupabaseDirectory(project.url, project.key, ca_bundle=project.ca_file) as door:
        for _ in range(options.runs):
            execute(project, _LOSE, options.missing)
            with counted_requests() as sent:
                started = time.perf_counter()
                status = door.status()
                counting.append(time.perf_counter() - started)
            requests.append(len(sent))
            told = status.method, status.exactness, status.total_auth_users, status.missing_profiles
            expect(told, (way, "exact", options.users, options.missing))
            started = time.perf_counter()
            created = sum(creation.created for creation in door.create_missing())
            creating.append(time.perf_counter() - started)
            expect(created, options.missing)
    what = f"{way}, {options.users:,} users, {options.latency_ms:g} ms a request"
    return [
        (f"{what}: status", f"{_spread(counting)}, {requests[0]} requests", "60 s" if way == "api" else "-"),
        (f"{what}: creating {options.missing:,} missing profiles", _spread(creating), "-"),
    ]


def expect(measured: object, wanted: object) -> None:
    if measured != wanted:
        raise RuntimeError(f"{measured} in place of {wanted}")


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    handle = httpx.HTTPTransport.handle_request
    sent: list[str] = []

    def counted(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return handle(transport, request)

    with patch.object(httpx.HTTPTransport, "handle_request", counted):
        yield sent


def execute(project: Project, statement: str, *values: int) -> None:
    with psycopg.connect(project.database_url) as connection:
        connection.execute(statement.encode(), values or None)


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def served(users: int, delay: float) -> Iterator[Project]:
    """Serve a migrated project of so many users who all have profiles; each answer takes `delay` seconds longer."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, users, delay), daemon=True)
    process.start()
    there.close()
    try:
        yield Project(*here.recv())
    finally:
        here.close()
        process.join()


def _serve(parent: Connection, users: int, delay: float) -> None:
    from user_sync_pipeline.core.warehouse.migrations import apply_migrations
    from user_sync_pipeline.sandbox.certificates import CertificateAuthority
    from user_sync_pipeline.sandbox.postgres import PostgresServer
    from user_sync_pipeline.sandbox.supabase import SupabaseSimulator, prepare_supabase

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        password = secrets.token_hex()
        server = PostgresServer(Path(folder) / "postgres", password=password)
        server.start()
        try:
            prepare_supabase(
                server,
                "supabase",
                legacy_default_grants=False,
                postgres_password=password,
                authenticator_password=password,
                auth_admin_password=password,
            )
            database_url = server.url("supabase", role="postgres", password=password)
            apply_migrations(database_url=database_url, profiles_url=database_url)
            with psycopg.connect(database_url) as connection:
                connection.execute(_USERS, (users,))
            with psycopg.connect(server.url("supabase"), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            authority = CertificateAuthority(Path(folder))
            with SupabaseSimulator(
                server,
                "supabase",
                authority,
                authenticator_password=password,
                auth_admin_password=password,
                delay=delay,
            ) as project:
                parent.send((database_url, project.url, project.keys.secret_key, str(authority.ca_file)))
                parent.poll(None)  # until the other end closes
        finally:
            server.stop()


if __name__ == "__main__":
    main()
