"""`salesforce_users_raw`: what Salesforce answered for a window of time, landed in Postgres."""

import dagster as dg

from user_sync_pipeline.assets import asset_in_one_run
from user_sync_pipeline.assets.metadata import (
    duration_figures,
    own_column,
    report_users,
    usage_figures,
    users_column_schema,
)
from user_sync_pipeline.core.user_sync import UserSyncService
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.partitions import mode_of, window_of
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import errors_as_failures

SALESFORCE_USERS_RAW = Relation("user_sync", "salesforce_users_raw")

COLUMN_SCHEMA = users_column_schema(
    own_column("sync_run_id", "uuid", "The run of `user_sync.sync_runs` that fetched this row"),
    own_column("landed_at", "timestamptz", "When the row was stored"),
    required=("id", "system_modstamp"),
)


def build_salesforce_users_raw(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset on the given axis."""

    @asset_in_one_run(
        partitions_def=partitions,
        group_name="user_sync",
        kinds={"salesforce", "postgres"},
        code_version="1",
        pool="salesforce",
        metadata={
            "dagster/table_name": SALESFORCE_USERS_RAW.qualified,
            "dagster/column_schema": COLUMN_SCHEMA,
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
                    schema=COLUMN_SCHEMA,
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
