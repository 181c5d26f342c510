"""`profile_reconciliation`: who can sign in against who can use the application, and both against `sf_users`."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import dagster as dg

from user_sync_pipeline.assets import asset_in_one_run
from user_sync_pipeline.assets.metadata import PREVIEW_ROWS, duration_figures, own_column
from user_sync_pipeline.core.profiles.reconcile import FINDINGS, find_findings, sync_profiles
from user_sync_pipeline.core.profiles.report import ProfileStatus, ProfileSyncResult
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.resources import PostgresResource, SupabaseResource
from user_sync_pipeline.resources.failures import errors_as_failures
from user_sync_pipeline.resources.supabase import NOTHING_CONFIGURED

if TYPE_CHECKING:
    import pyarrow as pa

PROFILE_RECONCILIATION = Relation("user_sync", "profile_reconciliation")

COLUMN_SCHEMA = dg.TableSchema(
    [
        own_column("finding", "text", "What kind of finding this is"),
        own_column("auth_user_id", "uuid", "`auth.users.id`", nullable=True),
        own_column("salesforce_user_id", "text", "`sf_users.id`", nullable=True),
        own_column("reason", "text", "One sentence for a person"),
        own_column("found_at", "timestamptz", "When it was found"),
    ]
)


@asset_in_one_run(
    deps=["sf_users"],
    group_name="user_sync",
    kinds={"supabase", "postgres"},
    code_version="1",
    pool="profiles",
    metadata={
        "dagster/table_name": PROFILE_RECONCILIATION.qualified,
        "dagster/column_schema": COLUMN_SCHEMA,
    },
)
def profile_reconciliation(
    context: dg.AssetExecutionContext, postgres: PostgresResource, supabase: SupabaseResource
) -> Any:  # an Arrow table of findings; named here, it would be imported with the definitions
    """**Who can sign in** (auth users) against **who can use the application** (profiles), linked to `sf_users`.

    * A missing profile is **created**; an existing one is never changed.
    * Everything else is only reported, one row a finding: orphan profiles, people who left Salesforce and can
      still sign in, people without a sign-in, and links that would be a guess.
    * Not partitioned: it always compares everything that there is now.
    """
    with errors_as_failures(context), supabase.directory() as directory:
        if directory is None:
            context.log.warning(NOTHING_CONFIGURED)
            context.add_asset_metadata({"note": NOTHING_CONFIGURED})
            return []
        started = time.monotonic()
        result = sync_profiles(directory)
        status = directory.status()
        with postgres.engine.begin() as connection:
            findings = find_findings(directory, connection)
        seconds = time.monotonic() - started
    kinds = dict.fromkeys(FINDINGS, 0) | Counter(findings.column("finding").to_pylist())
    context.add_asset_metadata(
        {
            **status.as_json(),
            "orphan_profiles": status.orphan_profiles,
            "soft_deleted_users": status.soft_deleted_users,
            "profiles_created": result.profiles_created,
            "failed_creations": result.failed_creations,
            "findings": findings.num_rows,
            **{f"findings_{kind}": number for kind, number in kinds.items()},
            **duration_figures(status.total_auth_users, seconds),
            "sync": dg.MetadataValue.json(result.as_json()),
            "report": dg.MetadataValue.md(report(status, result, kinds)),
            "preview": preview(findings),
            "dagster/column_schema": COLUMN_SCHEMA,
        }
    )
    return findings


def report(status: ProfileStatus, result: ProfileSyncResult, kinds: dict[str, int]) -> str:
    """Return the outcome as Markdown: the figures, what was refused and why, and the findings by kind."""
    figures = {
        "Auth users": f"{status.total_auth_users:,}",
        "Profiles": f"{status.total_user_profiles:,}",
        "Profiles created just now": f"{result.profiles_created:,}",
        "Missing profiles": f"{status.missing_profiles:,}",
        "**Sync percentage**": f"**{status.sync_percentage:.2f}%**",
        "Counted by": f"{status.method}, {status.exactness}",
    }
    refusals = Counter(failure.reason for failure in result.failures)
    parts = [_markdown_table("Application profiles", "", figures)]
    if refusals:
        parts.append(_markdown_table("Profiles that were refused", "users", dict(refusals.most_common())))
    found = {
        kind.replace("_", " ").replace("salesforce", "Salesforce"): f"{number:,}" for kind, number in kinds.items()
    }
    parts.append(_markdown_table("Findings", "number", found))
    return "\n\n".join(parts)


def preview(findings: "pa.Table") -> dg.TableMetadataValue:
    """Return the first findings; they hold ids and reasons, never an e-mail address."""
    columns = [dg.TableColumn(name) for name in findings.column_names]
    rows = [dg.TableRecord(row) for row in findings.slice(0, PREVIEW_ROWS).to_pylist()]
    return dg.MetadataValue.table(rows, dg.TableSchema(columns))


def _markdown_table(title: str, unit: str, rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"### {title}", "", f"| | {unit} |", "| --- | ---: |", *lines])
