"""What could not be stored as it came: the note that travels from decoding to the ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RejectedValue:
    """One value that was cleaned (`row_stored=True`) or cost its row (`False`); never the value itself."""

    salesforce_id: str | None
    field: str
    reason: str
    row_stored: bool
