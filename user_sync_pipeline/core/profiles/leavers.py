"""People who have left by Salesforce's account and can still sign in.

What belongs here: counting them among the findings of the last reconciliation, in the database that holds these.
What does not: finding them (`reconcile.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, text

from user_sync_pipeline.core.files import named_query


@dataclass(frozen=True, slots=True)
class Leavers:
    """How many people are inactive in Salesforce and can sign in, and how many of them for too long.

    `auth_user_ids` are at most ten of the latter, those who left first.
    """

    people: int
    overdue: int
    auth_user_ids: tuple[str, ...]


def leavers_who_can_sign_in(warehouse: Connection, grace: timedelta) -> Leavers:
    """Count them; it is too long when this pipeline has known them as inactive for more than `grace`."""
    row = warehouse.execute(text(named_query("leavers_who_can_sign_in")), {"grace": grace}).one()
    return Leavers(row.people, row.overdue, tuple(row.auth_user_ids))
