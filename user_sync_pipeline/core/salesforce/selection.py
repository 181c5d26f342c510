"""Which fields a run reads: the catalogue and the extra fields, as far as Salesforce shows them to us.

What belongs here: reading describe(), and what is hidden from the integration user.
What does not: the catalogue (`fields.py`), values (`columns.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.fields import (
    ADDRESS_PARTS,
    CUSTOM_FIELDS_COLUMN,
    DESCRIBE_TYPES,
    USER_FIELDS,
    UserField,
)


@dataclass(frozen=True, slots=True)
class FieldSelection:
    """The fields of one run.

    `fields` are those of the catalogue that are visible, spelled as the organisation spells them and with its
    lengths; `extra` go into `custom_fields`. `hidden` are API names that Salesforce does not show: not created,
    or kept from the integration user by field-level security. `formulas` are those of the selected fields that
    Salesforce computes: they change without a trace in SystemModstamp, so only a full run brings them up to date.
    `extra_types` are the describe types of `extra`; `address_parts` are the visible fields that Address is made of,
    as (key in the address, API name). Only Bulk needs these two: its answers have neither types nor compound fields.
    """

    fields: tuple[UserField, ...]
    extra: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    formulas: tuple[str, ...] = ()
    extra_types: tuple[str, ...] = ()
    address_parts: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Our names of the columns that are fetched."""
        columns = tuple(field.column for field in self.fields)
        return (*columns, CUSTOM_FIELDS_COLUMN) if self.extra else columns

    @property
    def soql_names(self) -> tuple[str, ...]:
        """The API names to select."""
        return (*(field.name for field in self.fields), *self.extra)


class VisibleFields:
    """The fields that are visible by now: described on first use, and once more when one of them vanishes.

    Safe to share between threads. `describe` gives Salesforce's describe answer.
    """

    def __init__(self, describe: Callable[[], bytes], extra_fields: tuple[str, ...] = ()) -> None:
        self._describe = describe
        self._extra_fields = extra_fields
        self._lock = Lock()
        self._selections: list[FieldSelection] = []

    def selection(self) -> FieldSelection:
        """Return the fields to select now."""
        with self._lock:
            if not self._selections:
                self._selections.append(select_fields(self._describe(), self._extra_fields))
            return self._selections[-1]

    def look_again(self, before: FieldSelection, refused: RefusedError) -> FieldSelection:
        """Return the fields to select in place of `before`, which were refused; a second time raises `refused`."""
        with self._lock:
            if self._selections[-1] is before:
                if len(self._selections) > 1:
                    raise refused
                self._selections.append(select_fields(self._describe(), self._extra_fields))
            return self._selections[-1]


class _DescribedField(msgspec.Struct):
    name: str
    type: str
    length: int = 0
    calculated: bool = False


class _Described(msgspec.Struct):
    fields: list[_DescribedField]


def select_fields(describe: bytes, extra_fields: tuple[str, ...] = ()) -> FieldSelection:
    """Compare the catalogue and `extra_fields` with Salesforce's describe answer.

    Raises `ConfigurationError` when a required field is hidden or a field has another type than we store.
    """
    try:
        described = msgspec.json.decode(describe, type=_Described)
    except ValueError:
        raise UnreachableError("Salesforce did not describe its users as expected; run again later.") from None
    # API names are the same in any case, and answers use the spelling of describe.
    by_name = {field.name.lower(): field for field in described.fields}
    fields: list[UserField] = []
    hidden: list[str] = []
    for field in USER_FIELDS:
        if seen := by_name.get(field.name.lower()):
            fields.append(_as_described(field, seen))
        elif field.required:
            raise ConfigurationError(
                f"Salesforce does not show User.{field.name} to the integration user, and without it nothing can "
                "be synced; an administrator must grant read access to it (field-level security)."
            )
        else:
            hidden.append(field.name)
    extra: list[str] = []
    taken = {field.name.lower() for field in USER_FIELDS}
    for name in extra_fields:
        if name.lower() not in taken:
            taken.add(name.lower())
            if seen := by_name.get(name.lower()):
                extra.append(seen.name)
            else:
                hidden.append(name)
    selection = FieldSelection(tuple(fields), tuple(extra), tuple(hidden))
    return replace(
        selection,
        formulas=tuple(name for name in selection.soql_names if by_name[name.lower()].calculated),
        extra_types=tuple(by_name[name.lower()].type for name in extra),
        address_parts=tuple((part, by_name[part.lower()].name) for part in ADDRESS_PARTS if part.lower() in by_name),
    )


def _as_described(field: UserField, seen: _DescribedField) -> UserField:
    if seen.type not in DESCRIBE_TYPES[field.kind]:
        raise ConfigurationError(
            f"User.{field.name} is of type {seen.type} in this Salesforce organisation, but it is stored as "
            f"{field.kind}; give the field its former type, or use a release that knows the new one."
        )
    length = None if field.max_length is None else max(field.max_length, seen.length)
    return replace(field, name=seen.name, max_length=length)
