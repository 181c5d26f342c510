"""One profile for one user, with a role that somebody chose.

What belongs here: who may be given a profile, and what came of it. What does not: how a door makes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.profiles.directory import ROLES, Account, ProfileDirectory
from user_sync_pipeline.core.profiles.run_ledger import RunLedger, noted_run


@dataclass(frozen=True, slots=True)
class SingleProfile:
    """What there is of a profile now. `role` is the one it has, None where it was refused: `failure` says why."""

    user_id: UUID
    asked_role: str
    role: str | None
    created: bool
    failure: str | None = None
    run_id: UUID | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `user-sync create-profile --json` prints."""
        return {
            "user_id": str(self.user_id),
            "created": self.created,
            "role": self.role,
            "asked_role": self.asked_role,
            "failure": self.failure,
            "run_id": None if self.run_id is None else str(self.run_id),
        }

    def sentence(self) -> str:
        """Say it for a person."""
        if self.failure is not None:
            return f"The profile of {self.user_id} was refused: {self.failure}."
        if self.created:
            undo = f" To take this back: user-sync sync --undo {self.run_id}" if self.run_id else ""
            return f"Created the profile of {self.user_id} with the role {self.role}.{undo}"
        differs = "" if self.role == self.asked_role else f", not {self.asked_role}"
        return f"The profile of {self.user_id} is there already and stays as it is; its role is {self.role}{differs}."


def create_single_profile(
    directory: ProfileDirectory, user_id: UUID, *, role: str, ledger: RunLedger | None = None
) -> SingleProfile:
    """Create the profile of one user; an existing one stays as it is.

    Raises `UsageError` for a role that is not in the list, and for a user who is unknown or out of scope.
    """
    if role not in ROLES:
        raise UsageError(f"The role is {role!r}; give one of {', '.join(ROLES)}.")
    account = _in_scope(directory, user_id)
    if account.has_profile:
        return SingleProfile(user_id, role, account.role, created=False)
    with noted_run(ledger, None) as (run_id, tally):
        creation = directory.create_profile(user_id, role=role, run_id=run_id)
        tally.add(creation)
    if creation.failures:
        return SingleProfile(user_id, role, None, created=False, failure=creation.failures[0].reason, run_id=run_id)
    # Who comes between the look and the creation has made it, or has deleted the user.
    return SingleProfile(
        user_id, role, _in_scope(directory, user_id).role, created=creation.created == 1, run_id=run_id
    )


def _in_scope(directory: ProfileDirectory, user_id: UUID) -> Account:
    account = directory.account(user_id)
    if account is None:
        raise UsageError(f"There is no user {user_id} who can sign in; take the id from auth.users.")
    if not account.is_in_scope:
        raise UsageError(f"The user {user_id} was deleted, or signs in somewhere else, and so gets no profile.")
    return account
