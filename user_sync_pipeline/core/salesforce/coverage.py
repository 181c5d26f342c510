"""How many users changed, and up to when Salesforce vouches that every change is visible: `sobjects/User/updated`.

What belongs here: asking within the bounds of this resource. What does not: what the answer means for a run
(`core/read_bounds.py`), and whether there is to be one (`core/recent_changes.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce.client import RawSalesforce
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import RefusedError

# How far before the bound the question for `latestDateCovered` starts: longer than Salesforce lets a transaction
# run, and short enough that few ids come with the answer.
LOOK_BACK = timedelta(hours=2)
SHORTEST_LOOK_BACK = timedelta(minutes=2)


class _Updated(msgspec.Struct):
    ids: list[msgspec.Raw]
    latestDateCovered: str  # noqa: N815


class ChangedUsers(NamedTuple):
    """How many users have changed since a moment, and up to when Salesforce vouches for that."""

    users: int
    covered_until: datetime


def latest_date_covered(client: RawSalesforce, until: datetime) -> datetime | None:
    """Return that moment, at most about `until`; None when Salesforce cannot say."""
    end = until.astimezone(UTC)
    if end.microsecond:
        end = end.replace(microsecond=0) + timedelta(seconds=1)
    look_back = LOOK_BACK
    while look_back >= SHORTEST_LOOK_BACK:
        try:
            return _ask(client, end - look_back, end).covered_until
        except RefusedError as refused:
            if refused.code == "INVALID_REPLICATION_DATE":
                return None
            if refused.decision is not Decision.HALVE:
                raise
            look_back /= 2
    return None


def changed_since(client: RawSalesforce, since: datetime, until: datetime) -> ChangedUsers | None:
    """Ask once for the users changed from `since`, or a little earlier, to about `until`.

    None when Salesforce cannot list them: `since` lies more than 30 days back, or there are too many.
    """
    try:
        return _ask(client, min(since, until - SHORTEST_LOOK_BACK).astimezone(UTC), until.astimezone(UTC))
    except RefusedError as refused:
        if refused.code == "INVALID_REPLICATION_DATE" or refused.decision is Decision.HALVE:
            return None
        raise


def _ask(client: RawSalesforce, start: datetime, end: datetime) -> ChangedUsers:
    answer = client.restful("sobjects/User/updated/", params={"start": _second(start), "end": _second(end)}) or b""
    try:
        updated = msgspec.json.decode(answer, type=_Updated)
        return ChangedUsers(len(updated.ids), datetime.fromisoformat(updated.latestDateCovered).astimezone(UTC))
    except ValueError:
        raise UnreachableError("Salesforce did not say up to when its changes are visible; run again.") from None


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
