"""Everything the pipeline does, without Dagster.

What belongs here: settings, windows, Salesforce, the warehouse, profiles, and the service that joins them.
What does not: anything that imports `dagster`, a terminal, or the sandbox.
"""
