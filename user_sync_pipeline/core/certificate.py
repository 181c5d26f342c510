"""The completeness certificate of a run: what was read, in figures that anybody can compare with the tables.

What belongs here: the statement, and the judgement whether the window was read whole.
What does not: counting (`warehouse/census.py`, and Salesforce itself).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from user_sync_pipeline.core.windows import SyncWindow, format_moment


@dataclass(frozen=True, slots=True)
class SliceRead:
    """A part of the window and the rows that were landed from it."""

    window: SyncWindow
    rows: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one run read.

    `window` is what was really read, `vouched_until` the moment up to which Salesforce says that nothing is still to
    come. `users` and `digest` are as in `warehouse/census.py`, `rejected` counts rows that could not be stored.
    `closing_count` is Salesforce's own COUNT() for the window, asked after the last page; None when nothing was asked.
    `hidden_fields` and `lost_fields` (hidden in mid-run) are not in the tables; `formula_fields` change without a
    trace in SystemModstamp, so that only a full run brings them up to date. `transport` is "rest" or "bulk": that of
    the last page.
    """

    window: SyncWindow | None
    vouched_until: datetime
    limited: bool
    slices: Sequence[SliceRead] = ()
    users: int = 0
    rejected: int = 0
    closing_count: int | None = None
    digest: str = ""
    users_by_type: dict[str, dict[str, int]] = field(default_factory=dict)
    hidden_fields: tuple[str, ...] = ()
    lost_fields: tuple[str, ...] = ()
    formula_fields: tuple[str, ...] = ()
    transport: str = "rest"

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return the certificate that the ledger keeps as `kept`."""
        lists: dict[str, Any] = {name: tuple(kept[name]) for name in ("hidden_fields", "lost_fields", "formula_fields")}
        figures: dict[str, Any] = {
            name: kept[name] for name in ("limited", "users", "rejected", "closing_count", "digest")
        }
        return cls(
            _window(kept) if kept["until"] else None,
            datetime.fromisoformat(kept["vouched_until"]),
            slices=tuple(SliceRead(_window(each), each["rows"]) for each in kept["slices"]),
            users_by_type=kept["users_by_type"],
            transport=kept.get("transport", "rest"),
            **figures,
            **lists,
        )

    @property
    def seen(self) -> int:
        """How many users were read, stored or not."""
        return self.users + self.rejected

    @property
    def missing(self) -> int:
        """How many more users Salesforce counted at the end than were read.

        It may count fewer: who changes while the run reads is seen, and then leaves the window.
        """
        return 0 if self.closing_count is None else max(0, self.closing_count - self.seen)

    @property
    def complete(self) -> bool:
        """Whether the window was read to its end, and Salesforce holds no more users in it than were seen."""
        return not self.limited and self.missing == 0

    def as_json(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        return {
            "complete": self.complete,
            **(_bounds(self.window) if self.window else {"since": None, "until": None}),
            "vouched_until": format_moment(self.vouched_until),
            "limited": self.limited,
            "transport": self.transport,
            "slices": [{**_bounds(each.window), "rows": each.rows} for each in self.slices],
            "users": self.users,
            "rejected": self.rejected,
            "closing_count": self.closing_count,
            "digest": self.digest,
            "users_by_type": self.users_by_type,
            "hidden_fields": list(self.hidden_fields),
            "lost_fields": list(self.lost_fields),
            "formula_fields": list(self.formula_fields),
        }


def _window(bounds: Mapping[str, Any]) -> SyncWindow:
    since = bounds["since"]
    return SyncWindow(datetime.fromisoformat(since) if since else None, datetime.fromisoformat(bounds["until"]))


def _bounds(window: SyncWindow) -> dict[str, str | None]:
    return {"since": format_moment(window.since) if window.since else None, "until": format_moment(window.until)}
