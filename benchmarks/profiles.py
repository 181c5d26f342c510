"""Profiles by SQL: status and backfill at size, what the trigger adds to a sign-up, what applying costs sign-ins.

Prints one Markdown table with medians; run it as

    python benchmarks/profiles.py [sizes] [sign-ups] [apply] [--runs 5] [--users 1000000] [--missing 100000]

or without a name for all of them. Everything runs in a Postgres of its own with the roles of Supabase; `apply` is
measured while other processes sign in as fast as they can.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg

from user_sync_pipeline.core.profiles.sql_directory import SLICE, SqlDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migrations import apply_migrations, mend_profiles, remove_profiles
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import prepare_supabase

Row = tuple[str, str, str]

SIGN_UPS = 10_000
SIGN_INS_AT_ONCE = 2
SECONDS_OF_SIGN_INS = 8.0
MILLISECOND, MICROSECOND = 1e-3, 1e-6

# As the sign-in service writes them.
_SIGN_UP = """
    INSERT INTO auth.users (
        instance_id, id, aud, role, email, raw_app_meta_data, raw_user_meta_data, confirmation_token, recovery_token,
        email_change, email_change_token_new, created_at, updated_at
    )
    SELECT '00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', '',
        %(name)s || i || '@example.com', '{"provider": "email"}',
        jsonb_build_object('full_name', 'Ada Byron ' || i, 'avatar_url', 'https://example.com/' || i),
        '', '', '', '', now(), now()
    FROM generate_series(1, %(count)s) AS i
"""


@dataclass(frozen=True)
class Project:
    """A Supabase database, as the role that migrates, as the sign-in service, and as the owner of the server."""

    url: str
    sign_in_url: str
    superuser_url: str


class Cost(NamedTuple):
    """Seconds by the clock, and seconds of CPU that the server spent in them."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s, {self.cpu:.2f} s of the server's CPU"


def main() -> None:
    parts: dict[str, Callable[[Project, argparse.Namespace], list[Row]]] = {
        "sign-ups": sign_ups,
        "apply": apply,
        "sizes": sizes,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"{', '.join(parts)}; all of them when none is given")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--missing", type=int, default=100_000)
    options = parser.parse_args()
    if unknown := set(options.what) - set(parts):
        parser.error(f"unknown: {', '.join(unknown)}")

    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    rows = []
    for name, measure in parts.items():
        if name in (options.what or parts):
            with project() as database:
                rows += measure(database, options)
    for row in ((), ("what", "measured", "to reach"), ("---", "---", "---"), *rows):
        print(f"| {' | '.join(row)} |" if row else "")


@contextmanager
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder) / "postgres", password=secrets.token_hex())
        server.start()
        password = secrets.token_hex()
        try:
            prepare_supabase(
                server,
                "project",
                legacy_default_grants=False,
                postgres_password=password,
                authenticator_password=password,
                auth_admin_password=password,
            )
            url = server.url("project", role="postgres", password=password)
            apply_migrations(database_url=url, profiles_url=url)
            sign_in_url = server.url("project", role="supabase_auth_admin", password=password)
            yield Project(url, sign_in_url, server.url("project"))
        finally:
            server.stop()


# A million users --------------------------------------------------------------------------------------------------


def sizes(project: Project, options: argparse.Namespace) -> list[Row]:
    engine = create_database_engine(project.url)
    directory = SqlDirectory(engine)
    with superuser(project) as connection, psycopg.connect(project.url, autocommit=True) as service:
        with without_trigger(connection):
            sign_up(connection, options.users)
        connection.execute("ANALYZE auth.users")
        fill_table = cost(connection, lambda: list(directory.create_missing()))
        status, by_sql, by_function = [], [], []
        for _ in range(options.runs):
            connection.execute("VACUUM ANALYZE public.user_profiles")
            status.append(cost(connection, directory.status))
            lose_profiles(connection, options.missing)
            by_sql.append(cost(connection, lambda: list(directory.create_missing())))
            lose_profiles(connection, options.missing)
            by_function.append(cost(connection, lambda: backfill(service)))
        connection.execute("ALTER TABLE public.user_profiles ADD CONSTRAINT nobody CHECK (email IS NULL) NOT VALID")
        lose_profiles(connection, options.missing // 10)
        refused = cost(connection, lambda: list(directory.create_missing()))
        refused_by_function = cost(connection, lambda: backfill(service))
    engine.dispose()
    missing = f"{options.missing:,} of {options.users:,} profiles missing"
    all_refused = f"{options.missing // 10:,} missing, each of them refused"
    return [
        (f"status of {options.users:,} users", str(median(status)), "under 2 s"),
        (f"{missing}: `sync`, SQL door", str(median(by_sql)), "under 5 s"),
        (f"{missing}: `profile_backfill`, slices of {SLICE:,}", str(median(by_function)), "under 5 s"),
        (f"{all_refused}: SQL door; `profile_backfill`", f"{refused}; {refused_by_function}", "-"),
        (f"all {options.users:,} missing: `sync`, SQL door, one run", str(fill_table), "-"),
    ]


def backfill(connection: psycopg.Connection) -> None:
    """Create what is missing by the function that the service key calls."""
    last = "00000000-0000-0000-0000-000000000000"
    while True:
        row = connection.execute("SELECT public.profile_backfill(%s, %s)", [SLICE, last]).fetchone()
        if row is None or row[0]["attempted"] < SLICE:
            return
        last = row[0]["last_user_id"]


def lose_profiles(connection: psycopg.Connection, count: int) -> None:
    connection.execute(
        "DELETE FROM public.user_profiles WHERE id IN (SELECT id FROM public.user_profiles LIMIT %s)", [count]
    )
    connection.execute("VACUUM ANALYZE public.user_profiles")


# Sign-ups ---------------------------------------------------------------------------------------------------------


def sign_ups(project: Project, options: argparse.Namespace) -> list[Row]:
    with_trigger, without = [], []
    with superuser(project) as connection:
        for _ in range(options.runs):
            with_trigger.append(cost_of_sign_ups(connection))
            with without_trigger(connection):
                without.append(cost_of_sign_ups(connection))
    mine, bare = median(with_trigger), median(without)
    wall, cpu = ((more - less) / SIGN_UPS / MICROSECOND for more, less in zip(mine, bare, strict=True))
    alone = bare.cpu / SIGN_UPS / MICROSECOND
    return [
        (
            "what the trigger adds to a sign-up (and what the row in `auth.users` takes)",
            f"{wall:.0f} µs, {cpu:.0f} µs of CPU ({alone:.0f} µs of CPU)",
            "under 100 µs",
        )
    ]


def cost_of_sign_ups(connection: psycopg.Connection) -> Cost:
    """Sign up many, and take it back."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL ROLE supabase_auth_admin")
        return cost(connection, lambda: sign_up(connection, SIGN_UPS))


# Applying while people sign in ------------------------------------------------------------------------------------


def apply(project: Project, options: argparse.Namespace) -> list[Row]:
    with superuser(project) as connection, without_trigger(connection):
        sign_up(connection, 1_000)
    undisturbed = waits(project, lambda: time.sleep(0.1))
    mending = waits(project, lambda: mend_profiles(project.url))
    installing = waits(project, lambda: reinstall(project))
    bound = "under 50 ms"
    return [
        (f"{SIGN_INS_AT_ONCE} sign in all the time: the longest wait of one", longest(undisturbed), "-"),
        ("the same while the migration is applied again and again", longest(mending), bound),
        ("the same while it is taken away and installed again and again", longest(installing), bound),
    ]


def reinstall(project: Project) -> None:
    remove_profiles(project.url)
    apply_migrations(database_url=project.url, profiles_url=project.url, sides=["profiles"])


def waits(project: Project, disturb: Callable[[], None]) -> list[float]:
    """Sign in all the time while something happens again and again; returns the seconds of each sign-in."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(SIGN_INS_AT_ONCE, mp_context=spawn) as pool:
        signing_in = [pool.submit(sign_in, project.sign_in_url) for _ in range(SIGN_INS_AT_ONCE)]
        while not all(future.done() for future in signing_in):
            disturb()
            time.sleep(0.1)
        return [wait for future in signing_in for wait in future.result()]


def sign_in(url: str) -> list[float]:
    """Sign in one after the other, as quickly as the database does it; needs a process of its own."""
    taken = []
    with psycopg.connect(url, autocommit=True) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM auth.users LIMIT 1000").fetchall()]
        end = time.monotonic() + SECONDS_OF_SIGN_INS
        while time.monotonic() < end:
            user_id = secrets.choice(ids)
            started = time.perf_counter()
            connection.execute("UPDATE auth.users SET last_sign_in_at = now() WHERE id = %s", [user_id])
            taken.append(time.perf_counter() - started)
    return taken


def longest(taken: Sequence[float]) -> str:
    often = statistics.quantiles(taken, n=1000)[-1]
    return f"{max(taken) / MILLISECOND:.0f} ms (999 of 1,000 under {often / MILLISECOND:.0f} ms; {len(taken):,} in all)"


# Help -------------------------------------------------------------------------------------------------------------


@contextmanager
def superuser(project: Project) -> Iterator[psycopg.Connection]:
    with psycopg.connect(project.superuser_url, autocommit=True) as connection:
        yield connection


@contextmanager
def without_trigger(connection: psycopg.Connection) -> Iterator[None]:
    change: LiteralString = "ALTER TABLE auth.users {} TRIGGER on_auth_user_created"
    connection.execute(change.format("DISABLE"))
    yield
    connection.execute(change.format("ENABLE"))


def sign_up(connection: psycopg.Connection, count: int) -> None:
    connection.execute(_SIGN_UP, {"name": secrets.token_hex(4), "count": count})


def cost(connection: psycopg.Connection, work: Callable[[], object]) -> Cost:
    before, started = cpu_of_server(connection), time.perf_counter()
    work()
    wall, after = time.perf_counter() - started, cpu_of_server(connection)
    return Cost(wall, sum(seconds - before.get(process, 0) for process, seconds in after.items()))


def cpu_of_server(connection: psycopg.Connection) -> dict[int, float]:
    """Seconds of CPU of each process that serves the project; needs Linux, and a server on this machine."""
    processes = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()").fetchall()
    ticks = os.sysconf("SC_CLK_TCK")
    used = {}
    for (process,) in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        used[process] = (int(fields[11]) + int(fields[12])) / ticks
    return used


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


if __name__ == "__main__":
    main()
