"""The report of a reconciliation as Markdown: figures, trend, findings by kind, and the worst of them.

What belongs here: what a person reads first in the Dagster UI. What does not: getting any of it (`reconciliation.py`).

It is kept with the history of runs, so it holds ids and reasons, and nothing else that tells who a person is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from user_sync_pipeline.core.profiles.report import ProfileStatus, ProfileSyncResult

if TYPE_CHECKING:
    import pyarrow as pa

WORST_ROWS = 10
# Who can do what he should not, who cannot do what he should, and then what a person has to decide.
WORST_FIRST = (
    "inactive_in_salesforce_can_sign_in",
    "missing_profile",
    "ambiguous_external_id",
    "ambiguous_email",
    "orphan_profile",
    "stale_email",
)

Finding = Mapping[str, str | None]


class Outcome(NamedTuple):
    """What one reconciliation came to, as a row of the trend."""

    ended_at: datetime
    sync_percentage: float
    missing_profiles: int
    profiles_created: int
    findings: int


def report(
    status: ProfileStatus,
    result: ProfileSyncResult,
    *,
    kinds: Mapping[str, int],
    worst: Iterable[Finding],
    trend: Sequence[Outcome],
) -> str:
    """Return the report; `kinds` counts the findings by kind, `trend` is newest first and begins with this one."""
    found = [(_spoken(kind), f"{number:,}") for kind, number in kinds.items()]
    refusals = Counter(failure.reason for failure in result.failures).most_common()
    parts = [
        _section("Application profiles", ("", ""), _figures(status, result)),
        _section("Profiles that were refused", ("", "users"), refusals),
        _section("Trend", ("ended (UTC)", "synced", "missing", "created", "findings"), map(_row_of_trend, trend)),
        _section("Findings", ("", "number"), found),
        _section(
            f"The {WORST_ROWS} worst",
            ("finding", "auth user", "Salesforce user", "reason"),
            map(_row_of_finding, worst),
            numbers=False,
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def worst_of(findings: "pa.Table") -> list[Finding]:
    """Return the findings that a person should look at first; kinds without a rank come last.

    Only these few become Python objects: there may be as many findings as users.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = findings.column("finding")
    ranked = [pc.equal(kinds, kind) for kind in WORST_FIRST]
    others = pc.invert(pc.is_in(kinds, pa.array(WORST_FIRST)))
    rows: list[Finding] = []
    for of_a_kind in (*ranked, others):
        rows += findings.take(pc.indices_nonzero(of_a_kind)[: WORST_ROWS - len(rows)]).to_pylist()
    return rows


def _figures(status: ProfileStatus, result: ProfileSyncResult) -> list[tuple[str, str]]:
    return [
        ("Auth users", f"{status.total_auth_users:,}"),
        ("Profiles", f"{status.total_user_profiles:,}"),
        ("Profiles created just now", f"{result.profiles_created:,}"),
        ("Missing profiles", f"{status.missing_profiles:,}"),
        ("**Sync percentage**", f"**{status.sync_percentage:.2f}%**"),
        ("Counted by", f"{status.method}, {status.exactness}"),
    ]


def _row_of_trend(outcome: Outcome) -> tuple[str, ...]:
    numbers = (outcome.missing_profiles, outcome.profiles_created, outcome.findings)
    when = f"{outcome.ended_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    return (when, f"{outcome.sync_percentage:.2f}%", *(f"{number:,}" for number in numbers))


def _row_of_finding(finding: Finding) -> tuple[str, ...]:
    ids = (finding["auth_user_id"], finding["salesforce_user_id"])
    return (_spoken(finding["finding"] or ""), *(f"`{id_}`" if id_ else "" for id_ in ids), finding["reason"] or "")


def _spoken(kind: str) -> str:
    return kind.replace("_", " ").replace("salesforce", "Salesforce")


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = True) -> str | None:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if not lines:
        return None
    rule = ("---", *("---:" if numbers else "---" for _ in head[1:]))
    return "\n".join([f"### {title}", "", f"| {' | '.join(head)} |", f"| {' | '.join(rule)} |", *lines])
