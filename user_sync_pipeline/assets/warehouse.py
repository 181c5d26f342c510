"""`sf_users`: one current, typed row per Salesforce user."""

import time

import dagster as dg

from user_sync_pipeline.assets import NIGHTLY, asset_in_one_run
from user_sync_pipeline.assets.catalogue import (
    COLUMN_LINEAGE,
    COLUMN_SCHEMA,
    GROUP,
    HOLDS_PEOPLE,
    TABLE_NAME,
    column,
    column_lineage,
    users_column_schema,
)
from user_sync_pipeline.assets.metadata import count_by_day, duration_figures, report_users
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.partitions import window_of
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import errors_as_failures

SF_USERS = Relation("public", "sf_users")

_COLUMNS = users_column_schema(
    column("first_seen_at", "timestamptz", "When this pipeline first stored the user"),
    column("synced_at", "timestamptz", "When this pipeline last changed the row"),
    column("deactivated_at", "timestamptz", "When this pipeline first saw the user inactive", nullable=True),
    column("sync_run_id", "uuid", "The run of `user_sync.sync_runs` that last changed the row"),
    required=("id", "username", "is_active", "created_date", "system_modstamp"),
)
_RAW = dg.AssetKey("salesforce_users_raw")
_LINEAGE = column_lineage(
    {name: [(_RAW, name)] for name in (*USER_COLUMNS, "sync_run_id")} | {"deactivated_at": [(_RAW, "is_active")]}
)


def build_sf_users(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset on the given axis."""

    @asset_in_one_run(
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"postgres", "table"},
        tags=HOLDS_PEOPLE,
        code_version="1",
        freshness_policy=NIGHTLY,
        metadata={
            TABLE_NAME: SF_USERS.qualified,
            COLUMN_SCHEMA: _COLUMNS,
            COLUMN_LINEAGE: _LINEAGE,
            "partition_expr": "system_modstamp",
        },
    )
    def sf_users(
        context: dg.AssetExecutionContext,
        salesforce_users_raw: Relation,
        salesforce: SalesforceResource,
        postgres: PostgresResource,
    ) -> Relation:
        """**One current row per Salesforce user**, typed, keyed by the 18-character Id.

        * Merged from `salesforce_users_raw` on the Id; the **newer `SystemModstamp` wins**, so running an old window
          again moves no row backwards.
        * Nothing is deleted: Salesforce users are deactivated, not deleted, and `is_active` says so.
        * A partition counts the users whose *latest* change lies in that day.
        """
        with errors_as_failures(context):
            window = window_of(context, partitions)
            started = time.monotonic()
            counts, watermark = UserSyncService(postgres.engine, salesforce.users).merge(
                window, started_by=f"dagster {context.run.run_id}"
            )
            seconds = time.monotonic() - started
            merged = counts.inserted + counts.updated + counts.unchanged
            figures = {
                "merged_from": salesforce_users_raw.qualified,
                "inserted": counts.inserted,
                "updated": counts.updated,
                "unchanged": counts.unchanged,
                "rejected": counts.rejected,
                **duration_figures(merged, seconds),
            }
            if watermark is not None:
                figures["watermark"] = dg.MetadataValue.timestamp(watermark)
            with postgres.engine.connect() as connection:
                report_users(
                    context,
                    connection,
                    SF_USERS,
                    window=window,
                    rows_per_day=count_by_day(connection, SF_USERS, window),
                    figures=figures,
                )
        return SF_USERS

    return sf_users
