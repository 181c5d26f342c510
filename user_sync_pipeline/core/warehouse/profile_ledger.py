"""The ledger of profile syncs: what each did, and what the profiles that it refreshed held before.

What belongs here: `user_sync.profile_runs` and `user_sync.profile_images`. What does not: profiles themselves, which
may lie in another database (`core/profiles`).

Every method is a transaction of its own, committed when it returns: what is noted here is there before a profile is
written, whatever becomes of the process.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Literal, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

IMAGES_A_FETCH = 10_000

_EXISTS = text("SELECT to_regclass('user_sync.profile_runs') IS NOT NULL")
_BEGIN = text("""
    INSERT INTO user_sync.profile_runs (run_id, door, started_by) VALUES (:run_id, :door, :started_by)
""")
# Noted twice when a request is repeated: what the profile held at first is what it is given back.
_NOTE_IMAGES = text("""
    INSERT INTO user_sync.profile_images AS noted (run_id, user_id, before, after)
    SELECT :run_id, image.user_id, image.before, image.after
    FROM jsonb_to_recordset(CAST(:images AS jsonb)) AS image (user_id uuid, before jsonb, after jsonb)
    ON CONFLICT (run_id, user_id) DO UPDATE SET after = excluded.after
""")
_FINISH = text("""
    UPDATE user_sync.profile_runs
    SET outcome = :outcome, finished_at = clock_timestamp(),
        created = :created, refreshed = :refreshed, vanished = :vanished, failed = :failed
    WHERE run_id = :run_id
""")
_HAS_RUN = text("SELECT EXISTS (SELECT FROM user_sync.profile_runs WHERE run_id = :run_id)")
_IMAGES = text("""
    SELECT user_id, before, after FROM user_sync.profile_images WHERE run_id = :run_id ORDER BY user_id
""")
_NOTE_UNDO = text("""
    UPDATE user_sync.profile_runs
    SET undone_at = clock_timestamp(), removed = removed + :removed, restored = restored + :restored
    WHERE run_id = :run_id
""")


class Image(Protocol):
    """The mirrored columns of one profile, before and after."""

    @property
    def user_id(self) -> UUID:
        """Whose profile it is."""

    @property
    def before(self) -> dict[str, str | None]:
        """What the columns held."""

    @property
    def after(self) -> dict[str, str | None]:
        """What was made of them."""


class ProfileLedger:
    """Keeps the book of profile syncs that are `started_by` somebody. Leaves the engine open."""

    def __init__(self, engine: Engine, *, started_by: str) -> None:
        self._engine = engine
        self._started_by = started_by

    def begin(self, door: str | None) -> UUID:
        """Open a run that goes through this door (sql, rpc, api, None for not asked) and return its id."""
        run_id = uuid4()
        with self._engine.begin() as connection:
            connection.execute(_BEGIN, {"run_id": run_id, "door": door, "started_by": self._started_by})
        return run_id

    def note_images(self, run_id: UUID, images: Sequence[Image]) -> None:
        """Note what these profiles hold and what the run is about to make of them."""
        rows = [{"user_id": str(image.user_id), "before": image.before, "after": image.after} for image in images]
        with self._engine.begin() as connection:
            connection.execute(_NOTE_IMAGES, {"run_id": run_id, "images": json.dumps(rows)})

    def finish(self, run_id: UUID, *, outcome: Literal["complete", "failed"], counts: Mapping[str, int]) -> None:
        """Close the run; `counts` are created, refreshed, vanished and failed."""
        with self._engine.begin() as connection:
            connection.execute(_FINISH, {"run_id": run_id, "outcome": outcome, **counts})

    def has_run(self, run_id: UUID) -> bool:
        """Tell whether there was such a run, and it is not forgotten yet."""
        with self._engine.connect() as connection:
            return bool(connection.scalar(_HAS_RUN, {"run_id": run_id}))

    def images(self, run_id: UUID) -> Generator[tuple[UUID, dict[str, str | None], dict[str, str | None]]]:
        """Stream what the run noted: the profile, what it held before, what was made of it."""
        options = {"yield_per": IMAGES_A_FETCH}
        with (
            self._engine.connect() as connection,
            connection.execute(_IMAGES, {"run_id": run_id}, execution_options=options) as result,
        ):
            for row in result:
                yield row.user_id, row.before, row.after

    def note_undo(self, run_id: UUID, *, removed: int, restored: int) -> None:
        """Note that the run was undone, once more maybe."""
        with self._engine.begin() as connection:
            connection.execute(_NOTE_UNDO, {"run_id": run_id, "removed": removed, "restored": restored})


def open_profile_ledger(engine: Engine, *, started_by: str) -> ProfileLedger | None:
    """Return the ledger in this database; None where the migration that makes it has not been applied."""
    with engine.connect() as connection:
        exists = connection.scalar(_EXISTS)
    return ProfileLedger(engine, started_by=started_by) if exists else None
