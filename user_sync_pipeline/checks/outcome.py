"""What all checks share: how a judgement becomes a result, and which of several are asked for.

What belongs here: the way to Dagster. What does not: any judgement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

# Shown with a name; more of them make nobody wiser.
IDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a check does not pass: what is wrong and what to do, for the person who is on call."""

    severity: dg.AssetCheckSeverity
    sentence: str


Judgement = tuple[Complaint | None, Mapping[str, Any]]


def judge_selected(
    context: dg.AssetCheckExecutionContext, judgements: Mapping[str, Callable[[], Judgement]]
) -> list[dg.AssetCheckResult]:
    """Make those of the judgements that this run asks for; each is given by the name of its check."""
    selected = {key.name for key in context.selected_asset_check_keys}
    return [result(judge(), check_name=name) for name, judge in judgements.items() if name in selected]


def result(judgement: Judgement, *, check_name: str | None = None) -> dg.AssetCheckResult:
    """Return a judgement as Dagster takes it; one without a complaint has passed."""
    complaint, metadata = judgement
    if complaint is None:
        return dg.AssetCheckResult(passed=True, check_name=check_name, metadata=metadata)
    return dg.AssetCheckResult(
        passed=False,
        check_name=check_name,
        severity=complaint.severity,
        description=complaint.sentence,
        metadata=metadata,
    )


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 user`, `2,000 users`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: "tuple[str, ...] | list[str]") -> str:
    """Return names for people to read; metadata without any would look as if it had been forgotten."""
    return ", ".join(names) or "none"
