"""REST against Bulk 2.0: API calls and seconds for reading an organisation of so many users, up to Arrow.

What belongs here: the comparison that says from which size on `SALESFORCE_TRANSPORT=auto` takes Bulk. The simulator's
jobs are done at the first look, so a real Bulk job takes as much longer as Salesforce queues and works.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from servers import simulator

from user_sync_pipeline.core.salesforce.records import UserPage
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow


def transports(sizes: Sequence[int], latencies: Sequence[float], runs: int) -> list[tuple[str, ...]]:
    """Return a row a size and latency (in seconds): calls and median seconds by REST, then by Bulk."""
    rows: list[tuple[str, ...]] = []
    for users in sizes:
        for latency in latencies:
            figures: list[str] = []
            with simulator(users, delay=latency) as environment:
                settings = SalesforceSettings.from_environment(environment)
                for transport in ("rest", "bulk"):
                    measured = [read(replace(settings, transport=transport), users) for _ in range(runs)]
                    figures += [f"{measured[0][0]}", f"{median(seconds for _, seconds in measured):.1f}"]
            rows.append((f"{users:,}", f"{latency * 1000:.0f}", *figures))
    return rows


def read(settings: SalesforceSettings, users: int) -> tuple[int, float]:
    """Read all users as a run does, from the count to the last page; returns API calls and seconds."""
    with RestUserService(settings) as rest:
        rest.selected_fields()
        window = SyncWindow(None, rest.server_time())
        before, started = rest.usage.calls, time.perf_counter()
        fetched = sum(page.fetched for page in pages(rest, window))
        seconds = time.perf_counter() - started
        if fetched != users:
            raise RuntimeError(f"{fetched} of {users} users were read")
        return rest.usage.calls - before, seconds


def pages(rest: RestUserService, window: SyncWindow) -> Iterator[UserPage]:
    rows = rest.count_users(window)
    if rest.transport_for(rows) == "bulk":
        found = rest.fetch_slices_by_bulk([(window, None)])
    else:
        stretches = [(slice_.window, None) for slice_ in rest.plan_slices(window, rows)]
        found = rest.fetch_slices(stretches, settled_until=window.until, page_size=rest.page_size_for(rows))
    for _, page in found:
        if page is not None:
            yield page
