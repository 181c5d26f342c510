"""The objects that tell an account what it may do: UserPermissionAccess, UserLicense and UserLogin.

What belongs here: their records, made anew for every query, and who may see them. What does not: the permissions
themselves (`permissions.py`). Source: Salesforce Object Reference; what a minimal account sees of UserLicense is not
documented, so here it takes the permission to view setup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from user_sync_pipeline.sandbox.salesforce.access import FieldAccess
from user_sync_pipeline.sandbox.salesforce.describe import Field, ObjectType
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline.sandbox.salesforce.permissions import Permissions
from user_sync_pipeline.sandbox.salesforce.users import RecordTable, User, UserTable

_STAMP = "2026-01-01T00:00:00.000+0000"
_ID = Field("Id", "id", 18, "id", nillable=False)


def _boolean(name: str, path: str) -> Field:
    return Field(name, "boolean", 0, path, nillable=False)


_PERMISSION_ACCESS = ObjectType(
    "UserPermissionAccess",
    "0PA",
    (
        _ID,
        _boolean("PermissionsModifyAllData", "permissions.modify_all_data"),
        _boolean("PermissionsManageUsers", "permissions.manage_users"),
        _boolean("PermissionsManageInternalUsers", "permissions.manage_users"),
        _boolean("PermissionsCustomizeApplication", "permissions.modify_all_data"),
        _boolean("PermissionsViewAllUsers", "permissions.view_all_users"),
    ),
)
_LICENCE = ObjectType("UserLicense", "100", (_ID, Field("UsedLicenses", "int", 0, "used")))
_LOGIN = ObjectType("UserLogin", "0Yw", (_ID, _boolean("IsFrozen", "is_frozen")))


@dataclass(slots=True)
class _Record:
    """A `Record`; each of the three objects uses one of the last three."""

    id: str
    permissions: Permissions
    used: int = 0
    is_frozen: bool = False
    stamp: str = _STAMP
    changes: dict[str, Any] | None = None
    rendered: tuple[object, bytes] | None = None


def rights_objects(
    permissions: Permissions, users: UserTable, frozen: Iterable[str], hidden_users: int
) -> dict[str, tuple[RecordTable[Any], FieldAccess]]:
    """Return the objects that may be seen, by name in lower case, with their records as they are now."""
    found: dict[str, tuple[ObjectType, list[_Record]]] = {}
    if permissions.own_rights:
        found["userpermissionaccess"] = (_PERMISSION_ACCESS, [_Record(salesforce_id("0PA", 1), permissions)])
    if permissions.setup:
        used = sum(map(_is_active, users.ordered)) + hidden_users
        found["userlicense"] = (_LICENCE, [_Record(salesforce_id("100", 1), permissions, used=used)])
    if permissions.manage_users:
        records = [
            _Record(salesforce_id("0Yw", number), permissions, is_frozen=user.id in frozen)
            for number, user in enumerate(users.ordered)
        ]
        found["userlogin"] = (_LOGIN, records)
    return {
        name: (table, FieldAccess(kind, table))
        for name, (kind, records) in found.items()
        for table in [RecordTable(records)]
    }


def _is_active(user: User) -> bool:
    return bool((user.changes or {}).get("IsActive", user.person.is_active))
