"""What the profiles side asks of a ledger, so that a run can be undone.

What belongs here: the protocol, and opening and closing a run. What does not: the tables behind it, which are the
warehouse's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

from user_sync_pipeline.core.profiles.directory import Creation, ProfileImage
from user_sync_pipeline.core.profiles.report import Method, ProfileFailure


class RunLedger(Protocol):
    """Remembers runs. What a method has noted is there when it returns, whatever happens next."""

    def begin(self, door: Method | None) -> UUID:
        """Open a run that goes through this door and return its id."""
        ...

    def note_images(self, run_id: UUID, images: Sequence[ProfileImage]) -> None:
        """Note what these profiles hold and what the run is about to make of them."""
        ...

    def finish(self, run_id: UUID, *, outcome: Literal["complete", "failed"], counts: Mapping[str, int]) -> None:
        """Close the run; `counts` are created, refreshed, vanished and failed."""
        ...

    def has_run(self, run_id: UUID) -> bool:
        """Tell whether there was such a run, and it is not forgotten yet."""
        ...

    def images(self, run_id: UUID) -> Generator[tuple[UUID, dict[str, str | None], dict[str, str | None]]]:
        """Stream what the run noted: the profile, what it held before, what was made of it."""
        ...

    def note_undo(self, run_id: UUID, *, removed: int, restored: int) -> None:
        """Note that the run was undone, once more maybe."""
        ...


@dataclass(slots=True)
class Tally:
    """What a sync has done so far."""

    created: int = 0
    vanished: int = 0
    refreshed: int = 0
    failures: list[ProfileFailure] = field(default_factory=list)
    refused_refreshes: list[ProfileFailure] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Missing profiles that were attempted."""
        return self.created + self.vanished + len(self.failures)

    def add(self, creation: Creation) -> None:
        """Count what became of some missing profiles."""
        self.created += creation.created
        self.vanished += creation.vanished
        self.failures += creation.failures

    def as_counts(self) -> dict[str, int]:
        """Return the counts as the ledger keeps them."""
        return {
            "created": self.created,
            "refreshed": self.refreshed,
            "vanished": self.vanished,
            "failed": len(self.failures) + len(self.refused_refreshes),
        }


@contextmanager
def noted_run(ledger: RunLedger | None, door: Method | None) -> Iterator[tuple[UUID | None, Tally]]:
    """Give a run of the ledger and a tally, and close the run with what was counted, also when it broke off.

    Without a ledger there is no run. `door` is None where nobody asked which way it goes.
    """
    tally = Tally()
    if ledger is None:
        yield None, tally
        return
    run_id = ledger.begin(door)
    try:
        yield run_id, tally
    except BaseException:
        # What broke it off is told, not that the ledger cannot be reached either.
        with suppress(Exception):
            ledger.finish(run_id, outcome="failed", counts=tally.as_counts())
        raise
    ledger.finish(run_id, outcome="complete", counts=tally.as_counts())
