"""`salesforce_users_raw`: what Salesforce answered for a window of time, landed in Postgres."""

import dagster as dg

from user_sync_pipeline.assets import NIGHTLY, asset_in_one_run
from user_sync_pipeline.assets.catalogue import (
    COLUMN_LINEAGE,
    COLUMN_SCHEMA,
    GROUP,
    HOLDS_PEOPLE,
    SALESFORCE_USER,
    TABLE_NAME,
    column,
    column_lineage,
    users_column_schema,
)
from user_sync_pipeline.assets.metadata import duration_figures, report_users, usage_figures
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.partitions import mode_of, window_of
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import errors_as_failures

SALESFORCE_USERS_RAW = Relation("user_sync", "salesforce_users_raw")

_COLUMNS = users_column_schema(
    column("sync_run_id", "uuid", "The run of `user_sync.sync_runs` that fetched this row"),
    column("landed_at", "timestamptz", "When the row was stored"),
    required=("id", "system_modstamp"),
)
_LINEAGE = column_lineage({field.column: [(SALESFORCE_USER, field.name)] for field in USER_FIELDS})


def build_salesforce_users_raw(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset on the given axis."""

    @asset_in_one_run(
        deps=[SALESFORCE_USER],
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"salesforce", "postgres"},
        tags=HOLDS_PEOPLE,
        code_version="1",
        freshness_policy=NIGHTLY,
        pool="salesforce",
        metadata={
            TABLE_NAME: SALESFORCE_USERS_RAW.qualified,
            COLUMN_SCHEMA: _COLUMNS,
            COLUMN_LINEAGE: _LINEAGE,
            "partition_expr": "system_modstamp",
        },
    )
    def salesforce_users_raw(
        context: dg.AssetExecutionContext, salesforce: SalesforceResource, postgres: PostgresResource
    ) -> Relation:
        """Users as **Salesforce answered**, fetched read-only and landed in Postgres.

        * A partition is a UTC day of `SystemModstamp`; the **first partition is open to the past**, so it holds that
          day and everything before.
        * A materialization replaces exactly the window that it fetched. A user that changes later moves to a newer
          day, so old days shrink; that is right.
        * A value that cannot be stored costs its row at most, and is noted in `user_sync.rejected_records`.
        """
        with errors_as_failures(context):
            window = window_of(context, partitions)
            service = UserSyncService(postgres.engine, salesforce.users, tell=context.log.info)
            landing = service.land(window, mode=mode_of(window), started_by=f"dagster {context.run.run_id}")
            with postgres.engine.connect() as connection:
                report_users(
                    context,
                    connection,
                    SALESFORCE_USERS_RAW,
                    window=window,
                    rows_per_day=landing.rows_per_day,
                    figures={
                        "mode": landing.mode,
                        "fetched": landing.fetched,
                        "rejected": landing.rows_not_stored,
                        "hidden_fields": ", ".join(landing.hidden_fields) or "none",
                        "sync_run_id": str(landing.run_id),
                        **usage_figures(landing.usage),
                        **duration_figures(landing.fetched, landing.seconds),
                    },
                )
        return SALESFORCE_USERS_RAW

    return salesforce_users_raw
