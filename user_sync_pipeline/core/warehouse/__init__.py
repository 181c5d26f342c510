"""Storing users in Postgres: connections, landing, merge, ledger, migrations, tables.

What belongs here: every statement that the pipeline sends to its own tables.
What does not: Salesforce (only its field catalogue is read), profiles, Dagster. No table is created or
altered here; DDL lives in `sql/migrations` alone.
"""
