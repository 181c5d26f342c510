from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pyarrow as pa

from user_sync_pipeline.assets.report import WORST_FIRST, Finding, Outcome, report, worst_of
from user_sync_pipeline.core.profiles.reconcile import FINDINGS
from user_sync_pipeline.core.profiles.report import ProfileFailure, ProfileStatus, ProfileSyncResult
from user_sync_pipeline_tests.orchestration.conftest import section_of

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
STATUS = ProfileStatus(
    total_auth_users=1500,
    total_user_profiles=1450,
    missing_profiles=50,
    orphan_profiles=0,
    soft_deleted_users=0,
    method="sql",
    exactness="exact",
)
RESULT = ProfileSyncResult(
    timestamp=NOW,
    total_auth_users=1500,
    existing_profiles=1440,
    profiles_created=10,
    execution_time_seconds=0.5,
    dry_run=False,
    method="sql",
    exactness="exact",
)


def finding(kind: str, number: int = 0) -> Finding:
    return {"finding": kind, "auth_user_id": f"a{number}", "salesforce_user_id": None, "reason": "A reason."}


def outcome(hours_ago: int, missing: int) -> Outcome:
    return Outcome(NOW - timedelta(hours=hours_ago), 100.0 - missing / 100, missing, 10, 1234)


def test_the_worst_are_those_who_can_still_do_something_and_ten_at_most() -> None:
    many = [finding("active_in_salesforce_without_sign_in", number) for number in range(50)]
    late = [finding("orphan_profile"), finding("missing_profile"), finding("inactive_in_salesforce_can_sign_in")]
    shown = worst_of(pa.Table.from_pylist([*many, *late]))
    assert [each["finding"] for each in shown[:4]] == [
        "inactive_in_salesforce_can_sign_in",
        "missing_profile",
        "orphan_profile",
        "active_in_salesforce_without_sign_in",
    ]
    assert len(shown) == 10


def test_what_is_ranked_is_a_kind_of_finding() -> None:
    assert set(WORST_FIRST) <= set(FINDINGS)


def test_the_report_shows_figures_trend_and_findings_for_people() -> None:
    text = report(
        STATUS,
        RESULT,
        kinds={"inactive_in_salesforce_can_sign_in": 1, "orphan_profile": 1200},
        worst=[finding("inactive_in_salesforce_can_sign_in")],
        trend=[outcome(0, 50), outcome(1, 60)],
    )
    assert ["Auth users", "1,500"] in section_of(text, "Application profiles")
    assert section_of(text, "Trend") == [
        ["2026-03-20 12:00", "99.50%", "50", "10", "1,234"],
        ["2026-03-20 11:00", "99.40%", "60", "10", "1,234"],
    ]
    assert section_of(text, "Findings") == [
        ["inactive in Salesforce can sign in", "1"],
        ["orphan profile", "1,200"],
    ]
    assert section_of(text, "The 10 worst") == [["inactive in Salesforce can sign in", "`a0`", "", "A reason."]]


def test_a_table_without_rows_is_left_out_and_refusals_are_counted_by_reason() -> None:
    text = report(STATUS, RESULT, kinds={}, worst=[], trend=[outcome(0, 50)])
    assert "worst" not in text
    assert "refused" not in text
    failures = tuple(ProfileFailure(UUID(int=number), "23514 user_profiles_role_allowed") for number in range(3))
    text = report(STATUS, replace(RESULT, failures=failures), kinds={}, worst=[], trend=[outcome(0, 50)])
    assert section_of(text, "Profiles that were refused") == [["23514 user_profiles_role_allowed", "3"]]
