"""What a run reports in the Dagster UI: figures, and a preview of the rows.

What belongs here: the shape of metadata that more than one asset reports.
What does not: the figures themselves, which come from the results of `core`, and what is known without a run
(`catalogue.py`).

No name, e-mail address or phone number ever gets here: metadata is kept with the history of runs, for longer
and for more eyes than the tables themselves.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import Connection, text

from user_sync_pipeline.assets.catalogue import COLUMN_LINEAGE, COLUMN_SCHEMA
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.core.windows import SyncWindow, format_moment

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import ApiUsage

PREVIEW_ROWS = 10
PREVIEW_COLUMNS = ("id", "user_type", "is_active", "system_modstamp")

_IN_WINDOW = "system_modstamp < :until AND system_modstamp >= coalesce(CAST(:since AS timestamptz), '-infinity')"


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
    rows_per_day: Mapping[date, int],
    figures: Mapping[str, Any],
) -> None:
    """Attach each day's own rows to it, and what is true of the whole run to its newest day.

    A run over a range writes one event a day, and the newest is the one that the UI opens. On each of them the
    figures of the run would be plotted once a day, as if every day had had them, and make the history grow.
    """
    keys = context.partition_keys
    for key, rows in rows_per_key(rows_per_day, keys).items():
        context.add_asset_metadata({"dagster/partition_row_count": rows}, partition_key=key)
    rows_shown = {"preview": preview(connection, relation, window)}
    context.add_asset_metadata({**figures, **rows_shown, **columns_of(context)}, partition_key=keys[-1])


def columns_of(context: dg.AssetExecutionContext) -> dict[str, Any]:
    """Return columns and lineage of the asset: the catalogue prefers those of the newest event."""
    described = context.assets_def.metadata_by_key[context.asset_key]
    return {name: described[name] for name in (COLUMN_SCHEMA, COLUMN_LINEAGE)}


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
