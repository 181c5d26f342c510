"""simple-salesforce as it is used here: for the addresses of queries, over our own session.

What belongs here: keeping its own decoding and sessions out of the way. What does not: which requests are made
(`rest.py`), and how (`transport.py`).
"""

from __future__ import annotations

from typing import NoReturn

from requests import Response
from simple_salesforce.api import Salesforce

from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError


class RawSalesforce(Salesforce):
    """simple-salesforce, except that it hands over the bytes of an answer: they go straight into typed decoding."""

    @property
    def mdapi(self) -> NoReturn:
        """Refuse the metadata client, which would bring a session of its own."""
        raise NotReadOnlyError("The metadata API was not called, because only users are read here.")

    def parse_result_to_json(self, result: Response) -> bytes:
        """Return the body as it is."""
        return result.content
