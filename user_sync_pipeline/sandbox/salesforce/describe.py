"""Which fields the objects of the simulator have, as `describe` tells them, and where a field's value is.

What belongs here: names, types, lengths and flags. What does not: who may see a field (`org.py`).
Source: Salesforce Object Reference, "User"; whether User has `IsDeleted` is a switch (`quirks.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from user_sync_pipeline.sandbox.salesforce.users import ORGANIZATION_PREFIX, PROFILE_PREFIX, ROLE_PREFIX, USER_PREFIX


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `path` leads from a record to its value; `parent` is the object that a reference points to.

    `convert` is for a field whose type was changed: it makes a value of the new type from one of the old.
    """

    name: str
    type: str
    length: int
    path: str
    nillable: bool = True
    compound: str | None = None
    relationship: str | None = None
    parent: str | None = None
    external_id: bool = False
    calculated: bool = False
    convert: Callable[[Any], Any] | None = None

    @property
    def custom(self) -> bool:
        """Whether the organisation made the field itself."""
        return self.name.endswith("__c")

    @property
    def filterable(self) -> bool:
        """Whether WHERE and ORDER BY may name it."""
        return self.type not in ("address", "textarea")

    def describe(self) -> dict[str, Any]:
        """Return the field's entry in the describe answer."""
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c").replace("_", " "),
            "type": self.type,
            "length": self.length,
            "nillable": self.nillable,
            "custom": self.custom,
            "calculated": self.calculated,
            "compoundFieldName": self.compound,
            "createable": True,
            "externalId": self.external_id,
            "filterable": self.filterable,
            "idLookup": self.name == "Id" or self.external_id,
            "nameField": self.name == "Name",
            "referenceTo": [self.parent] if self.parent else [],
            "relationshipName": self.relationship,
            "sortable": self.filterable,
            "unique": self.name in ("Username", "CommunityNickname"),
        }


def _person(name: str, kind: str, length: int, path: str, **more: Any) -> Field:
    return Field(name, kind, length, f"person.{path}", **more)


def _user_reference(name: str, relationship: str, path: str) -> Field:
    return Field(name, "reference", 18, path, relationship=relationship, parent="User")


def _address_part(name: str, kind: str, length: int, path: str) -> Field:
    return Field(name, kind, length, f"postal.{path}", compound="Address")


_USER_FIELDS = (
    Field("Id", "id", 18, "id", nillable=False),
    _person("Username", "string", 80, "username", nillable=False),
    _person("LastName", "string", 80, "last_name", nillable=False, compound="Name"),
    _person("FirstName", "string", 40, "first_name", compound="Name"),
    _person("Name", "string", 121, "name", nillable=False),
    _person("CompanyName", "string", 80, "company"),
    _person("Division", "string", 80, "division"),
    _person("Department", "string", 80, "department"),
    _person("Title", "string", 80, "title"),
    _address_part("Street", "textarea", 255, "street"),
    _address_part("City", "string", 40, "city"),
    _address_part("State", "string", 80, "state"),
    _address_part("PostalCode", "string", 20, "postal_code"),
    _address_part("Country", "string", 80, "country"),
    _address_part("StateCode", "picklist", 10, "state_code"),
    _address_part("CountryCode", "picklist", 10, "country_code"),
    _address_part("Latitude", "double", 0, "latitude"),
    _address_part("Longitude", "double", 0, "longitude"),
    _address_part("GeocodeAccuracy", "picklist", 40, "geocode_accuracy"),
    Field("Address", "address", 0, "address"),
    _person("Email", "email", 128, "email", nillable=False),
    _person("Phone", "phone", 40, "phone"),
    _person("Fax", "phone", 40, "fax"),
    _person("MobilePhone", "phone", 40, "mobile_phone"),
    Field("Alias", "string", 8, "alias", nillable=False),
    Field("CommunityNickname", "string", 40, "community_nickname"),
    _person("IsActive", "boolean", 0, "is_active", nillable=False),
    _person("TimeZoneSidKey", "picklist", 40, "time_zone", nillable=False),
    Field("UserRoleId", "reference", 18, "role_id", relationship="UserRole", parent="UserRole"),
    _person("LocaleSidKey", "picklist", 40, "locale", nillable=False),
    Field("EmailEncodingKey", "picklist", 40, "email_encoding", nillable=False),
    Field("ProfileId", "reference", 18, "profile_id", nillable=False, relationship="Profile", parent="Profile"),
    _person("UserType", "picklist", 40, "user_type"),
    _person("LanguageLocaleKey", "picklist", 40, "language", nillable=False),
    _person("EmployeeNumber", "string", 20, "employee_number"),
    _user_reference("ManagerId", "Manager", "manager_id"),
    Field("LastLoginDate", "datetime", 0, "last_login_date"),
    Field("LastPasswordChangeDate", "datetime", 0, "last_password_change_date"),
    Field("CreatedDate", "datetime", 0, "created_date", nillable=False),
    _user_reference("CreatedById", "CreatedBy", "created_by_id"),
    Field("LastModifiedDate", "datetime", 0, "last_modified_date", nillable=False),
    _user_reference("LastModifiedById", "LastModifiedBy", "created_by_id"),
    Field("SystemModstamp", "datetime", 0, "stamp", nillable=False),
    Field("NumberOfFailedLogins", "int", 0, "failed_logins"),
    _person("Extension", "phone", 40, "extension"),
    Field("FederationIdentifier", "string", 512, "federation_identifier"),
    Field("FullPhotoUrl", "url", 1024, "photo_url"),
    _person("External_ID__c", "string", 64, "external_id", external_id=True),
    _person("Region__c", "picklist", 255, "division"),
    Field("Cost_Center__c", "string", 40, "cost_center"),
    Field("Start_Date__c", "date", 0, "start_date"),
    Field("Grade__c", "double", 0, "grade"),
)
IS_DELETED = Field("IsDeleted", "boolean", 0, "is_deleted", nillable=False)
_ORGANIZATION_FIELDS = (
    Field("Id", "id", 18, "id", nillable=False),
    Field("Name", "string", 80, "name", nillable=False),
    Field("OrganizationType", "picklist", 40, "edition"),
    Field("IsSandbox", "boolean", 0, "is_sandbox", nillable=False),
    Field("SystemModstamp", "datetime", 0, "stamp", nillable=False),
)
_NAMED_FIELDS = (Field("Id", "id", 18, "id", nillable=False), Field("Name", "string", 255, "name", nillable=False))


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _as_number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


# By new type: how a value becomes one of it, and its length.
_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "string": (_as_text, 255),
    "textarea": (_as_text, 32_768),
    "picklist": (_as_text, 255),
    "double": (_as_number, 0),
    "boolean": (bool, 0),
}


class ObjectType:
    """One object and its fields; names are found in any case."""

    def __init__(self, name: str, key_prefix: str, fields: tuple[Field, ...]) -> None:
        self.name = name
        self.key_prefix = key_prefix
        self.fields = fields
        self._by_name = {field.name.lower(): field for field in fields}
        self._by_relationship = {field.relationship.lower(): field for field in fields if field.relationship}

    def field(self, name: str) -> Field | None:
        """Return the field called `name`."""
        return self._by_name.get(name.lower())

    def known_field(self, name: str) -> Field:
        """Return the field called `name`; raises `ValueError` when there is none."""
        field = self.field(name)
        if field is None:
            raise ValueError(f"{self.name} has no field {name}")
        return field

    def relationship(self, name: str) -> Field | None:
        """Return the reference field whose relationship is called `name`, as in `Manager.Name`."""
        return self._by_relationship.get(name.lower())

    def retyped(self, name: str, kind: str) -> ObjectType:
        """Return the object with another type of field; raises `ValueError` for an unknown field or type."""
        if kind not in _CONVERSIONS:
            raise ValueError(f"{kind} is none of the types that a field can be given: {', '.join(_CONVERSIONS)}")
        convert, length = _CONVERSIONS[kind]
        return self._with(name, type=kind, length=length, convert=convert)

    def with_formula(self, name: str) -> ObjectType:
        """Return the object with a field that Salesforce computes; raises `ValueError` for an unknown field."""
        return self._with(name, calculated=True)

    def with_field(self, field: Field) -> ObjectType:
        """Return the object with one more field."""
        return ObjectType(self.name, self.key_prefix, (*self.fields, field))

    def describe(self, hidden: frozenset[str]) -> dict[str, Any]:
        """Return the describe answer; fields in `hidden` are absent."""
        return {
            "name": self.name,
            "label": self.name,
            "keyPrefix": self.key_prefix,
            "queryable": True,
            "replicateable": True,
            "retrieveable": True,
            "fields": [field.describe() for field in self.fields if field.name not in hidden],
        }

    def _with(self, name: str, **changes: Any) -> ObjectType:
        old = self.known_field(name)
        fields = (replace(field, **changes) if field is old else field for field in self.fields)
        return ObjectType(self.name, self.key_prefix, tuple(fields))


USER = ObjectType("User", USER_PREFIX, _USER_FIELDS)
ORGANIZATION = ObjectType("Organization", ORGANIZATION_PREFIX, _ORGANIZATION_FIELDS)
OBJECT_TYPES = {
    kind.name: kind
    for kind in (
        USER,
        ObjectType("Profile", PROFILE_PREFIX, _NAMED_FIELDS),
        ObjectType("UserRole", ROLE_PREFIX, _NAMED_FIELDS),
    )
}
