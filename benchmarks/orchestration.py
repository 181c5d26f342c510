"""What Dagster costs: the bookkeeping of a run over all days, loading the definitions, a quiet tick, and memory.

Prints one Markdown table. Run it as

    python benchmarks/orchestration.py [load] [runs] [ticks] [--runs 3] [--users 5000] [--large USERS]

A run is a process of its own, as Dagster starts one, and keeps its history in Postgres with the settings of
`dagster.yaml`. Its bookkeeping is what it takes longer than the same run on an axis of a single day. Each run has a
database of its own. `--large` runs once more over an organisation of that size, for its memory, and takes minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pipeline import MEGABYTE, Run, print_table, watch
from servers import database, simulator
from sqlalchemy import Engine, make_url, text

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.settings import DEFAULT_HORIZON

TWO_YEARS = timedelta(days=729)
TICKS = 10
LOAD = "import time, dagster; start = time.perf_counter(); {load}; print(time.perf_counter() - start)"
DAGSTERS_OWN = "storage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}"
DEFINITIONS = "from user_sync_pipeline.definitions import defs; defs()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="load, runs, ticks; all of them when none is given, and no --large")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--large", type=int, metavar="USERS")
    parser.add_argument("--child", choices=["run", "ticks"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_job() if options.child == "run" else make_ticks()
        return

    what = options.what or ([] if options.large else ["load", "runs", "ticks"])
    if unknown := set(what) - {"load", "runs", "ticks"}:
        parser.error(f"unknown: {', '.join(unknown)}")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    rows = [measure_load(options.runs)] if "load" in what else []
    rows += measure_runs(options.users, options.runs) if "runs" in what else []
    rows += measure_ticks(options.users) if "ticks" in what else []
    rows += [measure_memory(options.large)] if options.large else []
    print_table(("what", "measured", "to reach"), rows)


def measure_load(runs: int) -> tuple[str, str, str]:
    seconds = [
        float(subprocess.run([sys.executable, "-c", LOAD.format(load=DEFINITIONS)], **captured()).stdout)
        for _ in range(runs)
    ]
    return "to load the definitions, after `import dagster`", f"{statistics.median(seconds):.2f} s", "under 2.5 s"


def measure_runs(users: int, runs: int) -> Iterator[tuple[str, str, str]]:
    today = datetime.now(UTC).date()
    ways = {
        "an axis of one day": (today, False),
        "all {} days of the default axis": (DEFAULT_HORIZON, False),
        "all {} days of two years": (today - TWO_YEARS, False),
        "the same with Dagster's own storage": (today - TWO_YEARS, True),
    }
    found: dict[str, list[Run]] = {name: [] for name in ways}
    with simulator(users) as salesforce:
        for _ in range(runs):
            for name, (horizon, dagsters_own) in ways.items():
                found[name].append(run_over(horizon, salesforce, users, dagsters_own=dagsters_own))
    (least_name, least), *others = [(name, median(group)) for name, group in found.items()]
    yield f"a run over {users:,} users and {least_name}, start included", f"{least.seconds:.1f} s", "-"
    for name, whole in others:
        days = (today - ways[name][0]).days + 1
        more = whole.seconds - least.seconds
        figures = (
            f"{more:.1f} s, {1000 * more / days:.0f} ms a day, {whole.cpu - least.cpu:.1f} s of its own CPU "
            f"(the whole run {whole.seconds:.1f} s)"
        )
        yield f"its bookkeeping over {name.format(days)}", figures, "-" if ways[name][1] else "under 45 s"


def median(runs: Sequence[Run]) -> Run:
    return Run(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu for run in runs),
        max(run.peak for run in runs),
    )


def measure_ticks(users: int) -> Iterator[tuple[str, str, str]]:
    with simulator(users) as salesforce, instance() as (environment, _):
        watch(child("run"), {**environment, **salesforce})
        told = subprocess.run(child("ticks"), env={**os.environ, **environment, **salesforce}, **captured()).stdout
    first, *others, calls = [float(figure) for figure in told.split()]
    yield "a quiet tick of `recent_sync_sensor`", f"{statistics.median(others):.2f} s", "under 1 s"
    yield "the first tick of a process, imports included", f"{first:.2f} s", "-"
    yield "API calls of a quiet tick", f"{calls:g}", "exactly 1"


def measure_memory(users: int) -> tuple[str, str, str]:
    with simulator(users) as salesforce:
        run = run_over(DEFAULT_HORIZON, salesforce, users)
    figures = f"{run.peak / MEGABYTE:,.0f} MB ({run.seconds:,.0f} s)"
    return f"peak memory of a run over {users:,} users and the default axis", figures, "under 700 MB"


def run_over(horizon: date, salesforce: Mapping[str, str], users: int, *, dagsters_own: bool = False) -> Run:
    """Run the job over all days from the horizon on, in a process of its own."""
    with instance(dagsters_own=dagsters_own) as (environment, engine):
        run = watch(child("run"), {**environment, **salesforce, "USER_SYNC_HORIZON": horizon.isoformat()})
        with engine.connect() as connection:
            stored = connection.scalar(text("SELECT count(*) FROM public.sf_users"))
        if stored != users:
            raise RuntimeError(f"{stored} of {users} users were stored")
    return run


@contextmanager
def instance(*, dagsters_own: bool = False) -> Iterator[tuple[dict[str, str], Engine]]:
    """Yield the environment of a Dagster instance with its history in Postgres, beside the tables of the users."""
    with database() as engine, tempfile.TemporaryDirectory() as home:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE DATABASE dagster"))
        if dagsters_own:
            (Path(home) / "dagster.yaml").write_text(DAGSTERS_OWN)
        else:
            shutil.copy(shipped_path("dagster.yaml"), home)
        address = engine.url.render_as_string(hide_password=False)
        history = make_url(address).set(database="dagster", drivername="postgresql+psycopg2")
        environment = {
            "USER_SYNC_DATABASE_URL": address,
            "DAGSTER_POSTGRES_URL": history.render_as_string(hide_password=False),
            "DAGSTER_HOME": home,
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
        }
        yield environment, engine


def child(what: str) -> list[str]:
    return [sys.executable, __file__, "--child", what]


def captured() -> dict[str, bool]:
    return {"check": True, "capture_output": True, "text": True}


# In a process of its own -----------------------------------------------------------------------------------------


def run_job() -> None:
    import dagster as dg

    from user_sync_pipeline.core import settings
    from user_sync_pipeline.definitions import build_definitions
    from user_sync_pipeline.partitions import range_tags

    job = build_definitions().resolve_job_def("user_sync")
    days = range_tags(settings.horizon(), datetime.now(UTC).date())
    with dg.DagsterInstance.get() as kept:
        job.execute_in_process(instance=kept, tags=days)


def make_ticks() -> None:
    """Print the seconds of each tick, then the API calls of the last one."""
    import dagster as dg

    from user_sync_pipeline.definitions import build_definitions

    definitions = build_definitions()
    sensor = definitions.resolve_sensor_def("recent_sync_sensor")
    cursor = None
    with dg.DagsterInstance.get() as kept:
        for _ in range(1 + TICKS):
            started = time.perf_counter()
            with dg.build_sensor_context(instance=kept, cursor=cursor, resources=definitions.resources) as context:
                tick = sensor.evaluate_tick(context)
                calls = context.resources.salesforce.users.usage.calls
            print(time.perf_counter() - started)
            if tick.run_requests:
                raise RuntimeError("The tick is not quiet")
            cursor = tick.cursor
    print(calls)


if __name__ == "__main__":
    main()
