"""`PostgresIOManager`: what an asset returns becomes a table, and a table becomes what the next asset asks for.

What belongs here: from asset to table name, from partitions to rows, from annotated type to reader, and the table's
figures as metadata.
What does not: how rows travel (`core/warehouse/tables.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Union

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core import settings
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.tables import Relation, RowRange, read_arrow, read_pandas, replace_rows
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.resources.failures import errors_as_failures

if TYPE_CHECKING:
    from user_sync_pipeline.core.warehouse.tables import Rows

TABLE_NAME = "dagster/table_name"
# Dagster's own name for it, shared by the IO managers of other databases.
PARTITION_COLUMN = "partition_expr"

# No row lies before all time.
_NEVER = SyncWindow(None, datetime.min.replace(tzinfo=UTC))

Reader = Callable[[str, Relation, RowRange | None], Any]


class PostgresIOManager(dg.ConfigurableIOManager):
    """Stores what an asset returns in the Postgres database of `USER_SYNC_DATABASE_URL`.

    An asset returns a `Relation` when it has written the table itself, by SQL; else pandas DataFrames or Arrow
    data, one or many, and the table then holds exactly those rows. An input is read as the type that it is
    annotated with: `Relation`, `pandas.DataFrame`, `pyarrow.Table` or `pyarrow.RecordBatchReader`.

    Of an asset with partitions, only those of the run are replaced and only those asked for are read; its metadata
    `partition_expr` names the column of time by which a row belongs to one. The first partition is open to the past.
    An input without partitions of its own gets the whole axis.

    The table is the asset's `dagster/table_name`, else its key, in `default_schema` unless the key has a prefix.
    It must exist: tables come from migrations alone.
    """

    default_schema: str = "user_sync"

    _engine: Engine = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the setting; the first connection is made when one is needed."""
        with errors_as_failures(context):
            self._engine = create_database_engine(settings.database_url())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections of the run."""
        self._engine.dispose()

    def handle_output(self, context: dg.OutputContext, obj: Union[Relation, "Rows"]) -> None:
        """Store the rows in one transaction, unless they are there already, and report the table."""
        with errors_as_failures(self.get_resource_context()), self._engine.begin() as connection:
            relation = obj if isinstance(obj, Relation) else self._relation(context)
            figures: dict[str, Any] = {}
            if not isinstance(obj, Relation):
                rows = rows_of(obj, context.asset_key)
                stored = replace_rows(connection, relation, rows, rows_of_partitions(context))
                # What is said here is said of every partition of the run.
                if context.has_asset_partitions and len(context.asset_partition_keys) == 1:
                    figures["dagster/partition_row_count"] = stored
            context.add_output_metadata(table_figures(connection, relation) | figures)

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the table, or the partitions asked for, as the annotated type; a `Relation` reads nothing."""
        relation = self._relation(context.upstream_output or context)
        wanted = context.dagster_type.typing_type
        if wanted is Relation:
            return relation
        with errors_as_failures(self.get_resource_context()):
            url = self._engine.url.render_as_string(hide_password=False)
            return reader_for(wanted, context.name)(url, relation, rows_of_partitions(context))

    def _relation(self, context: dg.OutputContext | dg.InputContext) -> Relation:
        table_name = (context.definition_metadata or {}).get(TABLE_NAME)
        path = table_name.split(".") if isinstance(table_name, str) else list(context.asset_key.path)
        schema, name = [self.default_schema, *path][-2:]
        return Relation(schema, name)


def rows_of(returned: object, asset: dg.AssetKey) -> "Rows":
    """Return what an asset has returned as what can be stored; raises `ConfigurationError` for anything else."""
    if hasattr(returned, "__arrow_c_stream__"):
        return returned
    if isinstance(returned, Iterable) and not isinstance(returned, (str, bytes, Mapping)):
        return _frames(returned, asset)
    raise _no_table(returned, asset)


def _frames(returned: Iterable[object], asset: dg.AssetKey) -> Iterator[Any]:
    for frame in returned:
        if not hasattr(frame, "__arrow_c_stream__"):
            raise _no_table(frame, asset)
        yield frame


def _no_table(returned: object, asset: dg.AssetKey) -> ConfigurationError:
    return ConfigurationError(
        f"The asset {asset.to_user_string()} has returned a {type(returned).__name__}; return a Relation, a pandas "
        "DataFrame or Arrow data, one or many."
    )


def rows_of_partitions(context: dg.OutputContext | dg.InputContext) -> RowRange | None:
    """Return the rows that the asked partitions of an asset stand for; None for an asset without partitions.

    An input of a day that depends on days before the axis is asked for no partition at all, and gets no row.

    Raises `ConfigurationError` when these are no partitions of time, or the asset does not name their column.
    """
    if not context.has_asset_partitions:
        return None
    asset = context.asset_key.to_user_string()
    partitions = context.asset_partitions_def
    if not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        raise ConfigurationError(f"The partitions of {asset} are not days or other times; return a Relation instead.")
    described = context if isinstance(context, dg.OutputContext) else context.upstream_output
    column = (described.definition_metadata if described else {}).get(PARTITION_COLUMN)
    if not isinstance(column, str):
        raise ConfigurationError(
            f"{asset} has partitions, but its metadata does not name the column of time by which a row belongs to one; "
            f"set {PARTITION_COLUMN!r} there, or let the asset write its own rows and return a Relation."
        )
    if not context.asset_partition_keys:
        return RowRange(column, _NEVER)
    asked = context.asset_partitions_time_window
    return RowRange(column, SyncWindow(asked.start if asked.start > partitions.start else None, asked.end))


def reader_for(wanted: object, input_name: str) -> Reader:
    """Return the function that reads a table as the type `wanted`; raises `ConfigurationError` for others."""
    import pandas as pd
    import pyarrow as pa

    readers: dict[object, Reader] = {
        pd.DataFrame: read_pandas,
        pa.RecordBatchReader: read_arrow,
        pa.Table: lambda url, relation, only: read_arrow(url, relation, only).read_all(),
    }
    if wanted not in readers:
        raise ConfigurationError(
            f"The input {input_name} cannot be read as {wanted}; annotate it with Relation, pandas.DataFrame, "
            "pyarrow.Table or pyarrow.RecordBatchReader."
        )
    return readers[wanted]


def table_figures(connection: Connection, relation: Relation) -> dict[str, Any]:
    """Return the name, the number of rows and the size of a whole table."""
    rows, size = connection.execute(
        text(f"SELECT count(*), pg_total_relation_size(to_regclass(:name)) FROM {relation.qualified}"),
        {"name": relation.qualified},
    ).one()
    return {TABLE_NAME: relation.qualified, "dagster/row_count": rows, "size_mb": round(size / 1e6, 3)}
