"""Figures about profiles, and how they are shown: as JSON keys and as lines for people.

What belongs here: result types, the rule for percentages, labels and their alignment.
What does not: getting the figures. Labels, order and alignment are a contract; a test compares them letter by letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal
from uuid import UUID

from user_sync_pipeline.core.windows import format_moment

# How the figures were got: one SQL statement, one call of our function over HTTP, or the pages of the admin API.
Method = Literal["sql", "rpc", "api"]
# "bounded": the totals moved while the pages were read; "unknown": the server gave no total to compare with.
Exactness = Literal["exact", "bounded", "unknown"]

_METHODS: dict[Method, str] = {
    "sql": "SQL",
    "rpc": "function profile_sync_report",
    "api": "pages of the admin API",
}
_LABEL_WIDTH = 22
_HUNDRED = Decimal(100)
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class ProfileStatus:
    """Who can sign in against who has a profile, at one moment.

    In scope is a user of audience `authenticated` who is not soft-deleted; `total_auth_users` counts those.
    `total_user_profiles` counts every row, an orphan is one without a user in scope, so that
    profiles - orphans + missing = users always holds. None: cannot be seen this way.
    """

    total_auth_users: int
    total_user_profiles: int
    missing_profiles: int
    orphan_profiles: int
    soft_deleted_users: int
    method: Method
    exactness: Exactness
    users_outside_api: int | None = None
    trigger_installed: bool | None = None

    @property
    def sync_percentage(self) -> float:
        """Share of the users in scope who have a profile; 100 when there are no users."""
        return sync_percentage(self.total_auth_users, self.missing_profiles)

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync status --json` prints."""
        return {
            "total_auth_users": self.total_auth_users,
            "total_user_profiles": self.total_user_profiles,
            "missing_profiles": self.missing_profiles,
            "sync_percentage": self.sync_percentage,
            "method": self.method,
            "exactness": self.exactness,
        }


@dataclass(frozen=True, slots=True)
class ProfileFailure:
    """A user whose profile was refused, and why: a SQLSTATE and the name of what refused it, never a value."""

    user_id: UUID
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return the keys of one entry of `failures`."""
        return {"user_id": str(self.user_id), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ProfileSyncResult:
    """What one sync did, or in a dry run would do. `timestamp` is its start, in UTC.

    `vanished_users` were deleted between counting and creating; they are no failures. `refreshed_profiles`
    had their mirrored columns brought up to date, None when that was not asked for.
    """

    timestamp: datetime
    total_auth_users: int
    existing_profiles: int
    profiles_created: int
    execution_time_seconds: float
    dry_run: bool
    method: Method
    exactness: Exactness
    failures: tuple[ProfileFailure, ...] = ()
    vanished_users: int = 0
    refreshed_profiles: int | None = None

    @property
    def failed_creations(self) -> int:
        """How many users are left without a profile because theirs was refused."""
        return len(self.failures)

    @property
    def success_rate(self) -> float:
        """Percentage of the attempted creations that succeeded; 100 when there was nothing to create."""
        return sync_percentage(self.profiles_created + self.failed_creations, self.failed_creations)

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync sync --json` prints."""
        return {
            "timestamp": _to_the_second(self.timestamp),
            "total_auth_users": self.total_auth_users,
            "existing_profiles": self.existing_profiles,
            "profiles_created": self.profiles_created,
            "failed_creations": self.failed_creations,
            "success_rate": self.success_rate,
            "execution_time_seconds": round(self.execution_time_seconds, 3),
            "dry_run": self.dry_run,
            "failures": [failure.as_json() for failure in self.failures],
        }


def sync_percentage(total: int, missing: int) -> float:
    """Return the share of `total` that is not missing, as a percentage of two decimals.

    Nothing to have is 100; but with anything missing it stays below 100, however little that is.
    """
    return float(_percentage(total, missing))


def format_status(status: ProfileStatus, verbose: bool = False) -> str:
    """Return the status as lines for people, without a newline at the end."""
    percentage = _percentage(status.total_auth_users, status.missing_profiles)
    lines = [
        "=== User Synchronization Status ===",
        _line("Total Auth Users", status.total_auth_users),
        _line("Total User Profiles", status.total_user_profiles),
        _line("Missing Profiles", status.missing_profiles),
        _line("Sync Percentage", f"{percentage:.2f}%"),
    ]
    if status.total_auth_users == 0:
        lines.append(_line("Note", "no users"))
    if verbose:
        lines += _provenance(status.method, status.exactness)
        lines += [
            _line("Orphan Profiles", status.orphan_profiles),
            _line("Soft-Deleted Users", status.soft_deleted_users),
        ]
        if status.users_outside_api is not None:
            lines.append(_line("Users Outside API", status.users_outside_api))
        if status.trigger_installed is not None:
            lines.append(_line("Sign-Up Trigger", "installed" if status.trigger_installed else "missing or disabled"))
    return "\n".join(lines)


def format_summary(result: ProfileSyncResult, verbose: bool = False) -> str:
    """Return the outcome of a sync as lines for people, without a newline at the end."""
    rate = _percentage(result.profiles_created + result.failed_creations, result.failed_creations)
    lines = [
        "=== Synchronization Summary (Dry Run) ===" if result.dry_run else "=== Synchronization Summary ===",
        _line("Timestamp", _to_the_second(result.timestamp)),
        _line("Total Auth Users", result.total_auth_users),
        _line("Existing Profiles", result.existing_profiles),
        _line("Profiles To Create" if result.dry_run else "Profiles Created", result.profiles_created),
        _line("Failed Creations", result.failed_creations),
        _line("Success Rate", f"{rate.normalize():f}%"),
        _line("Execution Time", f"{result.execution_time_seconds:.2f} seconds"),
    ]
    if verbose:
        lines += _provenance(result.method, result.exactness)
        lines.append(_line("Vanished Users", result.vanished_users))
        if result.refreshed_profiles is not None:
            label = "Profiles To Refresh" if result.dry_run else "Profiles Refreshed"
            lines.append(_line(label, result.refreshed_profiles))
        lines += _failures_by_reason(result.failures)
    return "\n".join(lines)


def _percentage(total: int, missing: int) -> Decimal:
    if missing == 0:
        return _HUNDRED
    share = (_HUNDRED * (total - missing) / Decimal(total)).quantize(_CENT, ROUND_HALF_UP)
    return min(share, _HUNDRED - _CENT)


def _line(label: str, value: object) -> str:
    return f"{label + ':':<{_LABEL_WIDTH}}{value}"


def _provenance(method: Method, exactness: Exactness) -> list[str]:
    return [_line("Method", _METHODS[method]), _line("Exactness", exactness)]


def _failures_by_reason(failures: Iterable[ProfileFailure]) -> list[str]:
    counts = Counter(failure.reason for failure in failures)
    return [_line("Failed", f"{count} ({reason})") for reason, count in counts.most_common()]


def _to_the_second(moment: datetime) -> str:
    return format_moment(moment.replace(microsecond=0))
