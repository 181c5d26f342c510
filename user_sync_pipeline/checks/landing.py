"""Checks of `salesforce_users_raw`: what a run has landed, judged before it is merged.

What belongs here: what passes, warns or is an error, and its sentence. What does not: counting (`core/warehouse`).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from user_sync_pipeline.assets.metadata import usage_figures
from user_sync_pipeline.checks.outcome import ERROR, WARN, Complaint, Judgement, counted, judge_selected, listed, result
from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.warehouse.landed_run import ColumnFill, LandedRun, count_values, newest_landing
from user_sync_pipeline.core.warehouse.soundness import ChangedColumn, changed_columns, most_api_calls
from user_sync_pipeline.resources import PostgresResource, SalesforceResource
from user_sync_pipeline.resources.failures import errors_as_failures

NOTHING_LANDED = Complaint(WARN, "Nothing has been read yet; run the job user_sync over all days.")
# By these two, people are linked to those who can sign in.
LINKING_COLUMNS = ("email", "external_id")
# The dearest run of a week is what the next one may well cost again.
LOOK_BACK = timedelta(days=7)


class LandingCheckConfig(dg.Config):
    """When what has landed is a warning, and when an error that keeps it from being merged."""

    hold_tolerated_minutes: int = Field(
        default=60, ge=0, description="A watermark that is held back by more than this is a warning."
    )
    null_rise_points: float = Field(
        default=5.0, gt=0, le=100, description="A null rate that rises by so many percentage points is a warning."
    )
    erased_percent: float = Field(
        default=25.0, gt=0, le=100, description="From this part of the e-mails or external ids on, erasing is an error."
    )
    fewest_users: int = Field(
        default=20, ge=1, description="Values of fewer users than this may come and go in any small organisation."
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "window_read_whole",
            asset="salesforce_users_raw",
            description="The run has read every user that Salesforce counts in its window, and Salesforce vouches for "
            "all of it: an incomplete certificate is an error, a watermark that is held back for long a warning.",
        ),
        dg.AssetCheckSpec(
            "salesforce_fields_unchanged",
            asset="salesforce_users_raw",
            description="The run reads the same fields of Salesforce as the last run over all days. A field of another "
            "type stops the run itself.",
        ),
        dg.AssetCheckSpec(
            "table_columns_unchanged",
            asset="salesforce_users_raw",
            blocking=True,
            description="Both tables of users have the columns that the migrations made. **Blocking** when one is "
            "gone: a merge would fail half way through the run, with a worse sentence.",
        ),
        dg.AssetCheckSpec(
            "null_rates_steady",
            asset="salesforce_users_raw",
            blocking=True,
            description="The merge takes no column's values from many users at once. **Blocking** when a large part of "
            "the e-mails or external ids would go: `sf_users` is their only copy, and people are linked by them.",
        ),
    ],
    can_subset=True,
)
def landing_checks(
    context: dg.AssetCheckExecutionContext, config: LandingCheckConfig, postgres: PostgresResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the run that has landed just now, or the newest one."""
    with errors_as_failures(context), postgres.engine.connect() as connection:
        run = newest_landing(connection, f"dagster {context.run.run_id}")
        results = judge_selected(
            context,
            {
                "window_read_whole": lambda: _window_read_whole(run, config),
                "salesforce_fields_unchanged": lambda: _salesforce_fields_unchanged(run),
                "table_columns_unchanged": lambda: _table_columns_unchanged(changed_columns(connection)),
                "null_rates_steady": lambda: _null_rates_steady(count_values(connection, run) if run else [], config),
            },
        )
    yield from results


def _window_read_whole(run: LandedRun | None, config: LandingCheckConfig) -> Judgement:
    if run is None:
        return NOTHING_LANDED, {}
    missing, held_minutes = run.certificate.missing, run.held_back / timedelta(minutes=1)
    metadata: dict[str, Any] = {
        "users_read": run.certificate.seen,
        "users_missing": missing,
        "held_minutes": round(held_minutes, 1),
        "held_reason": run.held_reason or "none",
        "sync_run_id": str(run.run_id),
    }
    if missing and run.held_reason:
        sentence = f"Not read: {counted(missing, 'user')}. {run.held_reason} The next run reads these days again."
        return Complaint(WARN, sentence), metadata
    if missing:
        sentence = (
            f"Not read: {counted(missing, 'user')} that Salesforce counts. The watermark stays where it is, so that "
            "the next run reads these days again; if that does not help, see whether the integration user may read all "
            "users (View All Users)."
        )
        return Complaint(ERROR, sentence), metadata
    if held_minutes > config.hold_tolerated_minutes:
        sentence = (
            f"The watermark is held back by {held_minutes:,.0f} minutes. {run.held_reason} Nothing is lost, every run "
            "reads again from there; if it lasts, look for a long data load in Salesforce."
        )
        return Complaint(WARN, sentence), metadata
    return None, metadata


def _salesforce_fields_unchanged(run: LandedRun | None) -> Judgement:
    if run is None:
        return NOTHING_LANDED, {}
    gone, new = run.fields_no_longer_read, run.fields_newly_read
    metadata = {
        "fields_read": len(run.fields),
        "fields_no_longer_read": listed(gone),
        "fields_newly_read": listed(new),
        "sync_run_id": str(run.run_id),
    }
    sentences = []
    if gone:
        sentences.append(
            f"No longer read: {', '.join(gone)}. What is stored of it stays and grows old; let an administrator grant "
            "read access (field-level security), or take it out of SALESFORCE_EXTRA_FIELDS."
        )
    if new and run.since is not None:
        sentences.append(
            f"Newly read, but only of users who have changed since: {', '.join(new)}. Run the job user_sync over all "
            "days to have it of everybody."
        )
    return Complaint(WARN, " ".join(sentences)) if sentences else None, metadata


def _table_columns_unchanged(changed: list[ChangedColumn]) -> Judgement:
    gone = [f"{column.relation}.{column.column}" for column in changed if column.found is None]
    retyped = [
        f"{column.relation}.{column.column} ({column.found}, made as {column.made_as})"
        for column in changed
        if column.found is not None
    ]
    metadata = {"columns_gone": listed(gone), "columns_retyped": listed(retyped)}
    if gone:
        sentence = f"Gone from the tables: {', '.join(gone)}. Add what is missing, as sql/migrations has it."
        return Complaint(ERROR, sentence), metadata
    if retyped:
        sentence = (
            f"Of another type than the migrations made: {', '.join(retyped)}. Values that do not fit fail the merge; "
            "give the column its type back."
        )
        return Complaint(WARN, sentence), metadata
    return None, metadata


def _null_rates_steady(fills: list[ColumnFill], config: LandingCheckConfig) -> Judgement:
    erased = [
        f"{fill.name} of {counted(fill.erased, 'user')} ({fill.erased_percent:g} %)"
        for fill in fills
        if fill.column in LINKING_COLUMNS
        and fill.erased >= config.fewest_users
        and fill.erased_percent >= config.erased_percent
    ]
    risen = [
        f"{fill.name} ({fill.null_percent:g} % to {fill.null_percent_after:g} %)"
        for fill in fills
        if _is_steady_in_size(fill)
        and fill.nulls_added >= config.fewest_users
        and fill.null_percent_after - fill.null_percent >= config.null_rise_points
    ]
    metadata: dict[str, Any] = {
        f"null_percent_{fill.column}": fill.null_percent_after for fill in fills if fill.column in LINKING_COLUMNS
    }
    metadata |= {"columns_compared": len(fills), "columns_risen": listed(risen), "values_erased": _most_erased(fills)}
    if erased:
        sentence = (
            f"The merge would erase {' and '.join(erased)}, so it was not begun. Put the values back in Salesforce and "
            "the next run goes on; if somebody means it, materialize sf_users alone for the same days."
        )
        return Complaint(ERROR, sentence), metadata
    if risen:
        sentence = (
            f"More users than before have no value: {', '.join(risen)}. Ask who has emptied it in Salesforce; a data "
            "load without that column does so."
        )
        return Complaint(WARN, sentence), metadata
    return None, metadata


def _is_steady_in_size(fill: ColumnFill) -> bool:
    """Tell whether most users were there before: many newcomers at once are others, and so are their values."""
    return fill.users_after <= 2 * fill.users


def _most_erased(fills: list[ColumnFill]) -> int:
    return max((fill.erased for fill in fills), default=0)


@dg.asset_check(asset="salesforce_users_raw")
def api_reserve_kept(
    context: dg.AssetCheckExecutionContext, salesforce: SalesforceResource, postgres: PostgresResource
) -> dg.AssetCheckResult:
    """Another run like the dearest of the last week can be paid for without touching the reserve of API requests.

    The reserve is `SALESFORCE_API_RESERVE_PERCENT` of the requests that the organisation has in 24 hours. In a run it
    costs no request: Salesforce tells with every answer how many are used.
    """
    with errors_as_failures(context):
        users = salesforce.users
        with postgres.engine.connect() as connection:
            needed = most_api_calls(connection, LOOK_BACK) or 0
        try:
            if users.usage.used is None:
                users.selected_fields()
        except PausedError as paused:
            return result((Complaint(WARN, f"No request is left to ask with. {paused}"), usage_figures(users.usage)))
    left = users.calls_left
    metadata = {**usage_figures(users.usage), "api_calls_of_dearest_run": needed}
    if left is None:
        return result((None, metadata))
    metadata["api_calls_left"] = left
    if left >= max(needed, 1):
        return result((None, metadata))
    sentence = (
        f"Left to this pipeline: {counted(left, 'request')}; a run has taken {needed:,}. The next one may be paused, "
        "and goes on by itself when there are more. See in Salesforce (Setup, System Overview) who uses them up."
    )
    return result((Complaint(WARN, sentence), metadata))
