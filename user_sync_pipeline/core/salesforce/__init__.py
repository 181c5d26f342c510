"""Reading users from Salesforce: sign-in, transport, SOQL, fields, records.

What belongs here: everything between the settings and typed Arrow batches.
What does not: Postgres, profiles, Dagster. Nothing here can write to Salesforce.
"""
