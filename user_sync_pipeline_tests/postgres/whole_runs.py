"""Runs from the ledger's first line to its last, with a certificate, for tests that ask what the ledger tells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine, text

from user_sync_pipeline.core.certificate import Certificate
from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.landing import Landing
from user_sync_pipeline.core.warehouse.merge import merge_window
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline_tests.postgres.users import EVERYTHING, ORG, Row, batch_of

FIELDS = ("Id", "Username", "Email", "External_ID__c")


def land(
    engine: Engine,
    *rows: Row,
    window: SyncWindow = EVERYTHING,
    columns: Collection[str] = USER_COLUMNS,
    fields: Sequence[str] = FIELDS,
    limit: int | None = None,
    started_by: str = "test",
    covered_until: datetime | None = None,
    held_reason: str | None = None,
    closing_count: int | None = None,
    api_calls: int = 1,
) -> UUID:
    """Begin a run and land it; it has not been merged yet."""
    vouched = covered_until or window.until
    with engine.begin() as connection:
        run_id = ledger.begin_run(
            connection,
            org_id=ORG,
            mode="custom",
            window=window,
            limit=limit,
            columns=columns,
            fields=fields,
            started_by=started_by,
        )
    if rows:
        landing = Landing(engine, run_id, window)
        landing.append(batch_of(*rows))
        landing.finish(limited=False)
    certificate = Certificate(window, vouched, limited=False, users=len(rows), closing_count=closing_count)
    with engine.begin() as connection:
        ledger.record_landing(
            connection,
            run_id,
            read_until=window.until,
            covered_until=vouched,
            held_reason=held_reason,
            fetched=len(rows),
            rejected=0,
            api_calls=api_calls,
            certificate=certificate.as_json(),
        )
    return run_id


def finish(engine: Engine, run_id: UUID, window: SyncWindow = EVERYTHING) -> None:
    """Merge what has landed, close the run and move the watermark as far as it vouches for."""
    with engine.begin() as connection:
        counts = merge_window(connection, window, run_id)
        ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
        ledger.advance_watermark(connection, run_id)


def reject(
    engine: Engine, run_id: UUID, salesforce_id: str | None, *, field: str = "Username", row_stored: bool = False
) -> None:
    """Note that a value of a user could not be stored as it came."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO user_sync.rejected_records (run_id, salesforce_id, field, reason, row_stored)
                VALUES (:run_id, :salesforce_id, :field, :reason, :row_stored)
            """),
            {
                "run_id": run_id,
                "salesforce_id": salesforce_id,
                "field": field,
                "reason": f"{field} is missing",
                "row_stored": row_stored,
            },
        )
