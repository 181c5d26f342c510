"""`user-sync sync-users`: Salesforce users into Postgres, without Dagster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output, users_report
from user_sync_pipeline.cli.connections import database
from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.windows import DEFAULT_RECENT_DAYS, MODES, Mode, SyncWindow, parse_end, parse_start

if TYPE_CHECKING:
    from user_sync_pipeline.core.user_sync import Progress


@click.command("sync-users")
@click.option("--mode", metavar="full|recent|custom", help="Everything, the last days, or a range of dates.")
@click.option(
    "--days",
    type=options.WholeNumber(1),
    metavar="N",
    help=f"With recent: how many days, today included.  [default: {DEFAULT_RECENT_DAYS}]",
)
@click.option("--start-date", metavar="D", help="With custom: first day (UTC), such as 2024-01-31.")
@click.option("--end-date", metavar="D", help="With custom: last day, included; today when left out.")
@click.option("--limit", type=options.WholeNumber(1), metavar="N", help="Stop after so many users.")
@click.option("--dry-run", is_flag=True, help="Count users and API calls; fetch and write nothing.")
@click.option("--verbose", is_flag=True, help="Also show the certificate: what was read, in figures to compare.")
@options.as_json
def sync_users(
    mode: str | None,
    days: int | None,
    start_date: str | None,
    end_date: str | None,
    limit: int | None,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Fetch Salesforce users and merge them into sf_users."""
    chosen = _mode(mode)
    window = _window(chosen, days, start_date, end_date)

    from user_sync_pipeline.cli.lean_arrow import lean_arrow
    from user_sync_pipeline.core.salesforce.budget import ApiBudget
    from user_sync_pipeline.core.salesforce.rest import RestUserService
    from user_sync_pipeline.core.settings import SalesforceSettings, database_url
    from user_sync_pipeline.core.user_sync import UserSyncService

    url, settings = database_url(), SalesforceSettings.from_environment()
    with database(url) as engine, RestUserService(settings) as salesforce:
        service = UserSyncService(engine, salesforce, tell=output.say)
        if dry_run:
            about = service.forecast(window, limit), ApiBudget.from_settings(settings), chosen, window
            if as_json:
                output.print_json(users_report.forecast_as_json(*about))
            else:
                users_report.show_forecast(*about)
            return 0
        with lean_arrow(), output.Activity("Fetching users") as activity:

            def listen(progress: Progress) -> None:
                activity.update(progress.rows, progress.total, _note(progress))

            result = service.sync_users(
                limit=limit, window=window, mode=chosen, started_by="user-sync sync-users", progress=listen
            )
    if as_json:
        output.print_json(result.as_json())
    else:
        users_report.show_result(result, verbose=verbose)
    users_report.say_what_matters(result)
    return 1 if result.rejected or result.missing else 0


def _mode(text: str | None) -> Mode:
    for mode in MODES:
        if text == mode:
            return mode
    given = "missing" if text is None else repr(text)
    raise UsageError(f"--mode is {given}; give full, recent or custom.")


def _window(mode: Mode, days: int | None, start_date: str | None, end_date: str | None) -> SyncWindow:
    """Return the window that the options ask for; raises `UsageError` when they do not go together."""
    for option, value, meant_for in (
        ("--days", days, "recent"),
        ("--start-date", start_date, "custom"),
        ("--end-date", end_date, "custom"),
    ):
        if value is not None and mode != meant_for:
            raise UsageError(f"{option} goes with --mode {meant_for}, not with --mode {mode}; leave one of them out.")
    now = datetime.now(UTC)
    if mode == "full":
        return SyncWindow.full(now=now)
    if mode == "recent":
        return SyncWindow.recent(DEFAULT_RECENT_DAYS if days is None else days, now=now)
    if start_date is None:
        raise UsageError("--start-date is missing; --mode custom needs one, such as 2024-01-31.")
    return SyncWindow.custom(parse_start(start_date), parse_end(end_date) if end_date is not None else None, now=now)


def _note(progress: Progress) -> str:
    usage = progress.usage
    spent = f", quota {output.percent(usage.share)}" if usage.share is not None else ""
    return f"page {progress.pages:,}, {usage.calls:,} API calls{spent}"
