"""Arrow batches into a table, by COPY, in the transaction that a connection is in.

What belongs here: how values travel. What does not: which rows a table should hold (`landing.py`, `tables.py`).

CSV is made by Arrow in C++ and read by Postgres itself, so any column type that Postgres can read from text will
do, `jsonb` and `uuid` included; null is an empty field, the empty string a quoted one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg import sql

if TYPE_CHECKING:
    import pyarrow as pa


def driver_connection(connection: sqlalchemy.Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection under `connection`, for COPY in the same transaction."""
    if not connection.in_transaction():
        connection.begin()
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError("The engine must come from create_database_engine: COPY needs psycopg 3.")
    return raw


def copy_batches(
    connection: sqlalchemy.Connection,
    table: sql.Identifier,
    columns: Sequence[str],
    batches: Iterable[pa.RecordBatch],
) -> int:
    """Append the batches to the table and return how many rows they had; `columns` names theirs, in order."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    rows = 0
    with driver_connection(connection).cursor() as cursor, cursor.copy(statement) as copy:
        for batch in batches:
            copy.write(_as_csv(batch))
            rows += batch.num_rows
    return rows


def _as_csv(batch: pa.RecordBatch) -> memoryview:
    import pyarrow as pa
    from pyarrow import csv

    printable = pa.RecordBatch.from_arrays([_printable(column) for column in batch.columns], names=batch.schema.names)
    buffer = io.BytesIO()
    csv.write_csv(printable, buffer, csv.WriteOptions(include_header=False))
    return buffer.getbuffer()


def _printable(column: pa.Array) -> pa.Array:
    """Return a column that Arrow can write as CSV: nested values become JSON text, exotic ones plain text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # Arrow itself would write it too, but looks up the time zone for each value and takes ten times as long.
        moments = column.view(pa.timestamp(kind.unit)).cast(pa.string())
        return pc.binary_join_element_wise(moments, "+00", "")
    if pa.types.is_nested(kind):
        texts = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
    elif isinstance(kind, pa.BaseExtensionType) or pa.types.is_string_view(kind):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
    else:
        return column
    return pa.array(texts, pa.string())
