"""Figures about profiles, and how they are shown: as JSON keys and as lines for people.

What belongs here: result types, the rule for percentages, labels and their alignment.
What does not: getting the figures. Labels, order and alignment are a contract; a test compares them letter by letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal
from uuid import UUID

from user_sync_pipeline.core.windows import format_moment

# How the figures were got: one SQL statement, one call of our function over HTTP, or the pages of the admin API.
Method = Literal["sql", "rpc", "api"]
# "bounded": each figure is at most a known number off; "unknown": the server gave no total to compare with.
Exactness = Literal["exact", "bounded", "unknown"]

_METHODS: dict[Method, str] = {
    "sql": "SQL",
    "rpc": "function profile_sync_report",
    "api": "pages of the admin API",
}
_LABEL_WIDTH = 22
_POSITIONS_NAMED = 5
_HUNDRED = Decimal(100)
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class ProfileStatus:
    """Who can sign in against who has a profile, at one moment.

    In scope is a user of audience `authenticated` who is not soft-deleted; `total_auth_users` counts those.
    `total_user_profiles` counts every row, an orphan is one without a user in scope, so that
    profiles - orphans + missing = users always holds. Users who are anonymous, banned or unconfirmed (neither e-mail
    nor phone, anonymous ones aside) are in scope like any other. None: cannot be seen this way.

    `margin` says how far each figure may be off where it is bounded; `unreadable_positions` where, counted from the
    oldest user, those are whom the admin API cannot show, and who are therefore in none of the figures.
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
    anonymous_users: int | None = None
    banned_users: int | None = None
    unconfirmed_users: int | None = None
    margin: int | None = None
    unreadable_positions: tuple[int, ...] = ()

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
    had their mirrored columns brought up to date, None when that was not asked for. `run_id` is that of the ledger,
    None for a dry run and where there is no ledger: such a sync cannot be undone.
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
    refused_refreshes: tuple[ProfileFailure, ...] = ()
    run_id: UUID | None = None

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
            "refreshed_profiles": self.refreshed_profiles,
            "refused_refreshes": [refusal.as_json() for refusal in self.refused_refreshes],
            "run_id": None if self.run_id is None else str(self.run_id),
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
        lines += _provenance(status.method, status.exactness, status.margin)
        lines += [
            _line("Orphan Profiles", status.orphan_profiles),
            _line("Soft-Deleted Users", status.soft_deleted_users),
        ]
        if status.unreadable_positions:
            lines.append(_unreadable(status.unreadable_positions))
        lines += [_line(label, number) for label, number in _kinds_of_users(status) if number is not None]
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
        lines += _by_reason("Failed", (failure.reason for failure in result.failures))
        lines += _by_reason("Not Refreshed", (refusal.reason for refusal in result.refused_refreshes))
        if result.run_id is not None:
            lines.append(_line("Run", result.run_id))
    return "\n".join(lines)


def format_undo(run_id: UUID, removed: int, restored: int, reasons_to_keep: Sequence[str], seconds: float) -> str:
    """Return the outcome of an undo as lines for people; `reasons_to_keep` has one entry a profile that was kept."""
    lines = [
        "=== Undo Summary ===",
        _line("Run", run_id),
        _line("Profiles Removed", removed),
        _line("Profiles Restored", restored),
        _line("Profiles Kept", len(reasons_to_keep)),
        *_by_reason("Kept", reasons_to_keep),
        _line("Execution Time", f"{seconds:.2f} seconds"),
    ]
    return "\n".join(lines)


def _percentage(total: int, missing: int) -> Decimal:
    if missing == 0:
        return _HUNDRED
    share = (_HUNDRED * (total - missing) / Decimal(total)).quantize(_CENT, ROUND_HALF_UP)
    return min(share, _HUNDRED - _CENT)


def _line(label: str, value: object) -> str:
    return f"{label + ':':<{_LABEL_WIDTH}}{value}"


def _kinds_of_users(status: ProfileStatus) -> tuple[tuple[str, int | None], ...]:
    return (
        ("Users Outside API", status.users_outside_api),
        ("Anonymous Users", status.anonymous_users),
        ("Banned Users", status.banned_users),
        ("Unconfirmed Users", status.unconfirmed_users),
    )


def _provenance(method: Method, exactness: Exactness, margin: int | None = None) -> list[str]:
    how_far = f" (± {margin})" if margin else ""
    return [_line("Method", _METHODS[method]), _line("Exactness", f"{exactness}{how_far}")]


def _unreadable(positions: tuple[int, ...]) -> str:
    named = ", ".join(map(str, positions[:_POSITIONS_NAMED])) + (", …" if len(positions) > _POSITIONS_NAMED else "")
    return _line("Unreadable Users", f"{len(positions)} (by creation, number {named})")


def _by_reason(label: str, reasons: Iterable[str]) -> list[str]:
    return [_line(label, f"{count} ({reason})") for reason, count in Counter(reasons).most_common()]


def _to_the_second(moment: datetime) -> str:
    return format_moment(moment.replace(microsecond=0))
