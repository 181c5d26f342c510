"""Landing of one run: what Salesforce answered goes into `user_sync.salesforce_users_raw` as it was fetched.

What belongs here: the batches of a run, their checkpoint, and replacing what earlier runs had landed in the window.
What does not: which version of a user is the current one (`merge.py`).

Every batch is committed with its checkpoint. Rows of earlier runs go only when all of the new ones are there, so a
process that dies leaves both, and loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg import sql
from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.warehouse.copying import copy_batches
from user_sync_pipeline.core.windows import SyncWindow

if TYPE_CHECKING:
    import pyarrow as pa

_RAW = sql.Identifier("user_sync", "salesforce_users_raw")

_NOTE_REJECTED = text("""
    INSERT INTO user_sync.rejected_records (run_id, salesforce_id, field, reason, row_stored)
    VALUES (:run_id, :salesforce_id, :field, :reason, :row_stored)
""")
_WRITE_CHECKPOINT = text("""
    INSERT INTO user_sync.checkpoints AS stored (run_id, system_modstamp, id, landed_rows)
    VALUES (:run_id, :system_modstamp, :id, :rows)
    ON CONFLICT (run_id) DO UPDATE SET
        system_modstamp = excluded.system_modstamp,
        id = excluded.id,
        landed_rows = stored.landed_rows + excluded.landed_rows,
        written_at = clock_timestamp()
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
# The order of (SystemModstamp, Id) is Salesforce's, byte by byte, whatever the collation of the database.
_UP_TO_CHECKPOINT = """
      AND (raw.system_modstamp, raw.id COLLATE "C") <= (
          SELECT reached.system_modstamp, reached.id COLLATE "C"
          FROM user_sync.checkpoints AS reached WHERE reached.run_id = :run_id
      )
"""
_DELETE_WHOLE_WINDOW = text(_DELETE_EARLIER_RUNS)
_DELETE_UP_TO_CHECKPOINT = text(_DELETE_EARLIER_RUNS + _UP_TO_CHECKPOINT)
_DELETE_CHECKPOINT = text("DELETE FROM user_sync.checkpoints WHERE run_id = :run_id")


class Landing:
    """The landing of the run `run_id` in `window`; the run must stand in the ledger.

    Each method is one committed transaction on a connection of its own from the engine of `bind`.
    """

    def __init__(self, bind: Engine | Connection, run_id: UUID, window: SyncWindow) -> None:
        self.run_id = run_id
        self.window = window
        self._engine = bind.engine

    def append(self, batch: pa.RecordBatch, rejected: Sequence[RejectedValue] = ()) -> None:
        """Store one page, ordered by (SystemModstamp, Id), with its rejects and the checkpoint behind it."""
        import pyarrow as pa

        with self._engine.begin() as connection:
            if rejected:
                notes = [{"run_id": self.run_id, **asdict(value)} for value in rejected]
                connection.execute(_NOTE_REJECTED, notes)
            if batch.num_rows == 0:
                return
            landed = batch.append_column("sync_run_id", pa.repeat(str(self.run_id), batch.num_rows))
            copy_batches(connection, _RAW, landed.schema.names, [landed])
            last = {name: batch.column(name)[-1].as_py() for name in ("system_modstamp", "id")}
            connection.execute(_WRITE_CHECKPOINT, {"run_id": self.run_id, "rows": batch.num_rows, **last})

    def finish(self, *, limited: bool) -> None:
        """Remove what earlier runs landed in the window, and the checkpoint; rows outside the window stay.

        A limited run replaces only up to its last stored row.
        """
        delete = _DELETE_UP_TO_CHECKPOINT if limited else _DELETE_WHOLE_WINDOW
        bounds = {"run_id": self.run_id, "since": self.window.since, "until": self.window.until}
        with self._engine.begin() as connection:
            connection.execute(delete, bounds)
            connection.execute(_DELETE_CHECKPOINT, {"run_id": self.run_id})
