"""A stateful stand-in for Salesforce: sign-in, describe, SOQL queries with cursors, limits and `updated`, over TLS.

What belongs here: what a client that only reads User can see of an organisation. What does not: the sandbox's
people (`sandbox/sample_people.py`). Requests that such a client has no reason to send are answered as Salesforce
would, and kept in the journal as violations.
"""

from user_sync_pipeline.sandbox.salesforce.faults import Fault, FaultScript
from user_sync_pipeline.sandbox.salesforce.simulator import SalesforceSimulator

__all__ = ["Fault", "FaultScript", "SalesforceSimulator"]
