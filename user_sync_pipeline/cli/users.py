"""`user-sync sync-users`: Salesforce users into Postgres, without Dagster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.cli.connections import database
from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.windows import (
    DEFAULT_RECENT_DAYS,
    MODES,
    Mode,
    SyncWindow,
    format_moment,
    parse_end,
    parse_start,
)

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.usage import ApiUsage
    from user_sync_pipeline.core.user_sync import Forecast, Progress, SyncUsersResult

REJECTED_ROWS_SHOWN = 20


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
@options.as_json
def sync_users(
    mode: str | None,
    days: int | None,
    start_date: str | None,
    end_date: str | None,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Fetch Salesforce users and merge them into sf_users."""
    chosen = _mode(mode)
    window = _window(chosen, days, start_date, end_date)

    from user_sync_pipeline.core.salesforce.rest import RestUserService
    from user_sync_pipeline.core.settings import SalesforceSettings, database_url
    from user_sync_pipeline.core.user_sync import UserSyncService

    with database(database_url()) as engine, RestUserService(SalesforceSettings.from_environment()) as salesforce:
        service = UserSyncService(engine, salesforce)
        if dry_run:
            _show_forecast(service.forecast(window, limit), chosen, window, as_json=as_json)
            return 0
        with output.Activity("Fetching users") as activity:

            def listen(progress: Progress) -> None:
                activity.update(progress.rows, progress.total, _api_note(progress.usage))

            result = service.sync_users(
                limit=limit, window=window, mode=chosen, started_by="user-sync sync-users", progress=listen
            )
    _show_result(result, as_json=as_json)
    return 1 if result.rejected else 0


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


def _show_forecast(forecast: Forecast, mode: Mode, window: SyncWindow, *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "mode": mode,
                "since": format_moment(window.since) if window.since else None,
                "until": format_moment(window.until),
                "dry_run": True,
                "rows": forecast.rows,
                "api_calls": forecast.api_calls,
                "api_usage": forecast.usage.as_json(),
            }
        )
        return
    click.echo("=== Salesforce User Sync (dry run) ===")
    _show_figures(
        {
            "Mode": mode,
            "Window": _describe(window),
            "Users To Fetch": f"{forecast.rows:,}",
            "API Calls To Make": f"{forecast.api_calls:,}",
            "API Usage So Far": _usage(forecast.usage),
        }
    )


def _show_result(result: SyncUsersResult, *, as_json: bool) -> None:
    if as_json:
        output.print_json(result.as_json())
    else:
        landing, counts = result.landing, result.counts
        click.echo("=== Salesforce User Sync ===")
        _show_figures(
            {
                "Mode": landing.mode,
                "Window": _describe(landing.window),
                "Fetched": f"{landing.fetched:,}" + (" (stopped at --limit)" if landing.limited else ""),
                "Inserted": f"{counts.inserted:,}",
                "Updated": f"{counts.updated:,}",
                "Unchanged": f"{counts.unchanged:,}",
                "Rejected": f"{result.rejected:,}",
                "API Calls": f"{landing.usage.calls:,}",
                "API Usage": _usage(landing.usage),
                "Watermark": format_moment(result.watermark) if result.watermark else "not set yet",
                "Duration": f"{result.seconds:.2f} seconds",
            }
        )
    _say_what_was_left_out(result)


def _say_what_was_left_out(result: SyncUsersResult) -> None:
    landing = result.landing
    if landing.hidden_fields:
        output.say(f"Hidden from this Salesforce user, so left as stored: {', '.join(landing.hidden_fields)}")
    if not result.rejected:
        return
    output.say(f"{result.rejected:,} rows could not be stored:")
    lost = [note for note in landing.rejected if not note.row_stored]
    for note in lost[:REJECTED_ROWS_SHOWN]:
        output.say(f"  {note.salesforce_id or 'without Id'}  {note.field}: {note.reason}")
    output.say(f"All of them: SELECT * FROM user_sync.rejected_records WHERE run_id = '{landing.run_id}'")


def _show_figures(figures: dict[str, str]) -> None:
    for label, value in figures.items():
        click.echo(f"{label + ':':<22}{value}")


def _describe(window: SyncWindow) -> str:
    until = format_moment(window.until)
    return f"everything before {until}" if window.since is None else f"{format_moment(window.since)} to {until}"


def _usage(usage: ApiUsage) -> str:
    if usage.used is None or usage.limit is None:
        return "not told by Salesforce"
    share = f" ({output.percent(usage.share)})" if usage.share is not None else ""
    return f"{usage.used:,} of {usage.limit:,} calls in 24 hours{share}"


def _api_note(usage: ApiUsage) -> str:
    share = f" ({output.percent(usage.share)} of the quota)" if usage.share is not None else ""
    return f"{usage.calls:,} API calls{share}"
