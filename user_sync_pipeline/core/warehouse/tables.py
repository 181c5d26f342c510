"""Whole tables in and out: Arrow or pandas into a table that exists, and a table as Arrow or pandas.

What belongs here: names of relations, and reading and replacing their rows.
What does not: the landing and the merge of users, which replace a window and not a table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import sql
from sqlalchemy import Connection, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.warehouse.copying import copy_batches, driver_connection
from user_sync_pipeline.core.warehouse.database import libpq_url

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Frame: TypeAlias = pa.Table | pa.RecordBatch | pa.RecordBatchReader | pd.DataFrame
    Rows: TypeAlias = Frame | Iterable[Frame]

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_COLUMNS = text("""
    SELECT attname FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass(:relation) AND attnum > 0 AND NOT attisdropped
""")


@dataclass(frozen=True, slots=True)
class Relation:
    """The name of a table or view in Postgres: a handle for SQL, without its rows.

    Raises `ConfigurationError` for a name that is not made of lower-case letters, digits and underscores.
    """

    schema: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.schema, self.name):
            if not _IDENTIFIER.fullmatch(part):
                raise ConfigurationError(
                    f"{part!r} is not the name of a schema or table; use lower-case letters, digits and underscores."
                )

    @property
    def qualified(self) -> str:
        """`schema.name`, for people and metadata; statements use `identifier`."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name, for `psycopg.sql`."""
        return sql.Identifier(self.schema, self.name)


def replace_rows(connection: Connection, relation: Relation, rows: Rows) -> int:
    """Let the table hold exactly `rows`, in the transaction of `connection`; returns how many there are.

    `rows` is an Arrow table, batch or reader, a pandas DataFrame, or an iterable of such; all have the same
    columns. Columns of the table that they lack get their default. Raises `ConfigurationError`, before
    anything is deleted, when the table does not exist or lacks a column.
    """
    batches = _as_batches(rows)
    first = next(batches, None)
    present = set(connection.scalars(_COLUMNS, {"relation": relation.qualified}))
    if not present:
        raise ConfigurationError(f"There is no table {relation.qualified}; type: user-sync migrate apply")
    columns = first.schema.names if first is not None else []
    missing = ", ".join(name for name in columns if name not in present)
    if missing:
        raise ConfigurationError(
            f"The table {relation.qualified} has no column {missing}; rename it, or add it by a migration."
        )
    driver_connection(connection).execute(sql.SQL("DELETE FROM {}").format(relation.identifier))
    if first is None:
        return 0
    return copy_batches(connection, relation.identifier, columns, itertools.chain([first], batches))


def read_arrow(url: str, relation: Relation) -> pa.RecordBatchReader:
    """Return the rows of the relation as a stream of Arrow batches, over a connection of its own (ADBC).

    The connection closes when the stream ends or is forgotten.
    """
    import pyarrow as pa

    stream = _stream(url, relation)
    schema = next(stream)
    return pa.RecordBatchReader.from_batches(schema, stream)


def read_pandas(url: str, relation: Relation) -> pd.DataFrame:
    """Return the rows of the relation as a DataFrame."""
    frame: pd.DataFrame = read_arrow(url, relation).read_pandas()
    return frame


def _stream(url: str, relation: Relation) -> Iterator[Any]:
    """Yield the schema, then the batches: a generator that has begun also closes what it opened when it is dropped."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(libpq_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {}").format(relation.identifier).as_string())
        reader = cursor.fetch_record_batch()
        yield reader.schema
        yield from reader


def _as_batches(rows: Rows) -> Iterator[pa.RecordBatch]:
    """Yield Arrow batches, all with the columns of the first one in its order."""
    import pyarrow as pa

    columns: list[str] | None = None
    for frame in [rows] if hasattr(rows, "__arrow_c_stream__") else rows:
        if hasattr(frame, "reset_index"):  # the index of a DataFrame is no column
            frame = frame.reset_index(drop=True)
        for batch in pa.RecordBatchReader.from_stream(frame):
            columns = columns or batch.schema.names
            if set(batch.schema.names) != set(columns):
                raise ConfigurationError(
                    f"A batch has the columns {', '.join(batch.schema.names)}, but the first one {', '.join(columns)}; "
                    "give all batches the same."
                )
            yield batch.select(columns)
