"""Landing of one run: what Salesforce answered goes into `user_sync.salesforce_users_raw` as it was fetched.

What belongs here: the batches of a run, their checkpoints, and replacing what earlier runs had landed in the window.
What does not: which version of a user is the current one (`merge.py`).

Every batch is committed with the checkpoint of its slice. A batch that is in no order, as Bulk gives them, moves no
checkpoint: what lies behind the one that was reached before is removed and read again after a break.
Rows of earlier runs go only when all of the new ones are there, so a process that dies leaves both, and loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg import sql
from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.positions import Position, last_position, rows_before
from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.warehouse.copying import copy_batches
from user_sync_pipeline.core.warehouse.locks import keep_merges_out
from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    import pyarrow as pa

# Whoever goes on with a run that broke off raises this number first; until this transaction ends nobody can.
_TURN = text("SELECT resumed FROM user_sync.sync_runs WHERE run_id = :run_id FOR SHARE")
_RAW = sql.Identifier("user_sync", "salesforce_users_raw")

# A page may be read again after a break, and its notes are there already.
_NOTE_REJECTED = text("""
    INSERT INTO user_sync.rejected_records (run_id, salesforce_id, field, reason, row_stored)
    SELECT :run_id, CAST(:salesforce_id AS text), :field, :reason, :row_stored
    WHERE CAST(:salesforce_id AS text) IS NULL OR NOT EXISTS (
        SELECT FROM user_sync.rejected_records AS known
        WHERE known.run_id = :run_id AND known.salesforce_id = :salesforce_id AND known.field = :field
    )
""")
_PLAN_SLICE = text("""
    INSERT INTO user_sync.checkpoints (run_id, slice, since, until, counted_rows)
    VALUES (:run_id, :slice, :since, :until, :counted_rows)
""")
_WRITE_CHECKPOINT = text("""
    INSERT INTO user_sync.checkpoints AS stored
        (run_id, slice, since, until, counted_rows, system_modstamp, id, landed_rows, settled_rows)
    VALUES (:run_id, :slice, :since, :until, :counted_rows, :system_modstamp, :id, :rows, :settled_rows)
    ON CONFLICT (run_id, slice) DO UPDATE SET
        system_modstamp = coalesce(excluded.system_modstamp, stored.system_modstamp),
        id = coalesce(excluded.id, stored.id),
        landed_rows = stored.landed_rows + excluded.landed_rows,
        settled_rows = stored.settled_rows + excluded.settled_rows,
        written_at = clock_timestamp()
""")
_FINISH_SLICE = text("UPDATE user_sync.checkpoints SET finished = true WHERE run_id = :run_id AND slice = :slice")
_READ_CHECKPOINTS = text("""
    SELECT slice, since, until, counted_rows, system_modstamp, id, landed_rows, finished
    FROM user_sync.checkpoints WHERE run_id = :run_id ORDER BY slice
""")
# The order of (SystemModstamp, Id) is Salesforce's, byte by byte, whatever the collation of the database.
_FORGET_BEHIND_CHECKPOINT = text("""
    DELETE FROM user_sync.salesforce_users_raw AS raw
    USING user_sync.checkpoints AS reached
    WHERE reached.run_id = :run_id AND reached.slice = :slice
      AND raw.sync_run_id = :run_id
      AND raw.system_modstamp < reached.until
      AND (reached.since IS NULL OR raw.system_modstamp >= reached.since)
      AND (reached.id IS NULL
           OR (raw.system_modstamp, raw.id COLLATE "C") > (reached.system_modstamp, reached.id COLLATE "C"))
""")
# Not counted by the rows that go: later runs may have replaced some of them meanwhile.
_COUNT_AGAIN = text(
    "UPDATE user_sync.checkpoints SET landed_rows = settled_rows WHERE run_id = :run_id AND slice = :slice"
)
# Notes have no slice; where some of them may belong to rows that stay, those of the others are found again.
_FORGET_NOTES = text("""
    DELETE FROM user_sync.rejected_records
    WHERE run_id = :run_id AND NOT EXISTS (
        SELECT FROM user_sync.checkpoints AS reached
        WHERE reached.run_id = :run_id AND (reached.finished OR reached.id IS NOT NULL)
    )
""")
_DELETE_SLICE = text("DELETE FROM user_sync.checkpoints WHERE run_id = :run_id AND slice = :slice")
_READ_REJECTED = text("""
    SELECT salesforce_id, field, reason, row_stored FROM user_sync.rejected_records
    WHERE run_id = :run_id ORDER BY rejected_record_id
""")
# Earlier means by start: a run that began after this one has seen newer answers, whichever ends first.
_DELETE_EARLIER_RUNS = """
    DELETE FROM user_sync.salesforce_users_raw AS raw
    WHERE raw.system_modstamp < :until
      AND (CAST(:since AS timestamptz) IS NULL OR raw.system_modstamp >= :since)
      AND raw.sync_run_id NOT IN (
          SELECT run.run_id FROM user_sync.sync_runs AS run
          WHERE run.started_at >= (SELECT own.started_at FROM user_sync.sync_runs AS own WHERE own.run_id = :run_id)
      )
"""
# A limited run has one slice, number 0.
_UP_TO_CHECKPOINT = """
      AND (raw.system_modstamp, raw.id COLLATE "C") <= (
          SELECT reached.system_modstamp, reached.id COLLATE "C"
          FROM user_sync.checkpoints AS reached WHERE reached.run_id = :run_id AND reached.slice = 0
      )
"""
_DELETE_WHOLE_WINDOW = text(_DELETE_EARLIER_RUNS)
_DELETE_UP_TO_CHECKPOINT = text(_DELETE_EARLIER_RUNS + _UP_TO_CHECKPOINT)
# A run that went on after a break has read after those that began during it, and what has not changed was read twice.
_LATER_RUNS = text("""
    SELECT array_agg(later.run_id)
    FROM user_sync.sync_runs AS own JOIN user_sync.sync_runs AS later ON later.started_at > own.started_at
    WHERE own.run_id = :run_id AND later.landed_at IS NOT NULL
""")
_DELETE_READ_AGAIN = text("""
    DELETE FROM user_sync.salesforce_users_raw AS raw
    USING user_sync.salesforce_users_raw AS own
    WHERE own.sync_run_id = :run_id AND raw.sync_run_id = ANY(:later)
      AND raw.id = own.id AND raw.system_modstamp <= own.system_modstamp AND raw.landed_at < own.landed_at
      AND raw.system_modstamp < :until
      AND (CAST(:since AS timestamptz) IS NULL OR raw.system_modstamp >= :since)
""")
_DELETE_CHECKPOINTS = text("DELETE FROM user_sync.checkpoints WHERE run_id = :run_id")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one slice has landed: everything up to `position` (None: nothing for certain).

    `counted_rows` is how many rows Salesforce held in it when it was planned.
    """

    slice: int
    window: SyncWindow
    counted_rows: int = 0
    position: Position | None = None
    landed_rows: int = 0
    finished: bool = False

    @property
    def rows_left(self) -> int:
        """How many rows are still to be read, as far as they were counted."""
        return max(0, self.counted_rows - self.landed_rows)


class Landing:
    """The landing of the run `run_id` in `window`; the run must stand in the ledger.

    `settled_until` is the moment up to which Salesforce vouches for its answers, the end of the window when not given.
    Checkpoints never lie behind it (`core/positions.py`). Each method is one committed transaction on a connection of
    its own from the engine of `bind`.
    """

    def __init__(
        self, bind: Engine | Connection, run_id: UUID, window: SyncWindow, *, settled_until: datetime | None = None
    ) -> None:
        self.run_id = run_id
        self.window = window
        self._settled_until = min(window.until, settled_until or window.until)
        self._engine = bind.engine
        self._own_turn: int | None = None

    def plan(self, slices: Iterable[tuple[SyncWindow, int]]) -> None:
        """Add slices of the window, each with its counted rows, behind those that the run has."""
        with self._turn() as connection:
            self._plan(connection, slices)

    def cut(self, slice_: Checkpoint, parts: Iterable[tuple[SyncWindow, int]]) -> None:
        """Put the parts of a slice, each with its counted rows, in its place; nothing of it may have landed."""
        with self._turn() as connection:
            self._plan(connection, parts)
            connection.execute(_DELETE_SLICE, {"run_id": self.run_id, "slice": slice_.slice})

    def _plan(self, connection: Connection, slices: Iterable[tuple[SyncWindow, int]]) -> None:
        planned = connection.execute(_READ_CHECKPOINTS, {"run_id": self.run_id}).all()
        first = planned[-1].slice + 1 if planned else 0
        for number, (window, rows) in enumerate(slices, start=first):
            bounds = {"since": window.since, "until": window.until, "counted_rows": rows}
            connection.execute(_PLAN_SLICE, {"run_id": self.run_id, "slice": number, **bounds})

    def checkpoints(self) -> list[Checkpoint]:
        """Return all slices of the run, in order of their numbers."""
        with self._engine.begin() as connection:
            rows = connection.execute(_READ_CHECKPOINTS, {"run_id": self.run_id}).all()
        return [
            Checkpoint(
                row.slice,
                SyncWindow(row.since, row.until),
                row.counted_rows,
                None if row.id is None else Position(row.system_modstamp, row.id),
                row.landed_rows,
                row.finished,
            )
            for row in rows
        ]

    def rejected(self) -> list[RejectedValue]:
        """Return what the run has noted so far."""
        with self._engine.begin() as connection:
            rows = connection.execute(_READ_REJECTED, {"run_id": self.run_id}).all()
        return [RejectedValue(*row) for row in rows]

    def go_back_to_checkpoints(self) -> None:
        """Remove the rows of unfinished slices that lie behind their checkpoints: they are going to be read again."""
        with self._turn() as connection:
            connection.execute(_FORGET_NOTES, {"run_id": self.run_id})
        for reached in self.checkpoints():
            if not reached.finished:
                with self._turn() as connection:
                    slice_ = {"run_id": self.run_id, "slice": reached.slice}
                    connection.execute(_FORGET_BEHIND_CHECKPOINT, slice_)
                    connection.execute(_COUNT_AGAIN, slice_)

    def append(
        self,
        batch: pa.RecordBatch,
        rejected: Sequence[RejectedValue] = (),
        *,
        slice_: Checkpoint | None = None,
        in_order: bool = True,
    ) -> None:
        """Store one page of a slice, ordered by (SystemModstamp, Id), with its rejects and the checkpoint behind it.

        One that is not `in_order` leaves the checkpoint where it is. Without `slice_` the window is one slice.
        """
        import pyarrow as pa

        slice_ = slice_ or Checkpoint(0, self.window)
        with self._turn() as connection:
            if rejected:
                notes = [{"run_id": self.run_id, **asdict(value)} for value in rejected]
                connection.execute(_NOTE_REJECTED, notes)
            if batch.num_rows == 0:
                return
            landed = batch.append_column("sync_run_id", pa.repeat(str(self.run_id), batch.num_rows))
            copy_batches(connection, _RAW, landed.schema.names, [landed])
            settled_until = min(slice_.window.until, self._settled_until)
            settled_rows = rows_before(batch, settled_until) if in_order else 0
            position = last_position(batch, settled_until) if in_order else None
            checkpoint = {
                "run_id": self.run_id,
                "slice": slice_.slice,
                "since": slice_.window.since,
                "until": slice_.window.until,
                "counted_rows": slice_.counted_rows,
                "system_modstamp": position and position.system_modstamp,
                "id": position and position.id,
                "rows": batch.num_rows,
                "settled_rows": settled_rows,
            }
            connection.execute(_WRITE_CHECKPOINT, checkpoint)

    def finish_slice(self, number: int) -> None:
        """Note that a slice was read to its end."""
        with self._turn() as connection:
            connection.execute(_FINISH_SLICE, {"run_id": self.run_id, "slice": number})

    def finish(self, *, limited: bool, connection: Connection | None = None) -> None:
        """Remove what earlier runs landed in the window, and the checkpoints; rows outside the window stay.

        A limited run replaces only up to its last stored row. Works in the transaction of `connection` if it is given.
        """
        delete = _DELETE_UP_TO_CHECKPOINT if limited else _DELETE_WHOLE_WINDOW
        bounds = {"run_id": self.run_id, "since": self.window.since, "until": self.window.until}
        with self._turn(connection) as own:
            keep_merges_out(own)
            own.execute(delete, bounds)
            later = own.scalar(_LATER_RUNS, {"run_id": self.run_id})
            if later:
                own.execute(_DELETE_READ_AGAIN, {"later": later, **bounds})
            own.execute(_DELETE_CHECKPOINTS, {"run_id": self.run_id})

    @contextmanager
    def _turn(self, connection: Connection | None = None) -> Iterator[Connection]:
        """Begin a transaction, or go on in that of `connection`; nobody else can go on with the run before it ends.

        Raises `UnreachableError` when somebody has: a process that loses its connections no longer keeps others out.
        """
        with nullcontext(connection) if connection is not None else self._engine.begin() as own:
            turn = own.scalar(_TURN, {"run_id": self.run_id})
            if self._own_turn is None:
                self._own_turn = turn
            if turn != self._own_turn:
                raise UnreachableError(
                    "USER_SYNC_DATABASE_URL: the connection was lost, and another process has gone on with this run; "
                    "leave it to that one."
                )
            yield own
