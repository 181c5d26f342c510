"""Tables in and out: Arrow or pandas into a table that exists, and a table as Arrow or pandas, whole or a range of it.

What belongs here: names of relations, and reading and replacing their rows.
What does not: the landing and the merge of users, where newer rows win and runs leave checkpoints.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import sql
from sqlalchemy import Connection, text

from user_sync_pipeline.core.errors import ConfigurationError, UsageError
from user_sync_pipeline.core.warehouse.copying import copy_batches, driver_connection
from user_sync_pipeline.core.warehouse.database import libpq_url, transaction_settings
from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Frame: TypeAlias = pa.Table | pa.RecordBatch | pa.RecordBatchReader | pd.DataFrame
    Rows: TypeAlias = Frame | Iterable[Frame]

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_COLUMNS = text("""
    SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass(:relation) AND attnum > 0 AND NOT attisdropped
""")
_MOMENTS = ("timestamp with time zone", "timestamp without time zone", "date")
_INTEGERS = ("smallint", "integer", "bigint")


@dataclass(frozen=True, slots=True)
class Relation:
    """The name of a table or view in Postgres: a handle for SQL, without its rows.

    Raises `ConfigurationError` for a name that is not made of lower-case letters, digits and underscores.
    """

    schema: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.schema, self.name):
            _refuse_odd_name(part, "schema or table")

    @property
    def qualified(self) -> str:
        """`schema.name`, for people and metadata; statements use `identifier`."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name, for `psycopg.sql`."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class RowRange:
    """The rows of a table whose `column`, a moment or a day, lies in the window; without a moment a row is in none.

    Raises `ConfigurationError` for a column that is not named like one.
    """

    column: str
    window: SyncWindow

    def __post_init__(self) -> None:
        _refuse_odd_name(self.column, "column")

    @property
    def condition(self) -> sql.Composed:
        """The range as a condition of SQL, for sessions in UTC."""
        column = sql.Identifier(self.column)
        until = sql.SQL("{} < {}").format(column, sql.Literal(self.window.until))
        if self.window.since is None:
            return until
        return sql.SQL("{} >= {} AND ").format(column, sql.Literal(self.window.since)) + until


def _refuse_odd_name(name: str, kind: str) -> None:
    if not _IDENTIFIER.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not the name of a {kind}; use lower-case letters, digits and underscores."
        )


def replace_rows(connection: Connection, relation: Relation, rows: Rows, only: RowRange | None = None) -> int:
    """Let the table, or `only` a range of it, hold exactly `rows`; returns how many there are.

    Works in the transaction of `connection`. `rows` is an Arrow table, batch or reader, a pandas DataFrame, or an
    iterable of such; all have the same columns. Columns of the table that they lack get their default. Raises
    `ConfigurationError`, before anything is deleted, when the table does not exist or lacks a column, and `UsageError`
    for rows that lie outside of the range.
    """
    catalog = connection.execute(_COLUMNS, {"relation": relation.qualified})
    types: dict[str, str] = {row.name: row.type for row in catalog}
    if not types:
        raise ConfigurationError(f"There is no table {relation.qualified}; type: user-sync migrate apply")
    if only is not None and types.get(only.column) not in _MOMENTS:
        raise ConfigurationError(
            f"The table {relation.qualified} has no column {only.column} of type timestamptz, timestamp or date; "
            "name the one by which its rows belong to partitions."
        )
    batches = _as_batches(rows, integers={name for name, kind in types.items() if kind in _INTEGERS})
    first = next(batches, None)
    columns = first.schema.names if first is not None else []
    missing = ", ".join(name for name in columns if name not in types)
    if missing:
        raise ConfigurationError(
            f"The table {relation.qualified} has no column {missing}; rename it, or add it by a migration."
        )
    within = sql.SQL(" WHERE {}").format(only.condition) if only is not None else sql.SQL("")
    driver = driver_connection(connection)
    driver.execute(sql.SQL("DELETE FROM {}").format(relation.identifier) + within)
    if first is None:
        return 0
    stored = copy_batches(connection, relation.identifier, columns, itertools.chain([first], batches))
    if only is not None:
        counted = driver.execute(sql.SQL("SELECT count(*) FROM {}").format(relation.identifier) + within).fetchone()
        inside = counted[0] if counted else 0
        if inside != stored:
            raise UsageError(
                f"{stored - inside:,} of {stored:,} rows for {relation.qualified} lie outside of the partitions of "
                f"this run, by their {only.column}; return only those of the run's time window."
            )
    return stored


def read_arrow(url: str, relation: Relation, only: RowRange | None = None) -> pa.RecordBatchReader:
    """Return the rows of the relation, or `only` a range, as a stream of Arrow batches, over a connection of its own.

    The connection (ADBC) closes when the stream ends or is forgotten.
    """
    import pyarrow as pa

    stream = _stream(url, relation, only)
    schema = next(stream)
    return pa.RecordBatchReader.from_batches(schema, stream)


def read_pandas(url: str, relation: Relation, only: RowRange | None = None) -> pd.DataFrame:
    """Return the rows of the relation, or `only` a range, as a DataFrame; whole numbers stay whole beside nulls."""
    import pandas as pd
    import pyarrow as pa

    whole = {pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    frame: pd.DataFrame = read_arrow(url, relation, only).read_all().to_pandas(types_mapper=whole.get)
    return frame


def _stream(url: str, relation: Relation, only: RowRange | None) -> Iterator[Any]:
    """Yield the schema, then the batches: a generator that has begun also closes what it opened when it is dropped."""
    from adbc_driver_postgresql import dbapi

    query = sql.SQL("SELECT * FROM {}").format(relation.identifier)
    if only is not None:
        query += sql.SQL(" WHERE {}").format(only.condition)
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in transaction_settings(url).items())
    with dbapi.connect(libpq_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {settings}")
        cursor.execute(query.as_string())
        reader = cursor.fetch_record_batch()
        yield reader.schema
        yield from reader


def _as_batches(rows: Rows, *, integers: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Yield Arrow batches, all with the columns of the first one in its order; those named `integers` hold such."""
    import pyarrow as pa

    columns: list[str] | None = None
    frames: Iterable[Any] = [rows] if hasattr(rows, "__arrow_c_stream__") else rows
    for frame in frames:
        plain = _plain_frame(frame) if hasattr(frame, "reset_index") else frame
        for batch in pa.RecordBatchReader.from_stream(plain):
            if batch.num_columns == 0:
                continue
            columns = columns or batch.schema.names
            if set(batch.schema.names) != set(columns):
                raise ConfigurationError(
                    f"A batch has the columns {', '.join(batch.schema.names)}, but the first one {', '.join(columns)}; "
                    "give all batches the same."
                )
            values = [_as_integers(batch.column(name)) if name in integers else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(values, names=columns)


def _plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without index, which is no column, and with JSON for dicts: Arrow would give all the same keys."""
    frame = frame.reset_index(drop=True)
    for name, column in frame.items():
        if column.dtype == object and column.map(lambda value: isinstance(value, dict | list)).any():
            frame[name] = column.map(
                lambda value: json.dumps(value, default=str) if isinstance(value, dict | list) else value
            )
    return frame


def _as_integers(column: pa.Array) -> pa.Array:
    """Return whole numbers as such: pandas makes them floats as soon as one of them is missing."""
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # Postgres says which value it is
        return column
