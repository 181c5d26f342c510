"""From a name in a query to a field, and from a field to its value in a record.

What belongs here: names in any case, dotted parents, and the refusal of a field that is hidden or does not exist.
What does not: what is done with the values (`evaluator.py`, `records.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from user_sync_pipeline.sandbox.salesforce.describe import OBJECT_TYPES, Field, ObjectType
from user_sync_pipeline.sandbox.salesforce.errors import QueryError
from user_sync_pipeline.sandbox.salesforce.soql import Name
from user_sync_pipeline.sandbox.salesforce.users import PROFILES, ROLES, RecordTable

Reader = Callable[[Any], Any]

_NO_SUCH_COLUMN = (
    "No such column '{}' on entity '{}'. If you are attempting to use a custom field, be sure to append the '__c' "
    "after the custom field name. Please reference your WSDL or the describe call for the appropriate names."
)
_NO_SUCH_RELATION = (
    "Didn't understand relationship '{}' in field path. If you are attempting to use a custom relationship, be sure "
    "to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the "
    "appropriate names."
)


@dataclass(frozen=True, slots=True)
class Found:
    """A field of the object (`parents` is empty) or of a parent, reached through the reference fields `parents`."""

    field: Field
    parents: tuple[Field, ...]
    read: Reader


class FieldAccess:
    """Resolves names in queries on one object. `hidden` are those of its fields that our user may not see."""

    def __init__(self, kind: ObjectType, table: RecordTable[Any], hidden: frozenset[str] = frozenset()) -> None:
        self.kind = kind
        self._hidden = hidden
        self._kinds = OBJECT_TYPES | {kind.name: kind}
        self._records: dict[str, Reader] = {
            kind.name: table.get,
            "Profile": {profile.id: profile for profile in PROFILES.values()}.get,
            "UserRole": {role.id: role for role in ROLES.values()}.get,
        }

    def resolve(self, name: Name, statement: str) -> Found:
        """Find what `name` means in a query on the object; raises `QueryError`."""
        *relationships, last = name.path.split(".")
        if relationships and relationships[0].lower() == self.kind.name.lower():
            del relationships[0]
        kind, parents = self.kind, []
        for relationship in relationships:
            reference = kind.relationship(relationship)
            if reference is None or reference.parent is None or self._is_hidden(kind, reference):
                raise QueryError("INVALID_FIELD", _NO_SUCH_RELATION.format(relationship), statement, name.column)
            parents.append(reference)
            kind = self._kinds[reference.parent]
        field = kind.field(last)
        if field is None or self._is_hidden(kind, field):
            raise QueryError("INVALID_FIELD", _NO_SUCH_COLUMN.format(last, kind.name), statement, name.column)
        return Found(field, tuple(parents), self._reader(parents, field))

    def parent_record(self, reference: Field, record: Any) -> Any:
        """Return the record that `reference` of `record` points to, or None."""
        return self._records[str(reference.parent)](own_value(reference)(record))

    def hides(self, field_name: str) -> bool:
        """Tell whether a field of the object is hidden."""
        return field_name in self._hidden

    def _is_hidden(self, kind: ObjectType, field: Field) -> bool:
        return kind is self.kind and field.name in self._hidden

    def _reader(self, parents: list[Field], field: Field) -> Reader:
        read = own_value(field)
        for reference in reversed(parents):
            read = self._through(reference, read)
        return read

    def _through(self, reference: Field, read: Reader) -> Reader:
        def read_parent(record: Any) -> Any:
            parent = self.parent_record(reference, record)
            return None if parent is None else read(parent)

        return read_parent


def own_value(field: Field) -> Reader:
    """Return what reads `field` from a record: what it was changed to, else what it had, in its present type."""
    name, original, convert = field.name, attrgetter(field.path), field.convert

    def read(record: Any) -> Any:
        changes = getattr(record, "changes", None)
        value = changes[name] if changes and name in changes else original(record)
        return value if convert is None else convert(value)

    return read
