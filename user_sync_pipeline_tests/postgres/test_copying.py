from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from user_sync_pipeline.core.warehouse.copying import copy_batches

TABLE = sql.Identifier("moments")
MOMENT = datetime(2026, 7, 1, 22, 30, 15, 123000, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30"])
@pytest.mark.parametrize("session_zone", ["UTC", "America/New_York"])
def test_a_moment_stays_the_same_whatever_the_zones(warehouse: Engine, unit: Any, zone: str, session_zone: str) -> None:
    moment = MOMENT.replace(microsecond=0) if unit == "s" else MOMENT
    array = pa.array([moment, None], pa.timestamp(unit, zone))
    with warehouse.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE moments (number int, at timestamptz) ON COMMIT DROP"))
        connection.execute(text("SELECT set_config('timezone', :zone, true)"), {"zone": session_zone})
        batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), array], names=["number", "at"])
        assert copy_batches(connection, TABLE, batch.schema.names, [batch]) == 2
        stored = connection.execute(text("SELECT at FROM moments ORDER BY number")).scalars().all()
    assert stored == [moment, None]
