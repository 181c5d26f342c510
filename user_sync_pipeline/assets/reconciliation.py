"""`profile_reconciliation`: who can sign in against who can use the application, and both against `sf_users`."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from user_sync_pipeline.assets import HOURLY, asset_in_one_run
from user_sync_pipeline.assets.catalogue import (
    AUTH_USERS,
    COLUMN_LINEAGE,
    COLUMN_SCHEMA,
    GROUP,
    HOLDS_IDS,
    TABLE_NAME,
    USER_PROFILES,
    column,
    column_lineage,
)
from user_sync_pipeline.assets.metadata import columns_of, duration_figures
from user_sync_pipeline.assets.report import Outcome, report, worst_of
from user_sync_pipeline.core.profiles.reconcile import FINDINGS, count_links, find_findings, sync_profiles
from user_sync_pipeline.core.warehouse.profile_ledger import open_profile_ledger
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.resources import PostgresResource, SupabaseResource
from user_sync_pipeline.resources.failures import errors_as_failures
from user_sync_pipeline.resources.supabase import NOTHING_CONFIGURED

PROFILE_RECONCILIATION = Relation("user_sync", "profile_reconciliation")

RUNS_OF_TREND = 10
# The report counts all of them by reason.
FAILURES_SHOWN = 100

_COLUMNS = dg.TableSchema(
    [
        column("finding", "text", "What kind of finding this is"),
        column("auth_user_id", "uuid", "`auth.users.id`", nullable=True),
        column("salesforce_user_id", "text", "`sf_users.id`", nullable=True),
        column("reason", "text", "One sentence for a person"),
        column("found_at", "timestamptz", "When it was found"),
    ]
)
_SF_USERS = dg.AssetKey("sf_users")
_COMPARED = [
    *((AUTH_USERS, name) for name in ("id", "aud", "email", "email_confirmed_at", "banned_until", "deleted_at")),
    (USER_PROFILES, "id"),
    *((_SF_USERS, name) for name in ("is_active", "external_id", "email")),
]
_LINEAGE = column_lineage(
    {
        "finding": _COMPARED,
        "auth_user_id": [(AUTH_USERS, "id"), (USER_PROFILES, "id")],
        "salesforce_user_id": [(_SF_USERS, "id")],
        "reason": _COMPARED,
    }
)


@asset_in_one_run(
    deps=[_SF_USERS, AUTH_USERS, USER_PROFILES],
    group_name=GROUP,
    kinds={"supabase", "postgres"},
    tags=HOLDS_IDS,
    code_version="1",
    freshness_policy=HOURLY,
    pool="profiles",
    metadata={TABLE_NAME: PROFILE_RECONCILIATION.qualified, COLUMN_SCHEMA: _COLUMNS, COLUMN_LINEAGE: _LINEAGE},
)
def profile_reconciliation(
    context: dg.AssetExecutionContext, postgres: PostgresResource, supabase: SupabaseResource
) -> Any:  # an Arrow table of findings; named here, it would be imported with the definitions
    """**Who can sign in** (auth users) against **who can use the application** (profiles), linked to `sf_users`.

    * A missing profile is **created**; an existing one is never changed.
    * Everything else is only reported, one row a finding: orphan profiles, stale e-mails, people who left
      Salesforce and can still sign in, people without a sign-in, and links that would be a guess.
    * Who was found to be the same person, and by what, stands in `user_sync.profile_links`.
    * `user-sync sync --undo` takes back what a run created; its id stands in `sync`, below.
    * Not partitioned: it always compares everything that there is now.
    """
    with errors_as_failures(context), supabase.directory() as directory:
        if directory is None:
            context.log.warning(NOTHING_CONFIGURED)
            context.add_asset_metadata({"note": NOTHING_CONFIGURED})
            return []
        started = time.monotonic()
        ledger = open_profile_ledger(postgres.engine, started_by=f"dagster {context.run.run_id}")
        result = sync_profiles(directory, ledger=ledger)
        status = directory.status()
        with postgres.engine.begin() as connection:
            findings, links = find_findings(directory, connection), count_links(connection)
        seconds = time.monotonic() - started
    kinds = dict.fromkeys(FINDINGS, 0)
    kinds |= {counted["values"]: counted["counts"] for counted in findings.column("finding").value_counts().to_pylist()}
    told = result.as_json()
    this_one = Outcome(
        datetime.now(UTC),
        status.sync_percentage,
        status.missing_profiles,
        result.profiles_created,
        findings.num_rows,
    )
    trend = [this_one, *earlier_outcomes(context.instance)]
    context.add_asset_metadata(
        {
            "report": dg.MetadataValue.md(report(status, result, kinds=kinds, worst=worst_of(findings), trend=trend)),
            **status.as_json(),
            "orphan_profiles": status.orphan_profiles,
            "soft_deleted_users": status.soft_deleted_users,
            "profiles_created": result.profiles_created,
            "failed_creations": result.failed_creations,
            "linked_people": sum(links.values()),
            "linked_by": dg.MetadataValue.json(links),
            "findings": findings.num_rows,
            **{f"findings_{kind}": number for kind, number in kinds.items()},
            **duration_figures(status.total_auth_users, seconds),
            "sync": dg.MetadataValue.json({**told, "failures": told["failures"][:FAILURES_SHOWN]}),
            **columns_of(context),
        }
    )
    return findings


def earlier_outcomes(instance: dg.DagsterInstance) -> list[Outcome]:
    """Return what the reconciliations before this one came to, newest first, by the history of runs."""
    history = instance.fetch_materializations(profile_reconciliation.key, limit=RUNS_OF_TREND - 1)
    outcomes = []
    for record in history.records:
        reported = record.asset_materialization
        figures: dict[str, Any] = {name: it.value for name, it in reported.metadata.items()} if reported else {}
        with suppress(KeyError):  # nothing was configured then, or an older version told less
            numbers = (figures[name] for name in ("missing_profiles", "profiles_created", "findings"))
            ended_at = datetime.fromtimestamp(record.timestamp, UTC)
            outcomes.append(Outcome(ended_at, figures["sync_percentage"], *numbers))
    return outcomes
