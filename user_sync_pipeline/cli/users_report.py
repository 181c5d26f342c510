"""What `user-sync sync-users` shows: the forecast, the result with its certificate, and what there is to say about it.

What belongs here: the figures for people and their words. What does not: the command (`users.py`), and the figures
themselves (`core/results.py`, `core/certificate.py`). Figures go to standard output, remarks to standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from user_sync_pipeline.cli import output
from user_sync_pipeline.core.windows import Mode, SyncWindow, format_moment

if TYPE_CHECKING:
    from user_sync_pipeline.core.certificate import Certificate
    from user_sync_pipeline.core.results import Forecast, LandingResult, SyncUsersResult
    from user_sync_pipeline.core.salesforce.budget import ApiBudget
    from user_sync_pipeline.core.salesforce.usage import ApiUsage

REJECTED_ROWS_SHOWN = 20


def forecast_as_json(forecast: Forecast, budget: ApiBudget, mode: Mode, window: SyncWindow) -> dict[str, Any]:
    """Return what `sync-users --dry-run --json` prints; `available` are the requests that the reserve leaves."""
    return {
        "mode": mode,
        "since": format_moment(window.since) if window.since else None,
        "until": format_moment(window.until),
        "dry_run": True,
        "rows": forecast.rows,
        "api_calls": forecast.api_calls,
        "share": forecast.share,
        "transport": forecast.transport,
        "api_usage": forecast.usage.as_json(),
        "budget": budget.per_run,
        "reserve_percent": budget.reserve_percent,
        "available": budget.available(forecast.usage),
        "would_pause": _why_it_would_pause(forecast, budget) is not None,
    }


def show_forecast(forecast: Forecast, budget: ApiBudget, mode: Mode, window: SyncWindow) -> None:
    """Print what a run would fetch and cost, and whether a bound would stop it before its end."""
    available = budget.available(forecast.usage)
    reason = _why_it_would_pause(forecast, budget)
    click.echo("=== Salesforce User Sync (dry run) ===")
    _show_figures(
        {
            "Mode": mode,
            "Window": _describe(window),
            "Users To Fetch": f"{forecast.rows:,}{_by(forecast.transport)}",
            "API Calls To Make": f"{forecast.api_calls:,}",
            "Share Of Daily Limit": "unknown" if forecast.share is None else output.percent(forecast.share),
            "API Usage So Far": _usage(forecast.usage),
            "Budget Per Run": "none" if budget.per_run is None else f"{budget.per_run:,} calls",
            "Left By Reserve": "unknown" if available is None else f"{available:,} calls",
            "Would Be Paused": f"yes, {reason}" if reason else "no",
        }
    )


def show_result(result: SyncUsersResult, *, verbose: bool) -> None:
    """Print what was done and whether it is whole; `verbose` adds the certificate with all its figures."""
    landing, counts = result.landing, result.counts
    click.echo("=== Salesforce User Sync ===")
    _show_figures(
        {
            "Mode": landing.mode,
            "Window": _describe(landing.window),
            "Fetched": f"{landing.fetched:,}{_by(landing.transport)}{_how_it_was_fetched(landing)}",
            "Inserted": f"{counts.inserted:,}",
            "Updated": f"{counts.updated:,}",
            "Unchanged": f"{counts.unchanged:,}",
            "Rejected": f"{result.rejected:,}",
            "Complete": _completeness(result),
            "Watermark": _watermark(result),
            "API Calls": f"{landing.usage.calls:,}",
            "API Usage": _usage(landing.usage),
            "Duration": f"{result.seconds:.2f} seconds",
        }
    )
    if verbose and landing.certificate is not None:
        _show_certificate(landing, landing.certificate)


def say_what_matters(result: SyncUsersResult) -> None:
    """Say what a person should know or do, on standard error; nothing where all is as it should be."""
    landing = result.landing
    for warning in landing.warnings:
        output.say(warning)
    if landing.held_reason and result.watermark:
        output.say(f"The watermark is held at {format_moment(result.watermark)}, from where the next run reads again.")
        output.say(f"  {landing.held_reason}")
    hidden = [name for name in landing.hidden_fields if name not in landing.lost_fields]
    if hidden:
        output.say(f"Hidden from this Salesforce user, so left as stored: {', '.join(hidden)}")
    if landing.lost_fields:
        output.say(f"Hidden or removed while they were read, so left as stored: {', '.join(landing.lost_fields)}")
    if landing.certificate and landing.certificate.formula_fields and landing.mode != "full":
        formulas = ", ".join(landing.certificate.formula_fields)
        output.say(f"Formula fields, brought up to date by --mode full alone: {formulas}")
    if result.missing:
        output.say(
            f"Users of this window that were not read: {result.missing:,}; "
            "they came into it while it was read, so run the same command again."
        )
    _say_what_was_rejected(result)


def _say_what_was_rejected(result: SyncUsersResult) -> None:
    if not result.rejected:
        return
    output.say(f"Rows that could not be stored: {result.rejected:,}")
    lost = [note for note in result.landing.rejected if not note.row_stored]
    for note in lost[:REJECTED_ROWS_SHOWN]:
        output.say(f"  {note.salesforce_id or 'without Id'}  {note.field}: {note.reason}")
    output.say(f"All of them: SELECT * FROM user_sync.rejected_records WHERE run_id = '{result.landing.run_id}'")


def _why_it_would_pause(forecast: Forecast, budget: ApiBudget) -> str | None:
    available = budget.available(forecast.usage)
    if budget.per_run is not None and forecast.api_calls > budget.per_run:
        return f"SALESFORCE_API_BUDGET_PER_RUN allows {budget.per_run:,} of these calls"
    if available is None or forecast.api_calls <= available:
        return None
    if budget.reserve_percent:
        return f"SALESFORCE_API_RESERVE_PERCENT leaves {available:,} of these calls"
    return f"the organisation has {available:,} of these calls left"


def _by(transport: str) -> str:
    return " by Bulk API 2.0" if transport == "bulk" else ""


def _how_it_was_fetched(landing: LandingResult) -> str:
    notes = {"stopped at --limit": landing.limited, "went on where an earlier run had stopped": landing.resumed}
    said = ", ".join(note for note, applies in notes.items() if applies)
    return f" ({said})" if said else ""


def _completeness(result: SyncUsersResult) -> str:
    certificate = result.landing.certificate
    if result.landing.limited:
        return "no, it was to stop at --limit"
    if certificate is None or certificate.closing_count is None:
        return "yes, there is nothing to read yet"
    figures = f"{certificate.seen:,} users read, Salesforce counts {certificate.closing_count:,}"
    if certificate.complete and result.rejected:
        return f"no, {figures}, but {result.rejected:,} could not be stored"
    return f"{'yes' if certificate.complete else 'no'}, {figures}"


def _watermark(result: SyncUsersResult) -> str:
    landing, watermark = result.landing, result.watermark
    if watermark is None:
        return "not set yet, --mode full sets it"
    certificate = landing.certificate
    reached = min(certificate.vouched_until if certificate else landing.read_until, landing.window.until)
    if watermark >= reached:
        return format_moment(watermark) + (" (held)" if landing.held_reason else "")
    if landing.window.since is not None and landing.window.since > watermark:
        return f"{format_moment(watermark)} (not moved: this window begins behind it)"
    return f"{format_moment(watermark)} (not moved: this run is not complete)"


def _show_certificate(landing: LandingResult, certificate: Certificate) -> None:
    counted = "not asked" if certificate.closing_count is None else f"{certificate.closing_count:,}"
    click.echo("\n=== Completeness Certificate ===")
    _show_figures(
        {
            "Run": str(landing.run_id),
            "Window Read": _describe(certificate.window) if certificate.window else "nothing yet",
            "Vouched Until": format_moment(certificate.vouched_until),
            "Users Read": f"{certificate.seen:,}",
            "Closing Count": counted,
            "Digest": certificate.digest or "none",
        }
    )
    if len(certificate.slices) > 1:
        slices = [f"{slice_.rows:>9,}  {_describe(slice_.window)}" for slice_ in certificate.slices]
        _show_list("Rows Per Slice", slices)
    types = sorted(certificate.users_by_type.items(), key=lambda entry: -sum(entry[1].values()))
    lines = [
        f"{counts['active']:>9,} active  {counts['inactive']:>9,} inactive  {user_type or 'without UserType'}"
        for user_type, counts in types
    ]
    _show_list("Users By Type", lines)
    _show_list("Hidden Fields", [", ".join(certificate.hidden_fields)])
    _show_list("Lost Fields", [", ".join(certificate.lost_fields)])
    _show_list("Formula Fields", [", ".join(certificate.formula_fields)])


def _show_figures(figures: dict[str, str]) -> None:
    for label, value in figures.items():
        click.echo(f"{label + ':':<22}{value}")


def _show_list(label: str, lines: list[str]) -> None:
    for number, line in enumerate(lines or ["none"]):
        click.echo(f"{label + ':' if number == 0 else '':<22}{line or 'none'}")


def _describe(window: SyncWindow) -> str:
    until = format_moment(window.until)
    return f"everything before {until}" if window.since is None else f"{format_moment(window.since)} to {until}"


def _usage(usage: ApiUsage) -> str:
    if usage.used is None or usage.limit is None:
        return "not told by Salesforce"
    share = f" ({output.percent(usage.share)})" if usage.share is not None else ""
    return f"{usage.used:,} of {usage.limit:,} calls in 24 hours{share}"
