"""Stand-ins for the outside world: a real Postgres and faithful simulators of Salesforce and Supabase.

What belongs here: servers that `demo`, `dev`, `sandbox` and the tests start and stop.
What does not: anything that the pipeline itself needs. Only `cli/` and the tests import this package;
it needs the extra `sandbox`.
"""
