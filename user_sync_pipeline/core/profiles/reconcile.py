"""Compares and mends: the profile sync, and the findings between the directory and `sf_users`.

What belongs here: the order of the steps, the same for both doors. What does not: SQL (`sql/queries`) and HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, text

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles.directory import ProfileDirectory
from user_sync_pipeline.core.profiles.report import ProfileSyncResult
from user_sync_pipeline.core.profiles.run_ledger import RunLedger, noted_run

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

FINDINGS = (
    "missing_profile",
    "orphan_profile",
    "stale_email",
    "inactive_in_salesforce_can_sign_in",
    "active_in_salesforce_without_sign_in",
    "ambiguous_email",
    "ambiguous_external_id",
)
LINKED_BY = ("External_ID__c", "verified e-mail")
_FINDING_COLUMNS = ("finding", "auth_user_id", "salesforce_user_id", "reason")
_ROWS_A_BATCH = 50_000

_ACCOUNTS_TABLE = """
    CREATE TEMPORARY TABLE directory_accounts (
        auth_user_id text, email text,
        is_verified boolean, can_sign_in boolean, is_in_scope boolean, has_profile boolean,
        has_stale_email boolean, role text
    )
"""
_FINDINGS = text("SELECT finding, auth_user_id, salesforce_user_id, reason FROM found WHERE finding <> 'linked'")
_LINKS = text("SELECT linked_by, count(*) AS people FROM user_sync.profile_links GROUP BY linked_by")


@dataclass(frozen=True, slots=True)
class ProfileProgress:
    """Where a running sync stands, in profiles; `total` were missing when it began."""

    done: int
    total: int


def sync_profiles(
    directory: ProfileDirectory,
    *,
    dry_run: bool = False,
    preserve: bool = True,
    progress: Callable[[ProfileProgress], None] | None = None,
    ledger: RunLedger | None = None,
) -> ProfileSyncResult:
    """Create the missing profiles; without `preserve` also refresh the mirrored columns of the others.

    A dry run goes the same way but writes nothing, and reports what is missing as what would be created.
    Users whose profile is refused are listed in the result; the others are not held up by them. With a `ledger`
    the sync has a run there, by which it can be undone (`undo.py`).
    """
    timestamp, started = datetime.now(UTC), time.monotonic()
    status = directory.status()
    with noted_run(None if dry_run else ledger, status.method) as (run_id, tally):
        if not preserve:
            journal = None if ledger is None or run_id is None else partial(ledger.note_images, run_id)
            refused = tally.refused_refreshes.append
            tally.refreshed = directory.refresh_mirrored(dry_run=dry_run, journal=journal, refused=refused)
        if dry_run:
            tally.created = status.missing_profiles
        else:
            with closing(directory.create_missing(run_id)) as creations:
                for creation in creations:
                    tally.add(creation)
                    if progress is not None:
                        progress(ProfileProgress(tally.done, status.missing_profiles))
    return ProfileSyncResult(
        timestamp=timestamp,
        total_auth_users=status.total_auth_users,
        existing_profiles=status.total_user_profiles,
        profiles_created=tally.created,
        execution_time_seconds=time.monotonic() - started,
        dry_run=dry_run,
        method=status.method,
        exactness=status.exactness,
        failures=tuple(tally.failures),
        vanished_users=tally.vanished,
        refreshed_profiles=None if preserve else tally.refreshed,
        refused_refreshes=tuple(tally.refused_refreshes),
        run_id=run_id,
    )


def find_findings(directory: ProfileDirectory, warehouse: Connection) -> pa.Table:
    """Return what a person should look at, one row a finding, for `user_sync.profile_reconciliation`.

    The columns are finding, auth_user_id, salesforce_user_id and reason, all text; no e-mail is in them.
    Runs inside the transaction of `warehouse`, the connection that sees `public.sf_users`, and keeps there whom it
    found to be the same person, and by what: `user_sync.profile_links`. What the ledger holds of profiles that are no
    more goes.
    """
    import pyarrow as pa

    _load_accounts(directory, warehouse)
    warehouse.execute(text(f"CREATE TEMPORARY TABLE found AS {named_query('profile_findings')}"))
    warehouse.execute(text(named_query("forget_profile_images")))
    warehouse.execute(text("DROP TABLE directory_accounts; ANALYZE found"))
    warehouse.execute(text(named_query("forget_profile_links")))
    warehouse.execute(text(named_query("keep_profile_links")))
    findings = warehouse.execute(_FINDINGS, execution_options={"stream_results": True})
    schema = pa.schema([(column, pa.string()) for column in _FINDING_COLUMNS])
    batches = [
        pa.record_batch(list(zip(*rows, strict=True)), schema=schema) for rows in findings.partitions(_ROWS_A_BATCH)
    ]
    warehouse.execute(text("DROP TABLE found"))
    return pa.Table.from_batches(batches, schema=schema)


def count_links(warehouse: Connection) -> dict[str, int]:
    """Return how many people were linked at the last reconciliation, by what they are linked."""
    return dict.fromkeys(LINKED_BY, 0) | {row.linked_by: row.people for row in warehouse.execute(_LINKS)}


def _load_accounts(directory: ProfileDirectory, warehouse: Connection) -> None:
    warehouse.execute(text(_ACCOUNTS_TABLE))
    driver = cast("psycopg.Connection", warehouse.connection.driver_connection)
    with (
        closing(directory.accounts()) as accounts,
        driver.cursor() as cursor,
        cursor.copy("COPY directory_accounts FROM STDIN") as copy,
    ):
        for account in accounts:
            copy.write_row(account)
    warehouse.execute(text("ANALYZE directory_accounts"))
