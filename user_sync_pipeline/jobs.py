"""The jobs: all three assets with all their checks in one run, and the profiles alone.

What belongs here: what the button, a sensor, a schedule and a backfill launch.
What does not: when it runs (`schedules.py`, `sensors.py`).
"""

import dagster as dg

DESCRIPTION = """
Brings Salesforce users into `sf_users` and application profiles in step with auth users, in **one run**.

Choose a range of days: the last three for a quick catch-up, *All time* and *All* for a full sync (the first day
stands for everything before it). The whole range is one run; all checks run in it.
"""
PROFILES_DESCRIPTION = """
Brings application profiles in step with auth users and compares both with `sf_users` as it is, **without asking
Salesforce**.
"""

user_sync = dg.define_asset_job(
    "user_sync",
    selection=dg.AssetSelection.assets("salesforce_users_raw", "sf_users", "profile_reconciliation"),
    description=DESCRIPTION,
)

reconcile_profiles = dg.define_asset_job(
    "reconcile_profiles",
    selection=dg.AssetSelection.assets("profile_reconciliation"),
    description=PROFILES_DESCRIPTION,
)
