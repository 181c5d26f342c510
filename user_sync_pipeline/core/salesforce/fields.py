"""The catalogue of User fields: one list that drives SOQL, decoding, the Arrow schema and the merge.

What belongs here: which fields are read, what each is called in Postgres and which kind it has.
What does not: the tables themselves (`sql/migrations`), which a test compares with this list.

Source: Salesforce Object Reference, "User" and "Address Compound Fields".
`LastViewedDate` and `LastReferencedDate` are left out on purpose: they belong to the asking user.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(StrEnum):
    """How a field is decoded and stored."""

    ID = "id"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    ADDRESS = "address"


# The describe types that each kind accepts. A field that comes back as another type stops the run.
DESCRIBE_TYPES: dict[Kind, frozenset[str]] = {
    Kind.ID: frozenset({"id", "reference"}),
    Kind.TEXT: frozenset({"string", "textarea", "email", "phone", "url", "picklist", "combobox"}),
    Kind.BOOLEAN: frozenset({"boolean"}),
    Kind.TIMESTAMP: frozenset({"datetime"}),
    Kind.ADDRESS: frozenset({"address"}),
}


@dataclass(frozen=True, slots=True)
class UserField:
    """One Salesforce field and its column in `salesforce_users_raw` and `sf_users`.

    `max_length` is in characters; None where the kind has no length of its own.
    """

    name: str
    column: str
    kind: Kind
    max_length: int | None = None
    required: bool = False


def _text(name: str, column: str, max_length: int) -> UserField:
    return UserField(name, column, Kind.TEXT, max_length)


USER_FIELDS: tuple[UserField, ...] = (
    UserField("Id", "id", Kind.ID, required=True),
    UserField("Username", "username", Kind.TEXT, 80, required=True),
    _text("Name", "name", 121),
    _text("FirstName", "first_name", 40),
    _text("LastName", "last_name", 80),
    _text("Email", "email", 128),
    _text("Alias", "alias", 8),
    _text("CommunityNickname", "community_nickname", 40),
    _text("Title", "title", 80),
    _text("Department", "department", 80),
    _text("Division", "division", 80),
    _text("CompanyName", "company_name", 80),
    _text("EmployeeNumber", "employee_number", 20),
    _text("Phone", "phone", 40),
    _text("MobilePhone", "mobile_phone", 40),
    _text("Fax", "fax", 40),
    _text("Extension", "extension", 40),
    UserField("Address", "address", Kind.ADDRESS),
    UserField("IsActive", "is_active", Kind.BOOLEAN, required=True),
    _text("UserType", "user_type", 40),
    UserField("ProfileId", "profile_id", Kind.ID),
    UserField("UserRoleId", "user_role_id", Kind.ID),
    UserField("ManagerId", "manager_id", Kind.ID),
    _text("TimeZoneSidKey", "time_zone_sid_key", 40),
    _text("LocaleSidKey", "locale_sid_key", 40),
    _text("LanguageLocaleKey", "language_locale_key", 40),
    _text("EmailEncodingKey", "email_encoding_key", 40),
    _text("FederationIdentifier", "federation_identifier", 512),
    _text("External_ID__c", "external_id", 255),
    UserField("LastLoginDate", "last_login_date", Kind.TIMESTAMP),
    UserField("LastPasswordChangeDate", "last_password_change_date", Kind.TIMESTAMP),
    UserField("CreatedDate", "created_date", Kind.TIMESTAMP, required=True),
    UserField("CreatedById", "created_by_id", Kind.ID),
    UserField("LastModifiedDate", "last_modified_date", Kind.TIMESTAMP),
    UserField("LastModifiedById", "last_modified_by_id", Kind.ID),
    UserField("SystemModstamp", "system_modstamp", Kind.TIMESTAMP, required=True),
)

# What the compound Address is made of, by key: the fields are called the same with a capital. The two codes are there
# only in organisations with state and country picklists.
ADDRESS_PARTS: tuple[str, ...] = (
    *("city", "country", "countryCode", "geocodeAccuracy", "latitude", "longitude"),
    *("postalCode", "state", "stateCode", "street"),
)
ADDRESS_CODES = frozenset({"countryCode", "stateCode"})

# Fields named in SALESFORCE_EXTRA_FIELDS are kept together in this one JSONB column.
CUSTOM_FIELDS_COLUMN = "custom_fields"

USER_COLUMNS: tuple[str, ...] = (*(field.column for field in USER_FIELDS), CUSTOM_FIELDS_COLUMN)


@cache
def arrow_schema() -> pa.Schema:
    """Return the schema of every batch of users: all `USER_COLUMNS`, in that order.

    Text and ids are `string`, moments `timestamp[us, UTC]`, flags `bool`; `address` and `custom_fields`
    are JSON text. A column that Salesforce does not show us is present and null.
    """
    import pyarrow as pa

    types = {Kind.BOOLEAN: pa.bool_(), Kind.TIMESTAMP: pa.timestamp("us", tz="UTC")}
    columns = [(field.column, types.get(field.kind, pa.string())) for field in USER_FIELDS]
    return pa.schema([*columns, (CUSTOM_FIELDS_COLUMN, pa.string())])
