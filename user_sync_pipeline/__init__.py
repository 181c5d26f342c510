"""Keeps Salesforce users, the table `sf_users` and application profiles in step.

Start reading at `definitions.py` (what Dagster sees) or `core/user_sync.py` (what it does).
Nothing here imports anything: `user-sync --help` must answer at once.
"""
