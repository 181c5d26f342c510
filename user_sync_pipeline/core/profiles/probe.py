"""A sign-up that is made up, looked at and taken back: whether people who sign up now get their profile.

What belongs here: running the probe and judging what it saw. What does not: the probe itself, which is plain SQL
(`sql/queries/probe_sign_up.sql`), so that a SQL console can run it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from user_sync_pipeline.core.files import named_query

# What the trigger makes, whatever the metadata of the probe claims.
_ROLE, _SOURCE = "user", "trigger"


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of a sign-up; `problem` is None when all went well."""

    sign_up_went_through: bool
    profile_seen: bool
    profile_went_with_its_user: bool
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the probe as JSON, `ok` first."""
        return {
            "ok": self.problem is None,
            "sign_up_went_through": self.sign_up_went_through,
            "profile_seen": self.profile_seen,
            "profile_went_with_its_user": self.profile_went_with_its_user,
            "problem": self.problem,
        }


def probe_sign_up(connection: Connection) -> Probe:
    """Sign up a person who does not exist, and roll everything back; the transaction of `connection` ends.

    Raises the driver's error when `connection` may not write `auth.users`, or when there is nothing to probe.
    """
    block, end, answer = named_query("probe_sign_up").partition("\n$$;\n")
    try:
        connection.exec_driver_sql(block + end)
        seen = json.loads(connection.exec_driver_sql(answer).scalar_one())
    except DBAPIError as error:
        cause: Any = error.orig
        if cause.sqlstate is None or not cause.sqlstate.startswith(("22", "23", "P0")):
            raise
        return Probe(False, False, False, f"The sign-up itself was refused (SQLSTATE {cause.sqlstate}).")
    finally:
        connection.rollback()
    return _judge(seen)


def _judge(seen: dict[str, Any]) -> Probe:
    problem = None
    if not seen["profile_seen"]:
        why = f": {seen['failure']}" if seen["failure"] else "; type: user-sync migrate verify"
        problem = f"The sign-up went through without a profile{why}."
    elif (seen["role"], seen["source"]) != (_ROLE, _SOURCE):
        problem = f"The profile has role {seen['role']} and source {seen['source']} instead of {_ROLE} and {_SOURCE}."
    elif seen["profile_left_after_deletion"]:
        problem = "The profile stayed when its user was deleted; type: user-sync migrate verify"
    return Probe(True, seen["profile_seen"], not seen["profile_left_after_deletion"], problem)
