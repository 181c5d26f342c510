"""Reading users from Salesforce: how quickly pages become Arrow, what a run costs in requests, time and memory.

Prints Markdown tables with medians; run it as

    python benchmarks/extract.py [decode] [wall] [calls] [memory] [--runs 5] [--users 50000] [--latency-ms 200]

or without a name for all but `memory`, which starts organisations of up to a million users and takes minutes.
The Salesforce simulator has a process of its own, so it needs a core of its own too.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from servers import QUIET_SINCE, database, simulator
from simple_salesforce.api import Salesforce

from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import LARGEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.windows import SyncWindow

QUIET_DAY_USERS = 100_000
CHANGED_ON_A_QUIET_DAY = 40
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Timing:
    """Seconds of wall time and of this process's CPU time, medians."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="decode, wall, calls, memory; all but memory when none is given")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--latency-ms", type=int, default=200)
    parser.add_argument("--memory-users", type=int, nargs="+", default=[100_000, 1_000_000])
    options = parser.parse_args()
    what = options.what or ["decode", "wall", "calls"]
    if unknown := set(what) - {"decode", "wall", "calls", "memory"}:
        parser.error(f"unknown: {', '.join(unknown)}")

    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    if "decode" in what:
        print_speeds(options.users, options.runs)
    figures: list[tuple[str, str, str]] = []
    if "wall" in what:
        figures += wall_time(options.users, options.latency_ms / 1000, options.runs)
    if "calls" in what:
        figures += quiet_day(options.runs)
        figures += forecast(options.users)
    if "memory" in what:
        figures += memory(options.memory_users)
    if figures:
        print_table(("what", "measured", "to reach"), figures)


# Rows a second --------------------------------------------------------------------------------------------------


def print_speeds(users: int, runs: int) -> None:
    """Users to Arrow, against the usual way: all of them as dictionaries, then a DataFrame."""
    with connected(users) as (rest, settings):
        names = rest.selected_fields().soql_names
        query = soql.select_users(names, everything(rest))
        recorder = Recorder(settings)
        usual = usual_client(settings, recorder)
        usual.query_all(query)  # fills the simulator's caches, too
        pages = recorder.pages
        decoder = PageDecoder(rest.selected_fields())
        ways: dict[str, Callable[[], object]] = {
            "`simple_salesforce.query_all` + pandas": lambda: query_all_to_pandas(usual, query),
            "the same, pages from memory": lambda: query_all_to_pandas(usual_client(settings, Replayer(pages)), query),
            "decode-to-Arrow, pages from memory": lambda: use_up(map(decoder.decode, pages)),
            "`fetch_users`": lambda: use_up(rest.fetch_users(everything(rest), page_size=LARGEST_PAGE)),
        }
        timings = measure(ways, runs)
    first = next(iter(timings.values()))
    print_table(
        ("users to DataFrame or Arrow", "rows/s", "x the first", "rows/s of CPU time", "x the first"),
        [
            (
                name,
                f"{users / timing.wall:,.0f}",
                f"{first.wall / timing.wall:.1f}",
                f"{users / timing.cpu:,.0f}",
                f"{first.cpu / timing.cpu:.1f}",
            )
            for name, timing in timings.items()
        ],
    )


def use_up(pages: Iterable[UserPage]) -> None:
    """Take page by page, as whoever stores them does."""
    for _ in pages:
        pass


def query_all_to_pandas(client: Salesforce, query: str) -> object:
    import pandas as pd

    return pd.DataFrame(client.query_all(query)["records"])


class Recorder(requests.Session):
    """A session as simple_salesforce opens it, which keeps the bodies of the first query."""

    def __init__(self, settings: SalesforceSettings) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = settings.ca_bundle or True
        self.headers["Sforce-Query-Options"] = f"batchSize={LARGEST_PAGE}"
        self.pages: list[bytes] = []
        self._complete = False

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        response = super().request(*arguments, **options)
        if not self._complete:
            self.pages.append(response.content)
            self._complete = b'"done":true' in response.content[:100]
        return response


class Replayer(requests.Session):
    """A session that answers with prepared pages, one after the other."""

    def __init__(self, pages: list[bytes]) -> None:
        super().__init__()
        self._pages = iter(pages)

    def request(self, *_arguments: Any, **_options: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.encoding = "utf-8"
        response._content = next(self._pages)
        return response


def usual_client(settings: SalesforceSettings, session: requests.Session) -> Salesforce:
    signed_in = Authenticator(settings).sign_in()
    return Salesforce(
        session_id=signed_in.access_token,
        instance_url=signed_in.instance_url,
        version=settings.api_version,
        session=session,
    )


# A run as a whole -----------------------------------------------------------------------------------------------


def wall_time(users: int, latency: float, runs: int) -> list[tuple[str, str, str]]:
    """Reading an organisation in parallel, where each answer takes its time."""
    with connected(users, delay=latency) as (rest, settings):
        window = everything(rest)
        plans: list[float] = []

        def read() -> None:
            started = time.perf_counter()
            slices = rest.plan_slices(window)
            plans.append(time.perf_counter() - started)
            pages = rest.fetch_slices(
                [(part.window, None) for part in slices], settled_until=window.until, page_size=LARGEST_PAGE
            )
            fetched = sum(page.fetched for _, page in pages if page is not None)
            if fetched != users:
                raise RuntimeError(f"{fetched} of {users} users were read")

        timing = measure({"read": read}, runs)["read"]
        parallel = settings.parallel_requests
        requests_needed = math.ceil(users / LARGEST_PAGE)
    planning = statistics.median(plans)
    bound = requests_needed * latency / parallel
    name = f"{users:,} users, {latency * 1000:.0f} ms a request, {parallel} at once"
    return [
        (f"{name}: seconds to read", f"{timing.wall - planning:.2f}", f"at most {1.25 * bound:.2f}"),
        (f"{name}: seconds to plan the slices", f"{planning:.2f}", "-"),
        (f"{name}: CPU seconds of the reader", f"{timing.cpu:.2f}", "-"),
    ]


def quiet_day(runs: int) -> list[tuple[str, str, str]]:
    """An incremental run in a large organisation, where few users changed since the run before."""
    since = QUIET_SINCE + timedelta(days=1)
    calls: list[int] = []
    with simulator(QUIET_DAY_USERS, changed_today=CHANGED_ON_A_QUIET_DAY) as environment, database() as engine:
        settings = SalesforceSettings.from_environment(environment)
        for _ in range(runs):
            with RestUserService(settings) as rest:
                result = UserSyncService(engine, rest).sync_users(modified_since=since)
            if result.landing.fetched != CHANGED_ON_A_QUIET_DAY:
                raise RuntimeError(f"{result.landing.fetched} of {CHANGED_ON_A_QUIET_DAY} changed users were read")
            calls.append(result.landing.usage.calls)
    name = f"{CHANGED_ON_A_QUIET_DAY} of {QUIET_DAY_USERS:,} users changed: API calls of the run"
    return [(name, f"{max(calls)}", "at most 5")]


def forecast(users: int) -> list[tuple[str, str, str]]:
    """What `--dry-run` says before, against what the run needs then."""
    with simulator(users) as environment, database() as engine:
        settings = SalesforceSettings.from_environment(environment)
        with RestUserService(settings) as rest:
            expected = UserSyncService(engine, rest).forecast(everything(rest)).api_calls
        with RestUserService(settings) as rest:
            used = UserSyncService(engine, rest).sync_users().landing.usage.calls
    name = f"{users:,} users: API calls forecast, and used"
    return [(name, f"{expected}, {used} ({abs(expected - used) / used:.1%} apart)", "within 5 % of each other")]


def memory(sizes: Sequence[int]) -> list[tuple[str, str, str]]:
    """The most memory that a process holds while it syncs everything: extract, land, merge. Needs Linux."""
    peaks: list[float] = []
    for users in sizes:
        with simulator(users) as environment, database() as engine:
            url = engine.url.render_as_string(hide_password=False)
            here, there = multiprocessing.get_context("spawn").Pipe()
            process = multiprocessing.get_context("spawn").Process(target=sync_and_tell, args=(there, environment, url))
            process.start()
            there.close()
            fetched, peak = here.recv()
            process.join()
        if fetched != users:
            raise RuntimeError(f"{fetched} of {users} users were read")
        peaks.append(peak / MEGABYTE)
    rows = [
        (f"{users:,} users: peak memory in MB", f"{peak:,.0f}", "under 500")
        for users, peak in zip(sizes, peaks, strict=True)
    ]
    return [*rows, ("the last against the first", f"{peaks[-1] / peaks[0]:.2f}", "at most 1.3")]


def sync_and_tell(parent: Any, environment: dict[str, str], url: str) -> None:
    """Sync everything, and send how many users were fetched and the peak memory of this process in bytes."""
    from user_sync_pipeline.core.warehouse.database import create_database_engine

    with RestUserService(SalesforceSettings.from_environment(environment)) as rest:
        result = UserSyncService(create_database_engine(url), rest).sync_users()
    # Of this program alone; what `getrusage` tells may be that of the process which started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    parent.send((result.landing.fetched, int(status["VmHWM"].removesuffix("kB")) * 1024))


# Shared ---------------------------------------------------------------------------------------------------------


@contextmanager
def connected(users: int, *, delay: float = 0) -> Iterator[tuple[RestUserService, SalesforceSettings]]:
    with simulator(users, delay=delay) as environment:
        settings = SalesforceSettings.from_environment(environment)
        with RestUserService(settings) as rest:
            yield rest, settings


def everything(rest: RestUserService) -> SyncWindow:
    return SyncWindow(None, rest.server_time())


def measure(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, Timing]:
    """Time each way so many times, in turns, so that what disturbs the machine disturbs all of them."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            result = run()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
            del result
    return {name: Timing(statistics.median(walls[name]), statistics.median(cpus[name])) for name in ways}


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    for row in ((), head, tuple("---" for _ in head), *rows):
        print(f"| {' | '.join(row)} |" if row else "")


if __name__ == "__main__":
    main()
