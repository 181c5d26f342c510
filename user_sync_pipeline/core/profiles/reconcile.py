"""Compares and mends: the profile sync, and the findings between the directory and `sf_users`.

What belongs here: the order of the steps, the same for both doors. What does not: SQL (`sql/queries`) and HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, text

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles.directory import Creation, ProfileDirectory
from user_sync_pipeline.core.profiles.report import ProfileSyncResult

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

FINDINGS = (
    "missing_profile",
    "orphan_profile",
    "inactive_in_salesforce_can_sign_in",
    "active_in_salesforce_without_sign_in",
    "ambiguous_email",
    "ambiguous_external_id",
)
_FINDING_COLUMNS = ("finding", "auth_user_id", "salesforce_user_id", "reason")
_ROWS_A_BATCH = 50_000

_ACCOUNTS_TABLE = """
    CREATE TEMPORARY TABLE directory_accounts (
        auth_user_id text, email text,
        is_verified boolean, can_sign_in boolean, is_in_scope boolean, has_profile boolean
    )
"""


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
) -> ProfileSyncResult:
    """Create the missing profiles; without `preserve` also refresh the mirrored columns of the others.

    A dry run goes the same way but writes nothing, and reports what is missing as what would be created.
    Users whose profile is refused are listed in the result; the others are not held up by them.
    """
    timestamp, started = datetime.now(UTC), time.monotonic()
    status = directory.status()
    refreshed = None if preserve else directory.refresh_mirrored(dry_run=dry_run)
    done = Creation(created=status.missing_profiles) if dry_run else Creation()
    for creation in () if dry_run else directory.create_missing():
        done += creation
        if progress is not None:
            progress(ProfileProgress(done.created + done.vanished + len(done.failures), status.missing_profiles))
    return ProfileSyncResult(
        timestamp=timestamp,
        total_auth_users=status.total_auth_users,
        existing_profiles=status.total_user_profiles,
        profiles_created=done.created,
        execution_time_seconds=time.monotonic() - started,
        dry_run=dry_run,
        method=status.method,
        exactness=status.exactness,
        failures=done.failures,
        vanished_users=done.vanished,
        refreshed_profiles=refreshed,
    )


def find_findings(directory: ProfileDirectory, warehouse: Connection) -> pa.Table:
    """Return what a person should look at, one row a finding, for `user_sync.profile_reconciliation`.

    The columns are finding, auth_user_id, salesforce_user_id and reason, all text; no e-mail is in them.
    Runs inside the transaction of `warehouse`, the connection that sees `public.sf_users`.
    """
    import pyarrow as pa

    _load_accounts(directory, warehouse)
    # All rows of the cursor will be read, so the plan is to be made for all of them.
    warehouse.execute(text("SET LOCAL cursor_tuple_fraction = 1"))
    findings = warehouse.execute(text(named_query("profile_findings")), execution_options={"stream_results": True})
    schema = pa.schema([(column, pa.string()) for column in _FINDING_COLUMNS])
    batches = [
        pa.record_batch(list(zip(*rows, strict=True)), schema=schema) for rows in findings.partitions(_ROWS_A_BATCH)
    ]
    warehouse.execute(text("DROP TABLE directory_accounts"))
    return pa.Table.from_batches(batches, schema=schema)


def _load_accounts(directory: ProfileDirectory, warehouse: Connection) -> None:
    warehouse.execute(text(_ACCOUNTS_TABLE))
    driver = cast("psycopg.Connection", warehouse.connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy("COPY directory_accounts FROM STDIN") as copy:
        for account in directory.accounts():
            copy.write_row(account)
    warehouse.execute(text("ANALYZE directory_accounts"))
