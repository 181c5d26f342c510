"""Asset checks: whether the tables tell the truth, asked of the tables and servers themselves.

What belongs here: what passes, what warns, what is an error, and the sentence that goes with it.
What does not: counting (`core/`). No check takes an asset as an argument: Dagster would load all of it.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field
from sqlalchemy import text

from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.profiles.report import ProfileStatus
from user_sync_pipeline.core.warehouse.ledger import read_watermark
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.resources import PostgresResource, SalesforceResource, SupabaseResource
from user_sync_pipeline.resources.failures import errors_as_failures
from user_sync_pipeline.resources.supabase import NOTHING_CONFIGURED

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import RestUserService

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

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
        users = salesforce.users
        with postgres.engine.connect() as connection:
            watermark = read_watermark(connection, users.org_id)
            stored: int = connection.execute(_COUNT_STORED, {"created_before": watermark}).scalar_one()
        try:
            counted = users.count_users(created_before=watermark)
            # Who was changed behind the watermark may never have been read: only the newest state can be asked for.
            changed = _count_changed(users, watermark) if watermark and stored < counted else 0
        except PausedError as paused:
            # All rows are stored by now; that there was no request left to count them makes no run a paused one.
            return dg.AssetCheckResult(passed=False, severity=WARN, description=f"Not counted. {paused}")
    metadata: dict[str, Any] = {
        "salesforce_count": counted,
        "sf_users_rows": stored,
        "difference": counted - stored,
        "changed_since_watermark": changed,
    }
    if watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(watermark)
    if watermark is None:
        severity, advice = WARN, "Not everything has been read yet; run the job user_sync over all days."
    elif stored < counted <= stored + changed:
        severity, advice = WARN, "As many users were changed while the last run was reading; the next one brings them."
    else:
        severity, advice = ERROR, "Run the job user_sync over all days, and look into user_sync.rejected_records."
    passed = counted == stored
    return dg.AssetCheckResult(
        passed=passed, severity=severity, metadata=metadata, description=None if passed else advice
    )


def _count_changed(users: "RestUserService", watermark: datetime) -> int:
    since = SyncWindow.custom(watermark, None, now=users.server_time())
    return users.count_users(since, created_before=watermark)


class ProfileCheckConfig(dg.Config):
    """When missing profiles are an error and no longer a warning."""

    error_below: float = Field(
        default=90.0, ge=0, le=100, description="A sync percentage below this is an error, up to 100 a warning."
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "sync_percentage",
            asset="profile_reconciliation",
            description="Every auth user has a profile: 100 passes, less warns, below `error_below` (90) is an error.",
        ),
        dg.AssetCheckSpec(
            "no_orphan_profiles",
            asset="profile_reconciliation",
            description="Every profile belongs to an auth user who has not been deleted. Nothing deletes an orphan.",
        ),
        dg.AssetCheckSpec(
            "auth_trigger_installed",
            asset="profile_reconciliation",
            description="The trigger on `auth.users` that creates a profile at sign-up is there and enabled.",
        ),
    ],
)
def profile_checks(
    context: dg.AssetCheckExecutionContext, config: ProfileCheckConfig, supabase: SupabaseResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the profiles by one count, which may take many requests where Supabase is seen through its API."""
    with errors_as_failures(context), supabase.directory() as directory:
        status = directory.status() if directory is not None else None
    if status is None:
        for key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(check_name=key.name, passed=False, severity=WARN, description=NOTHING_CONFIGURED)
        return
    yield _sync_percentage(status, error_below=config.error_below)
    yield _no_orphan_profiles(status)
    yield _auth_trigger_installed(status)


def _sync_percentage(status: ProfileStatus, *, error_below: float) -> dg.AssetCheckResult:
    passed = status.missing_profiles == 0
    advice = "Materialize profile_reconciliation: it creates what is missing, or says why it cannot."
    return dg.AssetCheckResult(
        check_name="sync_percentage",
        passed=passed,
        severity=ERROR if status.sync_percentage < error_below else WARN,
        description=None if passed else advice,
        metadata={**status.as_json(), "error_below": error_below},
    )


def _no_orphan_profiles(status: ProfileStatus) -> dg.AssetCheckResult:
    passed = status.orphan_profiles == 0
    advice = "Look at the findings orphan_profile; a person decides what becomes of them."
    return dg.AssetCheckResult(
        check_name="no_orphan_profiles",
        passed=passed,
        severity=WARN,
        description=None if passed else advice,
        metadata={
            "orphan_profiles": status.orphan_profiles,
            "total_user_profiles": status.total_user_profiles,
            "soft_deleted_users": status.soft_deleted_users,
        },
    )


def _auth_trigger_installed(status: ProfileStatus) -> dg.AssetCheckResult:
    advice = {
        True: None,
        False: "A new user gets no profile before the next run; type: user-sync migrate apply",
        None: "The trigger cannot be seen this way; set SUPABASE_DB_URL, or type: user-sync migrate apply",
    }
    return dg.AssetCheckResult(
        check_name="auth_trigger_installed",
        passed=status.trigger_installed is True,
        severity=WARN if status.trigger_installed is None else ERROR,
        description=advice[status.trigger_installed],
        metadata={"method": status.method},
    )


CHECKS = [salesforce_count_matches, profile_checks]
