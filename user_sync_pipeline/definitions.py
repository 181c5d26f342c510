"""What Dagster loads: every asset, check, job, schedule, sensor and resource by name, and nothing that runs."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from user_sync_pipeline.assets.catalogue import IN_EDITOR, SOURCES, catalogued
from user_sync_pipeline.assets.reconciliation import profile_reconciliation
from user_sync_pipeline.assets.salesforce import build_salesforce_users_raw
from user_sync_pipeline.assets.warehouse import build_sf_users
from user_sync_pipeline.checks import CHECKS
from user_sync_pipeline.core import settings
from user_sync_pipeline.io_managers import PostgresIOManager
from user_sync_pipeline.jobs import reconcile_profiles, user_sync
from user_sync_pipeline.partitions import daily_partitions
from user_sync_pipeline.resources import PostgresResource, SalesforceResource, SupabaseResource
from user_sync_pipeline.schedules import build_schedules
from user_sync_pipeline.sensors import build_sensors


def build_definitions(*, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return fresh definitions; `resources` replaces resources by name."""
    days, in_production = daily_partitions(settings.horizon()), settings.environment_name() == "production"
    assets = [build_salesforce_users_raw(days), build_sf_users(days), profile_reconciliation]
    source_link = settings.source_url() or (None if in_production else IN_EDITOR)
    own = {"salesforce": SalesforceResource(), "postgres": PostgresResource(), "supabase": SupabaseResource()}
    return dg.Definitions(
        assets=[*SOURCES, *catalogued(assets, settings.owners(), source_link=source_link)],
        asset_checks=CHECKS,
        jobs=[user_sync, reconcile_profiles],
        schedules=build_schedules(days, running=in_production),
        sensors=build_sensors(days, running=in_production),
        resources={**own, "io_manager": PostgresIOManager(), **(resources or {})},
        executor=dg.in_process_executor,  # three short steps: a process for each would cost 15 s
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read horizon and environment when Dagster loads the definitions, not when this module is imported."""
    return build_definitions()
