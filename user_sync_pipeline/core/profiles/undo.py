"""Taking one sync back: the profiles that it made, and what it changed in others.

What belongs here: which run, in which order, and what came of it. What does not: how a door takes something back.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.profiles.directory import ProfileDirectory, ProfileImage, Undone
from user_sync_pipeline.core.profiles.report import format_undo
from user_sync_pipeline.core.profiles.run_ledger import RunLedger


@dataclass(frozen=True, slots=True)
class UndoResult:
    """What an undo did, and how long it took."""

    run_id: UUID
    undone: Undone
    execution_time_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync sync --undo --json` prints."""
        return {
            "run_id": str(self.run_id),
            "profiles_removed": self.undone.removed,
            "profiles_restored": self.undone.restored,
            "profiles_kept": len(self.undone.kept),
            "execution_time_seconds": round(self.execution_time_seconds, 3),
            "kept": [{"user_id": str(kept.user_id), "reason": kept.reason} for kept in self.undone.kept],
        }

    def for_people(self) -> str:
        """Return the outcome as lines, without a newline at the end."""
        reasons = [kept.reason for kept in self.undone.kept]
        return format_undo(self.run_id, self.undone.removed, self.undone.restored, reasons, self.execution_time_seconds)


def undo_sync(directory: ProfileDirectory, ledger: RunLedger, run_id: UUID) -> UndoResult:
    """Take a run back, as far as nobody changed since what it made; raises `UsageError` for a run that is not known.

    May be repeated, after a break as well: what is as it was before the run stays so.
    """
    if not ledger.has_run(run_id):
        raise UsageError(
            f"There is no run {run_id} to undo; those of the last time stand in the table user_sync.profile_runs."
        )
    started = time.monotonic()
    with closing(ledger.images(run_id)) as images:
        undone = directory.undo(run_id, (ProfileImage(*image) for image in images))
    ledger.note_undo(run_id, removed=undone.removed, restored=undone.restored)
    return UndoResult(run_id, undone, time.monotonic() - started)
