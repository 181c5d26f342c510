"""What the assets report in the Dagster UI: figures, column schemas and a preview.

What belongs here: the shape of metadata that more than one asset reports.
What does not: the figures themselves, which come from the results of `core`.

No name, e-mail address or phone number ever gets here: metadata is kept with the history of runs, for longer
and for more eyes than the tables themselves.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import Connection, text

from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_FIELDS, Kind
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.core.windows import SyncWindow, format_moment

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import ApiUsage

PREVIEW_ROWS = 10
PREVIEW_COLUMNS = ("id", "user_type", "is_active", "system_modstamp")

_IN_WINDOW = "system_modstamp < :until AND system_modstamp >= coalesce(CAST(:since AS timestamptz), '-infinity')"
_POSTGRES_TYPES = {Kind.BOOLEAN: "boolean", Kind.TIMESTAMP: "timestamptz", Kind.ADDRESS: "jsonb"}


def users_column_schema(*own_columns: dg.TableColumn, required: Sequence[str]) -> dg.TableSchema:
    """Return the schema of a table of users: the catalogue's fields, then the table's own columns."""
    fields = [
        dg.TableColumn(
            field.column,
            type=_POSTGRES_TYPES.get(field.kind, "text"),
            description=f"Salesforce `User.{field.name}`",
            constraints=dg.TableColumnConstraints(nullable=field.column not in required),
        )
        for field in USER_FIELDS
    ]
    custom_fields = dg.TableColumn(
        CUSTOM_FIELDS_COLUMN, type="jsonb", description="The fields named in `SALESFORCE_EXTRA_FIELDS`"
    )
    return dg.TableSchema(columns=[*fields, custom_fields, *own_columns])


def own_column(name: str, type_: str, description: str, *, nullable: bool = False) -> dg.TableColumn:
    """Return a column that does not come from Salesforce."""
    constraints = dg.TableColumnConstraints(nullable=nullable)
    return dg.TableColumn(name, type=type_, description=description, constraints=constraints)


def usage_figures(usage: "ApiUsage") -> dict[str, Any]:
    """Return how many API calls this run made, and how much of the organisation's day is used up."""
    figures: dict[str, Any] = {"api_calls": usage.calls, "api_used": usage.used, "api_limit": usage.limit}
    if usage.share is not None:
        figures["api_share_percent"] = round(100 * usage.share, 3)
    return {name: value for name, value in figures.items() if value is not None}


def duration_figures(rows: int, seconds: float) -> dict[str, float]:
    """Return the duration in seconds and the rate in rows a second."""
    return {
        "duration_seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 1) if seconds else 0.0,
    }


def rows_per_key(rows_per_day: Mapping[date, int], keys: Sequence[str]) -> dict[str, int]:
    """Return the rows of each partition key; days before the first key count to it, as it is open to the past."""
    rows = dict.fromkeys(keys, 0)
    for day, count in rows_per_day.items():
        key = max(day.isoformat(), keys[0])
        if key in rows:
            rows[key] += count
    return rows


def report_users(
    context: dg.AssetExecutionContext,
    connection: Connection,
    relation: Relation,
    *,
    window: SyncWindow,
    schema: dg.TableSchema,
    rows_per_day: Mapping[date, int],
    figures: Mapping[str, Any],
) -> None:
    """Attach the figures of the run to every day, each day's own rows to it, and the tables to the newest one.

    A run over a range writes one event a day, and the newest is the one that the UI opens; the preview and the
    schema on each of them would only make the history grow.
    """
    keys = context.partition_keys
    context.add_asset_metadata(figures)
    for key, rows in rows_per_key(rows_per_day, keys).items():
        context.add_asset_metadata({"dagster/partition_row_count": rows}, partition_key=key)
    tables = {"preview": preview(connection, relation, window), "dagster/column_schema": schema}
    context.add_asset_metadata(tables, partition_key=keys[-1])


def count_by_day(connection: Connection, relation: Relation, window: SyncWindow) -> dict[date, int]:
    """Return how many rows of the window each UTC day holds."""
    days = connection.execute(
        text(
            "SELECT CAST(system_modstamp AT TIME ZONE 'UTC' AS date) AS day, count(*) AS rows "
            f"FROM {relation.qualified} WHERE {_IN_WINDOW} GROUP BY 1"
        ),
        _bounds(window),
    )
    return {row.day: row.rows for row in days}


def preview(connection: Connection, relation: Relation, window: SyncWindow) -> dg.TableMetadataValue:
    """Return the newest rows of the window, without anything that tells who a person is."""
    rows = connection.execute(
        text(
            f"SELECT {', '.join(PREVIEW_COLUMNS)} FROM {relation.qualified} "
            f"WHERE {_IN_WINDOW} ORDER BY system_modstamp DESC, id LIMIT {PREVIEW_ROWS}"
        ),
        _bounds(window),
    ).mappings()
    columns = [dg.TableColumn(name) for name in PREVIEW_COLUMNS]
    return dg.MetadataValue.table([dg.TableRecord(_as_texts(dict(row))) for row in rows], dg.TableSchema(columns))


def _bounds(window: SyncWindow) -> dict[str, datetime | None]:
    return {"since": window.since, "until": window.until}


def _as_texts(row: Mapping[str, Any]) -> dict[str, str | bool | None]:
    return {name: format_moment(value) if isinstance(value, datetime) else value for name, value in row.items()}
