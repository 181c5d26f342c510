"""The one job: all three assets and all their checks, in one run.

What belongs here: what the button, a sensor and a backfill launch.
What does not: when it runs.
"""

import dagster as dg

DESCRIPTION = """
Brings Salesforce users into `sf_users` and application profiles in step with auth users, in **one run**.

Choose a range of days: the last three for a quick catch-up, *All* for a full sync (the first day stands for
everything before it). The whole range is one run; all checks run in it.
"""

user_sync = dg.define_asset_job(
    "user_sync",
    selection=dg.AssetSelection.assets("salesforce_users_raw", "sf_users", "profile_reconciliation"),
    description=DESCRIPTION,
)
