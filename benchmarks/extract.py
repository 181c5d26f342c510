"""Reading users from Salesforce: how quickly pages become Arrow, what a run costs in requests, time and memory.

Prints Markdown tables with medians; run it as

    python benchmarks/extract.py [decode] [wall] [calls] [memory] [transports] [--runs 5] [--users 50000] ...

or without a name for all but `memory` and `transports`, which start organisations of up to a million users and take
minutes.
The Salesforce simulator has a process of its own, so it needs a core of its own too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from servers import QUIET_SINCE, database, simulator
from simple_salesforce.api import Salesforce
from transports import transports

from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.selection import FieldSelection
from user_sync_pipeline.core.settings import LARGEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.windows import SyncWindow

QUIET_DAY_USERS = 100_000
CHANGED_ON_A_QUIET_DAY = 40
MEGABYTE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", help="decode, wall, calls, memory, transports; the first three when none is given"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--latency-ms", type=int, default=200)
    parser.add_argument("--transport-users", type=int, nargs="+", default=[50_000, 200_000, 500_000])
    parser.add_argument("--memory-users", type=int, nargs="+", default=[100_000, 1_000_000])
    options = parser.parse_args()
    what = options.what or ["decode", "wall", "calls"]
    if unknown := set(what) - {"decode", "wall", "calls", "memory", "transports"}:
        parser.error(f"unknown: {', '.join(unknown)}")

    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs")
    figures: list[tuple[str, str, str]] = []
    if "decode" in what:
        figures += speeds(options.users, options.runs)
    if "wall" in what:
        figures += wall_time(options.users, options.latency_ms / 1000, options.runs)
    if "calls" in what:
        figures += quiet_day(options.runs)
        figures += forecast(options.users)
    if "memory" in what:
        figures += memory(options.memory_users)
    if "transports" in what:
        head = ("users", "ms a request", "REST: calls", "REST: seconds", "Bulk: calls", "Bulk: seconds")
        print_table(head, transports(options.transport_users, [0, options.latency_ms / 1000], options.runs))
    if figures:
        print_table(("what", "measured", "to reach"), figures)


# Rows a second --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An organisation to read, and the bodies of its pages."""

    settings: SalesforceSettings
    selection: FieldSelection
    window: SyncWindow
    pages: list[bytes]

    @property
    def query(self) -> str:
        return soql.select_users(self.selection.soql_names, self.window)


def speeds(users: int, runs: int) -> list[tuple[str, str, str]]:
    """Users to Arrow, against the usual way: all of them as dictionaries, then a DataFrame."""
    with connected(users) as (rest, settings):
        case = Case(settings, rest.selected_fields(), everything(rest), [])
        client = usual_client(settings)
        client.session.hooks["response"].append(lambda response, **_: case.pages.append(response.content))
        client.query_all(case.query)  # fills the simulator's caches, too
        usual, usual_read, ours, ours_read = measure_apart(
            (query_all_from_memory, query_all, decode_from_memory, fetch_users), case, runs
        )

    def against(name: str, seconds: float, usual_seconds: float, to_reach: str) -> tuple[str, str, str]:
        name = f"{users:,} users to Arrow against `simple_salesforce.query_all` + pandas: {name}"
        speeds = f"{users / seconds:,.0f} against {users / usual_seconds:,.0f} rows/s"
        return name, f"{speeds}: {usual_seconds / seconds:.1f} x", to_reach

    return [
        against("both from memory", ours, usual, "at least 5 x"),
        against("from memory against over the simulator", ours, usual_read, "-"),
        against("both over the simulator, one page at a time", ours_read, usual_read, "-"),
    ]


def query_all_from_memory(case: Case) -> object:
    client = Salesforce(session_id="none", instance_url="https://none", session=Replayer(case.pages))
    return to_pandas(client, case.query)


def query_all(case: Case) -> object:
    return to_pandas(usual_client(case.settings), case.query)


def decode_from_memory(case: Case) -> None:
    decoder = PageDecoder(case.selection)
    use_up(map(decoder.decode, case.pages))


def fetch_users(case: Case) -> None:
    with RestUserService(case.settings) as rest:
        use_up(rest.fetch_users(case.window, page_size=LARGEST_PAGE))


def use_up(pages: Iterable[UserPage]) -> None:
    """Take page by page, as whoever stores them does."""
    for _ in pages:
        pass


def to_pandas(client: Salesforce, query: str) -> object:
    import pandas as pd

    return pd.DataFrame(client.query_all(query)["records"])


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


def usual_client(settings: SalesforceSettings) -> Salesforce:
    """Return a client as people open it, which asks for large pages."""
    session = requests.Session()
    session.trust_env = False
    session.verify = settings.ca_bundle or True
    session.headers["Sforce-Query-Options"] = f"batchSize={LARGEST_PAGE}"
    signed_in = Authenticator(settings).sign_in()
    return Salesforce(
        session_id=signed_in.access_token,
        instance_url=signed_in.instance_url,
        version=settings.api_version,
        session=session,
    )


# A run as a whole -----------------------------------------------------------------------------------------------


def wall_time(users: int, latency: float, runs: int) -> list[tuple[str, str, str]]:
    """Reading an organisation in parallel, where each answer takes its time, step by step."""
    steps: dict[str, list[float]] = {"begin": [], "plan": [], "read": [], "CPU": []}
    with connected(users, delay=latency) as (_, settings):
        for _ in range(runs):
            with RestUserService(settings) as rest:
                began = time.perf_counter()
                rest.selected_fields()
                window = everything(rest)
                known = time.perf_counter()
                slices = rest.plan_slices(window)
                planned, cpu, calls = time.perf_counter(), time.process_time(), rest.usage.calls
                pages = rest.fetch_slices(
                    [(part.window, None) for part in slices], settled_until=window.until, page_size=LARGEST_PAGE
                )
                fetched = sum(page.fetched for _, page in pages if page is not None)
                read = time.perf_counter()
            if fetched != users:
                raise RuntimeError(f"{fetched} of {users} users were read")
            requests_made = rest.usage.calls - calls
            durations = (known - began, planned - known, read - planned, time.process_time() - cpu)
            for step, duration in zip(steps.values(), durations, strict=True):
                step.append(duration)
    begin, plan, read, cpu = map(statistics.median, steps.values())
    parallel = settings.parallel_requests
    bound = 1.25 * requests_made * latency / parallel
    name = f"{users:,} users, {latency * 1000:.0f} ms a request, {parallel} at once: seconds"
    return [
        (f"{name} to connect and read {requests_made} pages", f"{read:.2f} ({cpu:.2f} of CPU)", f"at most {bound:.2f}"),
        (f"{name} to plan the slices before", f"{plan:.2f}", "-"),
        (f"{name} to sign in and ask for time and fields before", f"{begin:.2f}", "-"),
        (f"{name} in all", f"{begin + plan + read:.2f}", "-"),
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


def measure_apart(ways: Sequence[Callable[[Case], object]], case: Case, runs: int) -> list[float]:
    """Return the median of the seconds that each way takes, after one run that does not count.

    Each has a process of its own, because what one leaves in memory slows down whatever comes after it; and they take
    turns, so that what disturbs the machine disturbs all of them.
    """
    seconds: list[list[float]] = [[] for _ in ways]
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        processes = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in ways]
        for _ in range(1 + runs):
            for process, way, taken in zip(processes, ways, seconds, strict=True):
                taken.append(process.submit(seconds_of, way, case).result())
    return [statistics.median(taken[1:]) for taken in seconds]


def seconds_of(way: Callable[[Case], object], case: Case) -> float:
    started = time.perf_counter()
    way(case)
    return time.perf_counter() - started


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    for row in ((), head, tuple("---" for _ in head), *rows):
        print(f"| {' | '.join(row)} |" if row else "")


if __name__ == "__main__":
    main()
