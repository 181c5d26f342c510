"""Resources: what assets and checks are handed, each a thin shell around `core`.

What belongs here: when a connection is made and closed in the life of a run. Settings are read when a run
starts, so a missing variable fails the run before its first step, and none of them is a resource field: the
UI shows resource fields. What does not: the work itself (`core/`).
"""

from user_sync_pipeline.resources.postgres import PostgresResource
from user_sync_pipeline.resources.salesforce import SalesforceResource
from user_sync_pipeline.resources.supabase import SupabaseResource

__all__ = ["PostgresResource", "SalesforceResource", "SupabaseResource"]
