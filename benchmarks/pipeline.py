"""Users from Salesforce into `sf_users`: whole runs, beside the usual ways and beside what the machine allows.

Prints Markdown tables with medians; run it as

    python benchmarks/pipeline.py [whole] [slow] [limits] [--runs 3] [--users 50000] [--large 1000000]
                                  [--dlt-python PATH]

`whole` is with no latency, `slow` with 200 ms a request and 4 requests at once. Every run is a process of its own,
start included, against a Salesforce simulator in another process and an empty Postgres. dlt is no dependency of this
project: `--dlt-python` is the interpreter of an environment with `dlt[postgres]` and `simple-salesforce`.
`--large` adds an organisation of that size, ours alone and once, and takes many minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from limits import downloader, empty, limits
from servers import database, simulator
from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import LARGEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow

# Slow ways are measured with a part of the users; their speed does not depend on how many there are.
PART = 5_000
MEGABYTE = 1_000_000
LATENCY = 0.2
SYNC = [str(Path(sys.executable).with_name("user-sync")), "sync-users", "--json", "--mode"]
FULL, TODAY = [*SYNC, "full"], [*SYNC, "recent", "--days", "1"]
FIRST, AGAIN, CHANGED = "first load", "again, nothing changed", "again, 1 % changed"
AGAIN_TODAY, CHANGED_TODAY = f"{AGAIN}, `recent --days 1`", f"{CHANGED}, `recent --days 1`"
SESSION_MERGE, PANDAS, DLT, DLT_TUNED = "session-merge", "pandas", "dlt", "dlt-tuned"
PEERS = {
    SESSION_MERGE: "`query_all`, `session.merge` a record, commit each 200",
    PANDAS: "`query_all`, `to_sql`, INSERT … ON CONFLICT",
    DLT: "dlt, merge",
    DLT_TUNED: "dlt, merge by CSV files and upsert",
}


@dataclass(frozen=True)
class Run:
    """One process: seconds from start to end, those of its own CPU time, and the most memory it held, in bytes."""

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Figures:
    """Medians of the runs of one organisation by the name of the run, and the seconds that the first merge took."""

    users: int
    runs: dict[str, Run]
    merge: float

    def speed(self, name: str) -> float:
        """Rows a second."""
        return rows_of(name, self.users) / self.runs[name].seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="whole, slow, limits; all of them when none is given")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--large", type=int, metavar="USERS")
    parser.add_argument("--dlt-python", metavar="PATH")
    options = parser.parse_args()
    what = options.what or ["whole", "slow", "limits"]
    if unknown := set(what) - {"whole", "slow", "limits"}:
        parser.error(f"unknown: {', '.join(unknown)}")

    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    reached: list[tuple[str, str, str]] = []
    if "whole" in what:
        figures = run_organisation(options.users, 0, options.runs, list(PEERS), options.dlt_python)
        print_runs(f"{options.users:,} users, no latency", figures)
        reached += compare(figures)
        if options.large:
            large = run_organisation(options.large, 0, 1, [], None)
            print_runs(f"{options.large:,} users, no latency, one run", large)
            reached += compare_large(figures, large)
    if "slow" in what:
        slow = run_organisation(options.users, LATENCY, options.runs, list(PEERS), options.dlt_python)
        print_runs(f"{options.users:,} users, {LATENCY * 1000:.0f} ms a request, 4 at once", slow)
        reached.append(
            ("200 ms a request, 4 at once: first load against tuned dlt", times(slow, FIRST, DLT_TUNED), "8 x")
        )
    if "limits" in what:
        reached += limits(options.users, options.runs)
    print_table(("what", "measured", "to reach"), reached)


# Whole processes ------------------------------------------------------------------------------------------------


def run_organisation(users: int, delay: float, runs: int, peers: Sequence[str], dlt_python: str | None) -> Figures:
    """Run every way in turns, so that what disturbs the machine disturbs all of them."""
    found: dict[str, list[Run]] = {}
    merges: list[float] = []
    with (
        simulator(users, delay=delay) as before,
        simulator(users, delay=delay, changed_today=users // 100) as after,
        database() as engine,
    ):
        write_once(before, after)
        for _ in range(runs):
            empty(engine)
            steps = {
                FIRST: (FULL, before),
                AGAIN: (FULL, before),
                AGAIN_TODAY: (TODAY, before),
                CHANGED_TODAY: (TODAY, after),
                CHANGED: (FULL, after),
            }
            for name, (command, environment) in steps.items():
                if name == CHANGED:  # what the run of today has brought is changed once more
                    put_back(engine)
                address = engine.url.render_as_string(hide_password=False)
                found.setdefault(name, []).append(watch(command, {**environment, "USER_SYNC_DATABASE_URL": address}))
                if name == FIRST:
                    merges.append(seconds_of_merge(engine))
                expect(engine, "public.sf_users", users)
            for peer in peers:
                if run := run_peer(peer, engine, before, users, dlt_python):
                    found.setdefault(peer, []).append(run)
    medians = {
        name: Run(
            statistics.median(run.seconds for run in group),
            statistics.median(run.cpu for run in group),
            max(run.peak for run in group),
        )
        for name, group in found.items()
    }
    return Figures(users, medians, statistics.median(merges))


def write_once(*organisations: dict[str, str]) -> None:
    """Let the simulators write each user once: what they keep of it costs no way of reading them anything."""
    for environment in organisations:
        with RestUserService(SalesforceSettings.from_environment(environment)) as rest:
            downloader(rest)()


def rows_of(name: str, users: int) -> int:
    return min(PART, users) if name in (SESSION_MERGE, PANDAS) else users


def run_peer(name: str, engine: Engine, environment: dict[str, str], users: int, dlt_python: str | None) -> Run | None:
    python = dlt_python if name in (DLT, DLT_TUNED) else sys.executable
    if python is None:
        return None
    settings = SalesforceSettings.from_environment(environment)
    signed_in = Authenticator(settings).sign_in()
    columns = {field.name: field.column for field in USER_FIELDS}
    rows = rows_of(name, users)
    window = SyncWindow.full(now=datetime.now(UTC))
    table = "peer_dlt.users" if name in (DLT, DLT_TUNED) else "public.peer_users"
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS peer_dlt CASCADE"))
        connection.execute(text("DROP SCHEMA IF EXISTS peer_dlt_staging CASCADE"))
        connection.execute(text("DROP TABLE IF EXISTS public.peer_users"))
        connection.execute(
            text("CREATE TABLE public.peer_users (LIKE public.sf_users INCLUDING DEFAULTS INCLUDING INDEXES)")
        )
        connection.execute(text("ALTER TABLE public.peer_users DROP COLUMN sync_run_id"))
    peer = {
        "instance_url": signed_in.instance_url,
        "token": signed_in.access_token,
        "ca_bundle": settings.ca_bundle,
        "query": soql.select_users(list(columns), window, limit=None if rows == users else rows),
        "page_size": LARGEST_PAGE,
        "database_url": engine.url.render_as_string(hide_password=False),
        "columns": columns,
    }
    run = watch([python, str(Path(__file__).with_name("peers.py")), name], {"PEER": json.dumps(peer)})
    expect(engine, table, rows)
    return run


def watch(command: Sequence[str], environment: dict[str, str]) -> Run:
    """Run a program to its end; needs Linux for its memory."""
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        started, cpu = time.perf_counter(), cpu_of_children()
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        while process.poll() is None:
            # Of this program alone: what `wait4` tells may be that of the process which started it.
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmHWM:" in status:
                peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        output.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} failed: {output.read()[-2000:]}")
    return Run(seconds, cpu_of_children() - cpu, peak)


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def put_back(engine: Engine) -> None:
    """Make the users who changed today look as they did before."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE public.sf_users SET system_modstamp = created_date, title = '' WHERE title = 'Changed today'")
        )


def seconds_of_merge(engine: Engine) -> float:
    with engine.begin() as connection:
        ran = text("SELECT extract(epoch FROM finished_at - landed_at) FROM user_sync.sync_runs")
        return float(connection.execute(ran).scalar_one())


def expect(engine: Engine, table: str, rows: int) -> None:
    with engine.begin() as connection:
        stored = connection.scalar(text(f"SELECT count(*) FROM {table}"))
    if stored != rows:
        raise RuntimeError(f"{table} holds {stored} instead of {rows} rows")


# Tables ---------------------------------------------------------------------------------------------------------


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    for row in ((), head, tuple("---" for _ in head), *rows):
        print(f"| {' | '.join(row)} |" if row else "")


def print_runs(title: str, figures: Figures) -> None:
    rows = []
    for name, run in figures.runs.items():
        users = rows_of(name, figures.users)
        rows.append(
            (
                PEERS.get(name, f"`sync-users`, {name}")
                + ("" if users == figures.users else f", {users:,} users only"),
                f"{run.seconds:.2f}",
                f"{run.cpu:.2f}",
                f"{figures.speed(name):,.0f}",
                f"{figures.runs[FIRST].seconds / run.seconds * users / figures.users:.2f}",
                f"{run.peak / MEGABYTE:,.0f}",
            )
        )
    rows += [(PEERS[name], "not measured", "-", "-", "-", "-") for name in PEERS if name not in figures.runs]
    print_table((title, "seconds", "of its own CPU", "rows/s", "speed, first load = 1", "peak memory in MB"), rows)


def times(figures: Figures, ours: str, theirs: str) -> str:
    if theirs not in figures.runs:
        return "not measured"
    return f"{figures.speed(ours) / figures.speed(theirs):.1f} x"


def compare(figures: Figures) -> list[tuple[str, str, str]]:
    first, runs = figures.runs[FIRST], figures.runs
    peak = max(runs[name].peak for name in (FIRST, AGAIN, AGAIN_TODAY, CHANGED, CHANGED_TODAY))
    return [
        (f"first load against {PEERS[SESSION_MERGE]}", times(figures, FIRST, SESSION_MERGE), "20 x"),
        (f"first load against {PEERS[DLT_TUNED]}", times(figures, FIRST, DLT_TUNED), "4 x"),
        *((name, f"{first.seconds / runs[name].seconds:.1f} x faster", "3 x") for name in (AGAIN_TODAY, AGAIN)),
        *(
            (name, f"{runs[name].seconds / first.seconds:.0%} of the first", "under 15 %")
            for name in (CHANGED_TODAY, CHANGED)
        ),
        (f"peak memory at {figures.users:,} users, MB", f"{peak / MEGABYTE:,.0f}", "under 250"),
    ]


def compare_large(figures: Figures, large: Figures) -> list[tuple[str, str, str]]:
    cost = (large.merge / large.users) / (figures.merge / figures.users)
    peak = max(run.peak for run in large.runs.values())
    return [
        (f"merge of {figures.users:,} and {large.users:,} users, s", f"{figures.merge:.2f}, {large.merge:.2f}", "-"),
        ("a row of the larger merge against one of the smaller", f"{cost:.2f} x", "at most 1.3 x"),
        (f"peak memory at {large.users:,} users, MB", f"{peak / MEGABYTE:,.0f}", "under 500"),
    ]


if __name__ == "__main__":
    main()
