"""From the decoded values of one field to one Arrow column, with what does not fit.

What belongs here: the rules of each kind of value (ids, texts, flags, moments, addresses).
What does not: pages, rows and their fate (`records.py`).

A fault is the place of a value in the column and why it cannot be stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from user_sync_pipeline.core.salesforce.fields import Kind, UserField, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_SUFFIX_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


class Address(msgspec.Struct, gc=False):
    """The compound address. Every key is stored, null where Salesforce left it out; numbers keep all digits."""

    city: str | None = None
    country: str | None = None
    countryCode: str | None = None  # noqa: N815
    geocodeAccuracy: str | None = None  # noqa: N815
    latitude: Decimal | None = None
    longitude: Decimal | None = None
    postalCode: str | None = None  # noqa: N815
    state: str | None = None
    stateCode: str | None = None  # noqa: N815
    street: str | None = None


NO_ADDRESS = Address()
JSON_ENCODER = msgspec.json.Encoder(decimal_format="number")

# What a value of each kind is after JSON decoding; moments stay text until they are a column.
DECODED_TYPES: dict[Kind, Any] = {
    Kind.ID: str | None,
    Kind.TEXT: str | None,
    Kind.BOOLEAN: bool | None,
    Kind.TIMESTAMP: str | None,
    Kind.ADDRESS: Address | None,
}


class Column(NamedTuple):
    """One column, and the faults in it as (row, reason)."""

    array: pa.Array
    faults: list[tuple[int, str]]


def complete_id(salesforce_id: str) -> str:
    """Return the 18-character form of an id of 15 or 18; raises `ValueError` when it is neither.

    Each of the three last characters tells which of five letters are upper case, so that the id survives
    programs that do not tell cases apart. A wrong one means that the id was damaged on its way.
    """
    if not _ID.fullmatch(salesforce_id):
        raise ValueError("is not an id of 15 or 18 characters")
    suffix = "".join(
        _SUFFIX_LETTERS[sum(1 << place for place in range(5) if salesforce_id[start + place].isupper())]
        for start in (0, 5, 10)
    )
    if salesforce_id[15:] not in ("", suffix):
        raise ValueError("is an id with wrong check characters")
    return salesforce_id[:15] + suffix


def to_column(field: UserField, values: Sequence[Any]) -> Column:
    """Return the values of `field` (of `DECODED_TYPES`) as a column of `arrow_schema()`, with its faults."""
    match field.kind:
        case Kind.ID:
            column = _ids(values)
        case Kind.TEXT:
            column = _texts(values, field.max_length)
        case Kind.TIMESTAMP:
            column = _moments(values)
        case Kind.ADDRESS:
            column = _addresses(values)
        case Kind.BOOLEAN:
            column = _flags(values)
    if field.required and column.array.null_count:
        known = {row for row, _ in column.faults}
        missing = [row for row in _true_rows(column.array.is_null()) if row not in known]
        column.faults.extend((row, "is missing") for row in missing)
    return column


def _texts(values: Sequence[str | None], max_length: int | None) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(values, pa.string())
    if max_length is None:
        return Column(texts, [])
    lengths = pc.utf8_length(texts)
    if (pc.max(lengths).as_py() or 0) <= max_length:
        return Column(texts, [])
    reason = f"is longer than {max_length} characters"
    return Column(texts, [(row, reason) for row in _true_rows(pc.greater(lengths, max_length))])


def _flags(values: Sequence[bool | None]) -> Column:
    import pyarrow as pa

    return Column(pa.array(values, pa.bool_()), [])


def _moments(values: Sequence[str | None]) -> Column:
    import pyarrow as pa

    moment = arrow_schema().field("system_modstamp").type
    try:
        return Column(pa.array(values, pa.string()).cast(moment), [])
    except pa.ArrowInvalid:
        pass
    good: list[Any] = []
    faults: list[tuple[int, str]] = []
    for row, value in enumerate(values):
        try:
            good.append(pa.scalar(value, pa.string()).cast(moment))
        except pa.ArrowInvalid:
            good.append(None)
            faults.append((row, "is not a moment with its zone"))
    return Column(pa.array(good, moment), faults)


def _addresses(values: Sequence[Address | None]) -> Column:
    import pyarrow as pa

    texts = [None if value is None or value == NO_ADDRESS else JSON_ENCODER.encode(value) for value in values]
    return Column(pa.array(texts, pa.string()), [])


def _ids(values: Sequence[str | None]) -> Column:
    import pyarrow as pa

    ids = pa.array(values, pa.string())
    if _all_complete(ids):
        return Column(ids, [])
    good: list[str | None] = []
    faults: list[tuple[int, str]] = []
    for row, value in enumerate(values):
        try:
            good.append(None if value is None else complete_id(value))
        except ValueError as fault:
            good.append(None)
            faults.append((row, str(fault)))
    return Column(pa.array(good, pa.string()), faults)


def _all_complete(ids: pa.Array) -> bool:
    """Tell whether all ids that are not null are right and of 18 characters: `complete_id` for a whole column."""
    import numpy as np
    import pyarrow.compute as pc

    present = ids.drop_null()
    lengths = pc.min_max(pc.binary_length(present)).as_py()
    if lengths != {"min": 18, "max": 18}:
        return len(present) == 0
    letters = np.frombuffer(present.buffers()[2], np.uint8, len(present) * 18).reshape(-1, 18)
    upper = (letters >= ord("A")) & (letters <= ord("Z"))
    lower = (letters >= ord("a")) & (letters <= ord("z"))
    digit = (letters >= ord("0")) & (letters <= ord("9"))
    sums = upper[:, :15].reshape(-1, 3, 5) @ np.array([1, 2, 4, 8, 16], np.uint8)
    suffixes = np.frombuffer(_SUFFIX_LETTERS.encode(), np.uint8)[sums]
    return bool((upper | lower | digit).all() and (letters[:, 15:] == suffixes).all())


def _true_rows(mask: pa.Array) -> list[int]:
    import pyarrow.compute as pc

    rows: list[int] = pc.indices_nonzero(mask).to_pylist()
    return rows
