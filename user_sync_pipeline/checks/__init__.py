"""Asset checks: whether the tables tell the truth, asked of the tables and servers themselves.

What belongs here: what passes, what warns, what is an error, and the sentence that goes with it; one file an asset.
What does not: counting (`core/`). No check takes an asset as an argument: Dagster would load all of it.

A check blocks where going on would do harm that cannot be undone, and its description says which. All others let the
run go on: what they find is in the tables already, and people who signed up wait for their profiles.
"""

from user_sync_pipeline.checks.landing import api_reserve_kept, landing_checks
from user_sync_pipeline.checks.profiles import profile_checks
from user_sync_pipeline.checks.users import salesforce_count_matches, user_checks

CHECKS = [landing_checks, api_reserve_kept, salesforce_count_matches, user_checks, profile_checks]
