"""Checks of `profile_reconciliation`: who can sign in against who has a profile and who has left.

What belongs here: what passes, warns or is an error, and its sentence. What does not: counting (`core/profiles`).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from user_sync_pipeline.checks.outcome import ERROR, WARN, Complaint, Judgement, counted, judge_selected, listed
from user_sync_pipeline.core.profiles.installation import TriggerState
from user_sync_pipeline.core.profiles.leavers import Leavers, leavers_who_can_sign_in
from user_sync_pipeline.core.profiles.report import ProfileStatus
from user_sync_pipeline.resources import PostgresResource, SupabaseResource
from user_sync_pipeline.resources.failures import errors_as_failures
from user_sync_pipeline.resources.supabase import NOTHING_CONFIGURED

_NOTHING: Judgement = (Complaint(WARN, NOTHING_CONFIGURED), {})


class ProfileCheckConfig(dg.Config):
    """When missing profiles are an error and no longer a warning, and when somebody should no longer sign in."""

    error_below: float = Field(
        default=90.0, ge=0, le=100, description="A sync percentage below this is an error, up to 100 a warning."
    )
    leaver_grace_hours: float = Field(
        default=24.0, ge=0, description="Who has been known as inactive for longer and can still sign in is a warning."
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
            description="The trigger on `auth.users` that creates a profile at sign-up is there, switched on, and with "
            "its function as the migration made it. Where it fails, sign-ups go on and nobody notices.",
        ),
        dg.AssetCheckSpec(
            "leavers_cannot_sign_in",
            asset="profile_reconciliation",
            description="Nobody who has been inactive in Salesforce for longer than `leaver_grace_hours` (24) can sign "
            "in. This pipeline never takes a sign-in away.",
        ),
    ],
    can_subset=True,
)
def profile_checks(
    context: dg.AssetCheckExecutionContext,
    config: ProfileCheckConfig,
    supabase: SupabaseResource,
    postgres: PostgresResource,
) -> Iterator[dg.AssetCheckResult]:
    """Judge the profiles by one count, which may take many requests where Supabase is seen through its API."""
    with errors_as_failures(context):
        with supabase.directory() as directory:
            status = directory.status() if directory is not None else None
        trigger = supabase.trigger_state() if status and status.method == "sql" else None
        grace = timedelta(hours=config.leaver_grace_hours)
        with postgres.engine.connect() as connection:
            leavers = leavers_who_can_sign_in(connection, grace)
    judgements = {
        "sync_percentage": lambda: _sync_percentage(status, config) if status else _NOTHING,
        "no_orphan_profiles": lambda: _no_orphan_profiles(status) if status else _NOTHING,
        "auth_trigger_installed": lambda: _auth_trigger_installed(status, trigger) if status else _NOTHING,
        "leavers_cannot_sign_in": lambda: _leavers_cannot_sign_in(leavers) if status else _NOTHING,
    }
    yield from judge_selected(context, judgements)


def _sync_percentage(status: ProfileStatus, config: ProfileCheckConfig) -> Judgement:
    metadata = {**status.as_json(), "error_below": config.error_below}
    if status.missing_profiles == 0:
        return None, metadata
    severity = ERROR if status.sync_percentage < config.error_below else WARN
    sentence = (
        f"Without a profile: {status.missing_profiles:,} of {counted(status.total_auth_users, 'auth user')}. "
        "Materialize profile_reconciliation: it creates what is missing, or says why it cannot."
    )
    return Complaint(severity, sentence), metadata


def _no_orphan_profiles(status: ProfileStatus) -> Judgement:
    metadata = {
        "orphan_profiles": status.orphan_profiles,
        "total_user_profiles": status.total_user_profiles,
        "soft_deleted_users": status.soft_deleted_users,
    }
    if status.orphan_profiles == 0:
        return None, metadata
    sentence = (
        f"Without an auth user in scope: {counted(status.orphan_profiles, 'profile')}. Look at the findings "
        "orphan_profile; a person decides what becomes of them."
    )
    return Complaint(WARN, sentence), metadata


def _auth_trigger_installed(status: ProfileStatus, trigger: TriggerState | None) -> Judgement:
    """Judge the trigger by what the database shows of it, or else by what can be seen through the API."""
    metadata: dict[str, Any] = {"method": status.method}
    if trigger is not None:
        metadata |= {"present": trigger.present, "enabled": trigger.enabled, "unchanged": trigger.unchanged}
        problem = _problem_of(trigger)
    elif status.trigger_installed is None:
        sentence = "The trigger cannot be seen this way; set SUPABASE_DB_URL, or type: user-sync migrate apply"
        return Complaint(WARN, sentence), metadata
    else:
        problem = None if status.trigger_installed else "is missing or switched off"
    if problem is None:
        return None, metadata
    sentence = (
        f"The trigger, or its function, {problem}: who signs up now may get no profile before the next run. Type: "
        "user-sync migrate verify to see what is wrong, user-sync migrate apply to mend it."
    )
    return Complaint(ERROR, sentence), metadata


def _problem_of(trigger: TriggerState) -> str | None:
    if not trigger.present:
        return "is missing"
    if not trigger.enabled:
        return "is switched off"
    return None if trigger.unchanged else "is not as it was made"


def _leavers_cannot_sign_in(leavers: Leavers) -> Judgement:
    metadata = {
        "leavers_who_can_sign_in": leavers.people,
        "leavers_overdue": leavers.overdue,
        "auth_user_ids": listed(leavers.auth_user_ids),
    }
    if leavers.overdue == 0:
        return None, metadata
    sentence = (
        f"Inactive in Salesforce, and still able to sign in: {counted(leavers.overdue, 'person', 'people')}. Ban or "
        "delete these auth users in Supabase; all of them are in user_sync.profile_reconciliation, as findings "
        "inactive_in_salesforce_can_sign_in."
    )
    return Complaint(WARN, sentence), metadata
