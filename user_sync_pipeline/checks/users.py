"""Checks of `sf_users`: whether it holds everybody, up to now, and each of them once.

What belongs here: what passes, warns or is an error, and its sentence. What does not: counting (`core/warehouse`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field
from sqlalchemy import text

from user_sync_pipeline.checks.outcome import (
    ERROR,
    IDS_SHOWN,
    WARN,
    Complaint,
    Judgement,
    counted,
    judge_selected,
    listed,
    result,
)
from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.warehouse.landed_run import newest_landing
from user_sync_pipeline.core.warehouse.ledger import read_watermark
from user_sync_pipeline.core.warehouse.soundness import (
    Rejection,
    SharedExternalIds,
    WatermarkAge,
    rejected_users,
    shared_external_ids,
    watermark_age,
)
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import errors_as_failures

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import RestUserService

_COUNT_STORED = text("""
    SELECT count(*) FROM public.sf_users
    WHERE created_date < coalesce(CAST(:created_before AS timestamptz), 'infinity')
""")


@dg.asset_check(asset="sf_users")
def salesforce_count_matches(
    context: dg.AssetCheckExecutionContext, salesforce: SalesforceResource, postgres: PostgresResource
) -> dg.AssetCheckResult:
    """Salesforce counts as many users as `sf_users` has rows.

    Both sides count the users created before the watermark, the moment up to which everything has been read, so
    somebody who was hired this minute is no false alarm. Before the first full sync there is no watermark, and
    all users count.
    """
    with errors_as_failures(context):
        try:
            return result(_count_both_sides(salesforce.users, postgres))
        except PausedError as paused:
            # All rows are stored by now; that there was no request left to count them makes no run a paused one.
            return result((Complaint(WARN, f"Not counted. {paused}"), {}))


def _count_both_sides(users: "RestUserService", postgres: PostgresResource) -> Judgement:
    with postgres.engine.connect() as connection:
        watermark = read_watermark(connection, users.org_id)
        stored: int = connection.execute(_COUNT_STORED, {"created_before": watermark}).scalar_one()
    shown = users.count_users(created_before=watermark)
    # Who was changed behind the watermark may never have been read: only the newest state can be asked for.
    changed = _count_changed(users, watermark) if watermark and stored < shown else 0
    metadata: dict[str, Any] = {
        "salesforce_count": shown,
        "sf_users_rows": stored,
        "difference": shown - stored,
        "changed_since_watermark": changed,
    }
    if watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(watermark)
    return _compare(shown, stored, changed=changed, is_first_time=watermark is None), metadata


def _compare(shown: int, stored: int, *, changed: int, is_first_time: bool) -> Complaint | None:
    if shown == stored:
        return None
    if shown < stored:
        return Complaint(
            WARN if is_first_time else ERROR,
            f"Stored, but no longer shown by Salesforce: {counted(stored - shown, 'user')}. It deletes none, so the "
            "integration user may not see all of them any more (View All Users); what is stored of them grows old.",
        )
    missing = f"Not stored: {counted(shown - stored, 'user')}."
    if is_first_time:
        return Complaint(WARN, f"{missing} Not everything has been read yet; run the job user_sync over all days.")
    if shown <= stored + changed:
        sentence = f"{missing} As many were changed while the last run was reading; the next one brings them."
        return Complaint(WARN, sentence)
    return Complaint(ERROR, f"{missing} Run the job user_sync over all days, and look into user_sync.rejected_records.")


def _count_changed(users: "RestUserService", watermark: datetime) -> int:
    since = SyncWindow.custom(watermark, None, now=users.server_time())
    return users.count_users(since, created_before=watermark)


class UserCheckConfig(dg.Config):
    """When an old watermark is a warning, and when an error."""

    watermark_warn_hours: float = Field(default=26.0, gt=0, description="A watermark older than this is a warning.")
    watermark_error_hours: float = Field(default=50.0, gt=0, description="A watermark older than this is an error.")


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "watermark_is_recent",
            asset="sf_users",
            description="Everything up to a day ago has been read: a watermark older than `watermark_warn_hours` (26) "
            "warns, older than `watermark_error_hours` (50) is an error.",
        ),
        dg.AssetCheckSpec(
            "no_rejected_records",
            asset="sf_users",
            description="Nobody is left out because a value could not be stored. Who has been stored since then does "
            "not count, values that were cleaned do not either.",
        ),
        dg.AssetCheckSpec(
            "external_ids_unique",
            asset="sf_users",
            description="No two users bear the same `External_ID__c`. Both are stored, and no link is made by it.",
        ),
    ],
    can_subset=True,
)
def user_checks(
    context: dg.AssetCheckExecutionContext, config: UserCheckConfig, postgres: PostgresResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the table and the ledger as they are."""
    with errors_as_failures(context), postgres.engine.connect() as connection:

        def judge_rejections() -> Judgement:
            run = newest_landing(connection, f"dagster {context.run.run_id}")
            return _no_rejected_records(rejected_users(connection), values_cleaned=run.values_cleaned if run else 0)

        results = judge_selected(
            context,
            {
                "watermark_is_recent": lambda: _watermark_is_recent(watermark_age(connection), config),
                "no_rejected_records": judge_rejections,
                "external_ids_unique": lambda: _external_ids_unique(shared_external_ids(connection)),
            },
        )
    yield from results


def _watermark_is_recent(watermark: WatermarkAge | None, config: UserCheckConfig) -> Judgement:
    if watermark is None:
        return Complaint(WARN, "Not everything has been read yet; run the job user_sync over all days."), {}
    hours = watermark.age / timedelta(hours=1)
    metadata = {
        "watermark": dg.MetadataValue.timestamp(watermark.watermark),
        "watermark_age_hours": round(hours, 2),
        "held_reason": watermark.held_reason or "none",
        "newest_run": watermark.newest_outcome,
    }
    if hours <= config.watermark_warn_hours:
        return None, metadata
    severity = ERROR if hours > config.watermark_error_hours else WARN
    return Complaint(severity, f"The watermark is {hours:,.0f} hours old. {_why_old(watermark)}"), metadata


def _why_old(watermark: WatermarkAge) -> str:
    days = f"run the job user_sync from {watermark.watermark.date()} to today"
    if watermark.gap:
        return f"Later runs have left out days behind it; {days}."
    if watermark.stuck:
        return f"Later runs have read fewer users than Salesforce counts; see window_read_whole, and {days}."
    if watermark.held_reason:
        return f"{watermark.held_reason} Look for a long data load in Salesforce, and {days}."
    return (
        f"No run has ended well since then, the newest is {watermark.newest_outcome}; see why, whether schedules and "
        f"sensors are on, and {days}."
    )


def _no_rejected_records(rejections: list[Rejection], *, values_cleaned: int) -> Judgement:
    users = sum(rejection.users for rejection in rejections)
    ids = islice(chain.from_iterable(rejection.salesforce_ids for rejection in rejections), IDS_SHOWN)
    metadata: dict[str, Any] = {
        "users_rejected": users,
        "values_cleaned": values_cleaned,
        "salesforce_ids": listed(list(ids)),
    }
    if not rejections:
        return None, metadata
    metadata["reasons"] = dg.MetadataValue.table(
        [
            dg.TableRecord({"field": rejection.field, "reason": rejection.reason, "users": rejection.users})
            for rejection in rejections[:IDS_SHOWN]
        ]
    )
    sentence = (
        f"Not stored as Salesforce has them: {counted(users, 'user')}, most often because of {rejections[0].field}. "
        "Correct it there, which also brings them with the next run; all about it is in user_sync.rejected_records."
    )
    return Complaint(WARN, sentence), metadata


def _external_ids_unique(shared: SharedExternalIds) -> Judgement:
    metadata = {
        "external_ids_shared": shared.external_ids,
        "users_sharing": shared.users,
        "salesforce_ids": listed(shared.salesforce_ids),
    }
    if not shared.external_ids:
        return None, metadata
    sentence = (
        f"Borne by several users: {counted(shared.external_ids, 'external id')}, by {shared.users:,} in all. No link "
        "is made by it, as nobody can tell which of them is meant; give each its own External_ID__c in Salesforce."
    )
    return Complaint(WARN, sentence), metadata
