"""The figures as people and programs see them, letter by letter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.profiles.report import (
    ProfileFailure,
    ProfileStatus,
    ProfileSyncResult,
    format_status,
    format_summary,
    sync_percentage,
)

STATUS = ProfileStatus(
    total_auth_users=150,
    total_user_profiles=145,
    missing_profiles=5,
    orphan_profiles=0,
    soft_deleted_users=2,
    method="sql",
    exactness="exact",
)
RESULT = ProfileSyncResult(
    timestamp=datetime(2026, 1, 8, 10, 30, 0, 123456, tzinfo=UTC),
    total_auth_users=150,
    existing_profiles=145,
    profiles_created=5,
    execution_time_seconds=2.3449,
    dry_run=False,
    method="rpc",
    exactness="exact",
)
USER = UUID("0f9b5a9e-2c4e-4f8e-9d9d-0f8d8b1a2c3d")


def test_the_status_is_shown_to_the_letter() -> None:
    assert (
        format_status(STATUS)
        == """\
=== User Synchronization Status ===
Total Auth Users:     150
Total User Profiles:  145
Missing Profiles:     5
Sync Percentage:      96.67%"""
    )


def test_the_summary_is_shown_to_the_letter() -> None:
    assert (
        format_summary(RESULT)
        == """\
=== Synchronization Summary ===
Timestamp:            2026-01-08T10:30:00Z
Total Auth Users:     150
Existing Profiles:    145
Profiles Created:     5
Failed Creations:     0
Success Rate:         100%
Execution Time:       2.34 seconds"""
    )


def test_a_dry_run_says_so_in_its_heading_and_in_what_it_counts() -> None:
    lines = format_summary(replace(RESULT, dry_run=True)).splitlines()

    assert lines[0] == "=== Synchronization Summary (Dry Run) ==="
    assert lines[4] == "Profiles To Create:   5"


def test_verbose_adds_lines_below_and_changes_none_above() -> None:
    failures = (ProfileFailure(USER, "SQLSTATE 23505, constraint a"), ProfileFailure(USER, "SQLSTATE P0001"))
    status = replace(STATUS, users_outside_api=1, trigger_installed=False)
    result = replace(RESULT, failures=failures, refreshed_profiles=3)

    assert format_status(status, verbose=True).startswith(format_status(status) + "\n")
    assert format_status(status, verbose=True).splitlines()[5:] == [
        "Method:               SQL",
        "Exactness:            exact",
        "Orphan Profiles:      0",
        "Soft-Deleted Users:   2",
        "Users Outside API:    1",
        "Sign-Up Trigger:      missing or disabled",
    ]
    assert format_summary(result, verbose=True).startswith(format_summary(result) + "\n")
    assert format_summary(result, verbose=True).splitlines()[8:] == [
        "Method:               function profile_sync_report",
        "Exactness:            exact",
        "Vanished Users:       0",
        "Profiles Refreshed:   3",
        "Failed:               1 (SQLSTATE 23505, constraint a)",
        "Failed:               1 (SQLSTATE P0001)",
    ]


def test_without_users_the_percentage_is_100_and_says_why() -> None:
    status = replace(STATUS, total_auth_users=0, total_user_profiles=0, missing_profiles=0)

    assert status.sync_percentage == 100
    assert format_status(status).splitlines()[4:] == [
        "Sync Percentage:      100.00%",
        "Note:                 no users",
    ]


def test_status_json_has_the_agreed_keys() -> None:
    assert STATUS.as_json() == {
        "total_auth_users": 150,
        "total_user_profiles": 145,
        "missing_profiles": 5,
        "sync_percentage": 96.67,
        "method": "sql",
        "exactness": "exact",
    }


def test_summary_json_has_the_agreed_keys() -> None:
    result = replace(RESULT, profiles_created=4, failures=(ProfileFailure(USER, "SQLSTATE P0001"),))

    assert result.as_json() == {
        "timestamp": "2026-01-08T10:30:00Z",
        "total_auth_users": 150,
        "existing_profiles": 145,
        "profiles_created": 4,
        "failed_creations": 1,
        "success_rate": 80.0,
        "execution_time_seconds": 2.345,
        "dry_run": False,
        "failures": [{"user_id": str(USER), "reason": "SQLSTATE P0001"}],
        "refreshed_profiles": None,
        "refused_refreshes": [],
        "run_id": None,
    }


@pytest.mark.parametrize(
    ("created", "failed", "shown"),
    [(0, 0, "100%"), (197, 3, "98.5%"), (2, 1, "66.67%"), (0, 4, "0%"), (999_999, 1, "99.99%")],
)
def test_the_success_rate_is_shown_without_needless_zeros(created: int, failed: int, shown: str) -> None:
    failures = (ProfileFailure(USER, "SQLSTATE P0001"),) * failed
    line = format_summary(replace(RESULT, profiles_created=created, failures=failures)).splitlines()[6]

    assert line == f"Success Rate:         {shown}"


@pytest.mark.slow
@given(st.integers(1, 10**7).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))))
def test_the_percentage_is_100_only_when_nothing_is_missing(figures: tuple[int, int]) -> None:
    total, missing = figures
    percentage = sync_percentage(total, missing)

    assert (percentage == 100) == (missing == 0)
    assert abs(percentage - 100 * (total - missing) / total) <= 0.01
    assert percentage == round(percentage, 2)
