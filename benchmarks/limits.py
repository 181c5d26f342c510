"""What the machine allows: downloading alone, and COPY into the indexed table, beside landing and merging."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from servers import database, simulator
from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.salesforce.records import read_envelope
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.settings import LARGEST_PAGE, SalesforceSettings
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.copying import driver_connection
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.merge import merge_window
from user_sync_pipeline.core.windows import SyncWindow

COPIED = ", ".join((*USER_COLUMNS, "sync_run_id"))


def limits(users: int, runs: int) -> list[tuple[str, str, str]]:
    """Downloading alone, and COPY from a prepared file, beside landing and merging the same rows."""
    with (
        simulator(users) as environment,
        RestUserService(SalesforceSettings.from_environment(environment)) as rest,
        database() as engine,
        tempfile.TemporaryDirectory() as folder,
    ):
        pages = rest.fetch_users(SyncWindow(None, rest.server_time()), page_size=LARGEST_PAGE)
        batches = [page.batch for page in pages]
        download = downloader(rest)
        prepared = prepare(engine, batches, Path(folder) / "users.csv")
        timings = in_turns(
            {
                "download": download,
                "copy": lambda: copy_prepared(engine, prepared),
                "land": lambda: land_and_merge(engine, batches),
            },
            runs,
        )
    speeds = {name: users / seconds for name, seconds in timings.items()}
    return [
        ("downloading alone, rows/s", f"{speeds['download']:,.0f}", "-"),
        ("COPY from a prepared file into the indexed table, rows/s", f"{speeds['copy']:,.0f}", "-"),
        (
            "landing and merging, rows/s, and its share of that",
            f"{speeds['land']:,.0f}, {speeds['land'] / speeds['copy']:.0%}",
            "at least 50 %",
        ),
    ]


def in_turns(ways: dict[str, Callable[[], None]], runs: int) -> dict[str, float]:
    """Return the median of the seconds of each way; what disturbs the machine disturbs all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(group) for name, group in seconds.items()}


def downloader(rest: RestUserService) -> Callable[[], None]:
    """Return what fetches all pages and looks only for the address of the next."""
    query = soql.select_users(rest.selected_fields().soql_names, SyncWindow(None, rest.server_time()))

    def download() -> None:
        client = rest._connect(LARGEST_PAGE)
        page = client.query(query)
        while (address := read_envelope(page)[1]) is not None:
            page = client.query_more(address, identifier_is_url=True)
        client.session.close()

    return download


def prepare(engine: Engine, batches: Sequence[pa.RecordBatch], file: Path) -> Path:
    """Write the rows as Postgres itself writes them."""
    empty(engine)
    land(engine, batches)
    statement = f"COPY (SELECT {COPIED} FROM user_sync.salesforce_users_raw) TO STDOUT"
    with engine.begin() as connection, file.open("wb") as target:
        cursor = driver_connection(connection).cursor()
        with cursor.copy(statement) as rows:
            target.writelines(rows)
    return file


def copy_prepared(engine: Engine, file: Path) -> None:
    empty(engine)
    with engine.begin() as connection, file.open("rb") as source:
        cursor = driver_connection(connection).cursor()
        with cursor.copy(f"COPY public.sf_users ({COPIED}) FROM STDIN") as copy:
            while part := source.read(1 << 20):
                copy.write(part)


def land(engine: Engine, batches: Sequence[pa.RecordBatch]) -> Landing:
    window = SyncWindow.full(now=datetime.now(UTC))
    with engine.begin() as connection:
        run_id = ledger.begin_run(
            connection,
            org_id="of the benchmark",
            mode="full",
            window=window,
            limit=None,
            columns=USER_COLUMNS,
            started_by="benchmark",
        )
    landing = Landing(engine, run_id, window)
    for batch in batches:
        landing.append(batch)
    landing.finish(limited=False)
    return landing


def land_and_merge(engine: Engine, batches: Sequence[pa.RecordBatch]) -> None:
    empty(engine)
    landing = land(engine, batches)
    with engine.begin() as connection:
        merge_window(connection, landing.window, landing.run_id)


def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("TRUNCATE public.sf_users, user_sync.salesforce_users_raw, user_sync.sync_runs CASCADE")
        )
