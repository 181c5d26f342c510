"""`user-sync doctor`: what is configured, whether it works, and what to do where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from user_sync_pipeline.cli import options, output

if TYPE_CHECKING:
    from user_sync_pipeline.core.doctor.checks import State
    from user_sync_pipeline.core.doctor.examination import Examination

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "broken": "bold red", "not configured": "dim"}


@click.command()
@options.as_json
def doctor(as_json: bool) -> int:
    """Look at everything that is configured, and say what to do; changes nothing."""
    from user_sync_pipeline.core.doctor.examination import examine

    with output.Activity("Looking at everything that is configured"):
        examination = examine()
    if as_json:
        output.print_json(examination.as_json())
    else:
        _show(examination)
    return examination.exit_code


def _show(examination: Examination) -> None:
    from rich.text import Text

    rows = []
    for check in examination.checks:
        found = check.finding
        what = Text(f"{found.detail}\n→ {found.mend}" if found.mend else found.detail)
        rows.append((check.area, check.name, Text(found.state, style=_STYLES[found.state]), what))
    output.print_table("What was looked at", ("area", "what", "state", "finding"), rows)
    states = [check.finding.state for check in examination.checks]
    click.echo(f"\n{states.count('broken')} broken, {states.count('warning')} to be warned of.")
