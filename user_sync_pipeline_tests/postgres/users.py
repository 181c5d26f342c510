"""Users as they come from Salesforce, and runs that bring them into a database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS, arrow_schema
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.merge import MergeCounts, merge_window
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline_tests.conftest import FORGET_EVERYTHING

ORG = "00D000000000001EAA"
DAY_ZERO = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = SyncWindow(None, datetime(2030, 1, 1, tzinfo=UTC))

Row = dict[str, Any]


def day(number: float) -> datetime:
    return DAY_ZERO + timedelta(days=number)


def days(first: float | None, last: float) -> SyncWindow:
    return SyncWindow(None if first is None else day(first), day(last))


def user_id(number: int) -> str:
    return f"005{number:012d}AAA"


def user(number: int = 1, changed: float = 1, **values: Any) -> Row:
    """A user who was last changed on that day."""
    return {
        "id": user_id(number),
        "username": f"user{number}@example.com",
        "is_active": True,
        "created_date": DAY_ZERO,
        "system_modstamp": day(changed),
        **values,
    }


def batch_of(*rows: Row) -> pa.RecordBatch:
    """The rows as a page comes: all columns, ordered by (SystemModstamp, Id)."""
    ordered = sorted(rows, key=lambda row: (row["system_modstamp"], row["id"]))
    return pa.RecordBatch.from_pylist(ordered, schema=arrow_schema())


def begin(
    engine: Engine,
    window: SyncWindow = EVERYTHING,
    *,
    columns: Collection[str] = USER_COLUMNS,
    limit: int | None = None,
) -> UUID:
    with engine.begin() as connection:
        return ledger.begin_run(
            connection,
            org_id=ORG,
            mode="custom",
            window=window,
            limit=limit,
            columns=columns,
            started_by="test",
        )


def land(
    engine: Engine,
    *rows: Row,
    window: SyncWindow = EVERYTHING,
    columns: Collection[str] = USER_COLUMNS,
) -> UUID:
    """Land the rows as one whole run."""
    run_id = begin(engine, window, columns=columns)
    landing = Landing(engine, run_id, window)
    landing.append(batch_of(*rows))
    landing.finish(limited=False)
    return run_id


def merge(engine: Engine, run_id: UUID, window: SyncWindow = EVERYTHING) -> MergeCounts:
    with engine.begin() as connection:
        return merge_window(connection, window, run_id)


def sync(
    engine: Engine,
    *rows: Row,
    window: SyncWindow = EVERYTHING,
    columns: Collection[str] = USER_COLUMNS,
) -> MergeCounts:
    """Land and merge the rows as one whole run."""
    return merge(engine, land(engine, *rows, window=window, columns=columns), window)


def clear_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(FORGET_EVERYTHING))


def query(engine: Engine, statement: str, **parameters: Any) -> list[Row]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]


def stored_users(engine: Engine, columns: str = "*") -> list[Row]:
    return query(engine, f"SELECT {columns} FROM public.sf_users ORDER BY id")


def landed_users(engine: Engine, columns: str = "*") -> list[Row]:
    return query(
        engine, f"SELECT {columns} FROM user_sync.salesforce_users_raw ORDER BY system_modstamp, id, landed_at"
    )
