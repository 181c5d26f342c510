"""What the integration user may do, as far as Salesforce tells it to somebody who only reads.

What belongs here: four questions, each a fixed text, which are no part of a sync and which no setting changes.
What does not: what is too much or too little (`core/doctor`). What Salesforce does not tell is None, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from user_sync_pipeline.core.salesforce.client import RawSalesforce
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.read_only import API_PATH, AllowedRequest, Outgoing

# Permissions with which somebody could change what this pipeline only reads.
CHANGING = ("ModifyAllData", "ManageUsers", "ManageInternalUsers", "CustomizeApplication")
VIEWING = ("ViewAllUsers",)

_PERMISSIONS = f"SELECT {', '.join(f'Permissions{name}' for name in (*CHANGING, *VIEWING))} FROM UserPermissionAccess"
_LICENCES = "SELECT UsedLicenses FROM UserLicense"
_ACTIVE_USERS = "SELECT COUNT() FROM User WHERE IsActive = TRUE"
_FROZEN_USERS = "SELECT COUNT() FROM UserLogin WHERE IsFrozen = TRUE"
_QUESTIONS = frozenset({_PERMISSIONS, _LICENCES, _ACTIVE_USERS, _FROZEN_USERS})


@dataclass(frozen=True, slots=True)
class AccountRights:
    """`granted` are names such as `ManageUsers`, without their common beginning; the rest are numbers of users."""

    granted: frozenset[str] | None
    licences_in_use: int | None
    active_users: int | None
    frozen_users: int | None


def _is_one_of_these(request: Outgoing) -> bool:
    [*parameters] = request.parameters
    return not request.body and len(parameters) == 1 and parameters[0][0] == "q" and parameters[0][1] in _QUESTIONS


ASKING_FOR_RIGHTS = (AllowedRequest("GET", re.compile(rf"{API_PATH}/query/?"), _is_one_of_these),)


class _Licence(msgspec.Struct, rename="pascal"):
    used_licenses: int | None


class _Answer(msgspec.Struct, rename="camel"):
    total_size: int
    records: list[msgspec.Raw] | None = None


def read_rights(client: RawSalesforce) -> AccountRights:
    """Ask; raises as every request does, except that a question which is refused is one without an answer."""
    permissions = _ask(client, _PERMISSIONS)
    granted = None
    if permissions is not None and permissions.records:
        record = msgspec.json.decode(permissions.records[0], type=dict[str, object])
        granted = frozenset(name for name in (*CHANGING, *VIEWING) if record.get(f"Permissions{name}") is True)
    licences = _ask(client, _LICENCES)
    in_use = None
    if licences is not None and licences.records:
        in_use = sum(msgspec.json.decode(raw, type=_Licence).used_licenses or 0 for raw in licences.records)
    active = _ask(client, _ACTIVE_USERS)
    # Without the permission the answer may be a refusal, or only what one may see: nobody.
    frozen = _ask(client, _FROZEN_USERS) if granted is not None and "ManageUsers" in granted else None
    return AccountRights(
        granted, in_use, active.total_size if active else None, frozen.total_size if frozen is not None else None
    )


def _ask(client: RawSalesforce, question: str) -> _Answer | None:
    try:
        return msgspec.json.decode(client.query(question), type=_Answer)
    except (RefusedError, msgspec.MsgspecError) as error:
        if isinstance(error, RefusedError) and error.code in ("REQUEST_LIMIT_EXCEEDED", "INVALID_SESSION_ID"):
            raise
        return None
