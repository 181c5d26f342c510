"""The two doors to auth users and their profiles, and the plan that both follow.

What belongs here: what a door can do, the choice of the door, and the splitting of a batch of profiles in which
something is refused. What does not: how a door does it (`sql_directory.py`, `supabase_directory.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar
from uuid import UUID

from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.report import ProfileFailure, ProfileStatus
from user_sync_pipeline.core.settings import SupabaseSettings

_FOREIGN_KEY_VIOLATION = "23503"
# Data exceptions, violated constraints and what a trigger raises: refusals that are about single rows.
_CLASSES_ABOUT_ROWS = ("22", "23", "P0")

# What a profile may be allowed to do; the table refuses any other role. Nobody's metadata has a say in it.
ROLES = ("user", "admin")
DEFAULT_ROLE = "user"

# Why an undo leaves a profile alone; the functions of migration 0002 say it in the same words.
CHANGED_SINCE = "changed since"

Row = TypeVar("Row")


class Account(NamedTuple):
    """A user in scope, or a profile that belongs to none (`is_in_scope` false). The e-mail is lower-cased.

    `has_stale_email`: the profile holds another e-mail than the user. `role` is that of the profile, where a single
    account was asked for.
    """

    auth_user_id: str
    email: str | None
    is_verified: bool
    can_sign_in: bool
    is_in_scope: bool
    has_profile: bool
    has_stale_email: bool = False
    role: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileImage:
    """The mirrored columns of one profile before and after a refresh, by name; texts, timestamps as ISO 8601.

    The keys are `email` and `phone`, and `updated_at` where the door knows it beforehand.
    """

    user_id: UUID
    before: dict[str, str | None]
    after: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A profile that an undo left as it is, and why."""

    user_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did: profiles removed that the run had made, restored that it had refreshed, and left alone."""

    removed: int = 0
    restored: int = 0
    kept: tuple[Kept, ...] = ()

    def __add__(self, other: Undone) -> Undone:
        return Undone(self.removed + other.removed, self.restored + other.restored, self.kept + other.kept)


@dataclass(frozen=True, slots=True)
class Creation:
    """What became of a number of missing profiles; `vanished` counts users deleted in the meantime."""

    created: int = 0
    vanished: int = 0
    failures: tuple[ProfileFailure, ...] = ()

    def __add__(self, other: Creation) -> Creation:
        return Creation(self.created + other.created, self.vanished + other.vanished, self.failures + other.failures)


class ProfileDirectory(Protocol):
    """Auth users and profiles of one project. A context manager; failures are those of `core/errors.py`."""

    def status(self) -> ProfileStatus:
        """Count users and profiles."""
        ...

    def create_missing(self, run_id: UUID | None = None) -> Generator[Creation]:
        """Create the profile of every user in scope who has none, and report after each slice.

        Existing profiles stay as they are. Each slice is committed; running again goes on from there. The profiles
        bear `run_id`, and what was noted of sign-ups that went through without their profile is cleared. Close it
        when it is not read to the end.
        """
        ...

    def create_profile(self, user_id: UUID, *, role: str, run_id: UUID | None = None) -> Creation:
        """Create the profile of one user in scope with this role; an existing one stays as it is."""
        ...

    def account(self, user_id: UUID) -> Account | None:
        """Return one user, in scope or not, with the role of the profile; None where there is no such user."""
        ...

    def refresh_mirrored(
        self,
        *,
        dry_run: bool,
        journal: Callable[[Sequence[ProfileImage]], None] | None = None,
        refused: Callable[[ProfileFailure], None] | None = None,
    ) -> int:
        """Bring e-mail and phone of existing profiles up to date; returns how many (with `dry_run`: would be).

        `journal` is given the images of a slice before the slice is written, `refused` each profile that cannot be
        written; the others are not held up by it.
        """
        ...

    def undo(self, run_id: UUID, images: Iterator[ProfileImage]) -> Undone:
        """Remove the profiles that bear `run_id` and restore those of `images`, as far as nobody changed them since.

        May be repeated: what is as it was before the run is neither restored again nor kept.
        """
        ...

    def accounts(self) -> Generator[Account]:
        """Stream every user in scope and every profile; close it when it is not read to the end."""
        ...

    def close(self) -> None:
        """Close what the door opened itself."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class RowsRefusedError(Exception):
    """At least one row of a batch was refused, and with it the whole batch."""

    def __init__(self, sqlstate: str, *, constraint: str | None = None, column: str | None = None) -> None:
        self.sqlstate = sqlstate
        self.reason = refusal_reason(sqlstate, constraint=constraint, column=column)
        super().__init__(self.reason)


def is_about_rows(sqlstate: str | None) -> bool:
    """Tell whether a failure may go away with the row that caused it."""
    return sqlstate is not None and len(sqlstate) == 5 and sqlstate[:2] in _CLASSES_ABOUT_ROWS


def refusal_reason(sqlstate: str, *, constraint: str | None = None, column: str | None = None) -> str:
    """Name what refused a row: codes and names of the schema, never a value."""
    where = f", constraint {constraint}" if constraint else f", column {column}" if column else ""
    return f"SQLSTATE {sqlstate}{where}"


def create_in_halves(
    rows: Sequence[Row], create: Callable[[Sequence[Row]], int], user_id: Callable[[Row], UUID]
) -> Creation:
    """Create `rows` at once, and where that is refused in halves, down to the single rows at fault.

    `create` stores all of its rows or raises `RowsRefusedError`, and returns how many were new.
    """
    try:
        return Creation(created=create(rows))
    except RowsRefusedError as refused:
        if len(rows) == 1:
            if refused.sqlstate == _FOREIGN_KEY_VIOLATION:
                return Creation(vanished=1)
            return Creation(failures=(ProfileFailure(user_id(rows[0]), refused.reason),))
    middle = len(rows) // 2
    return create_in_halves(rows[:middle], create, user_id) + create_in_halves(rows[middle:], create, user_id)


def open_directory(settings: SupabaseSettings, engine: Engine | None = None) -> ProfileDirectory:
    """Return the best door that is configured.

    That is SQL where `engine`, the engine of `settings.database_url`, leads to a database with users and
    profiles that can be read; else HTTP. Raises `ConfigurationError` when neither is there. The caller keeps
    the engine and closes it.
    """
    from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory, readable_tables
    from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory

    readable = readable_tables(engine) if engine is not None else frozenset()
    if engine is not None and readable >= {"auth.users", "public.user_profiles"}:
        return SqlDirectory(engine)
    if settings.url and settings.service_role_key:
        return SupabaseDirectory(settings.url, settings.service_role_key, ca_bundle=settings.ca_bundle)
    if "auth.users" in readable:
        raise ConfigurationError(
            "SUPABASE_DB_URL (or USER_SYNC_DATABASE_URL) leads to a database without public.user_profiles; "
            "type: user-sync migrate apply"
        )
    raise ConfigurationError(
        "Nothing of Supabase is configured; set SUPABASE_DB_URL to the address of its database, "
        "or SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY."
    )
