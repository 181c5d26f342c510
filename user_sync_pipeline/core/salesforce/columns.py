"""From decoded values to Arrow columns, with what does not fit.

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


JSON_ENCODER = msgspec.json.Encoder(decimal_format="number")
_NO_ADDRESS_TEXTS = (b"null", JSON_ENCODER.encode(Address()))

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


def to_columns(fields: Sequence[UserField], rows: Sequence[tuple[Any, ...]]) -> list[Column]:
    """Return a column for each of `fields`, none of them an address; `rows` have one value a field.

    All rows go to Arrow in one call, and all ids are checked in one, which takes less time than a call a column.
    Raises `ValueError` when a text holds NUL.
    """
    import pyarrow as pa

    types = {field.column: pa.bool_() if field.kind is Kind.BOOLEAN else pa.string() for field in fields}
    arrays = pa.array(rows, pa.struct(types.items())).flatten()
    if any(b"\x00" in array.buffers()[2].to_pybytes() for array in arrays if array.type == pa.string()):
        raise ValueError("A text holds NUL.")
    return check_columns(fields, arrays)


def check_columns(fields: Sequence[UserField], arrays: Sequence[pa.Array]) -> list[Column]:
    """Return a column for each of `fields`, from arrays of text or flags without NUL; none of them is an address."""
    import pyarrow as pa

    ids = [array for field, array in zip(fields, arrays, strict=True) if field.kind is Kind.ID]
    ids_are_complete = not ids or _all_complete(pa.concat_arrays(ids))
    return [_to_column(field, array, ids_are_complete) for field, array in zip(fields, arrays, strict=True)]


def to_column(field: UserField, values: Sequence[Any]) -> Column:
    """Return the values of `field` (of `DECODED_TYPES`) as a column of `arrow_schema()`, with its faults."""
    if field.kind is Kind.ADDRESS:
        return Column(_addresses(values), [])
    return to_columns([field], [(value,) for value in values])[0]


def _to_column(field: UserField, values: pa.Array, ids_are_complete: bool) -> Column:
    match field.kind:
        case Kind.ID if not ids_are_complete:
            column = _ids(values)
        case Kind.TIMESTAMP:
            column = _moments(values)
        case _:
            column = Column(values, _too_long(values, field.max_length) if field.max_length else [])
    if field.required and column.array.null_count:
        known = {row for row, _ in column.faults}
        missing = [row for row in _true_rows(column.array.is_null()) if row not in known]
        column.faults.extend((row, "is missing") for row in missing)
    return column


def _too_long(texts: pa.Array, max_length: int) -> list[tuple[int, str]]:
    import numpy as np
    import pyarrow.compute as pc

    # No text has more characters than bytes, and where its bytes end is known without reading it.
    ends = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1)
    if np.diff(ends).max(initial=0) <= max_length:
        return []
    reason = f"is longer than {max_length} characters"
    return [(row, reason) for row in _true_rows(pc.greater(pc.utf8_length(texts), max_length))]


def _moments(texts: pa.Array) -> Column:
    import pyarrow as pa

    moment = arrow_schema().field("system_modstamp").type
    try:
        return Column(texts.cast(moment), [])
    except pa.ArrowInvalid:
        pass
    good: list[Any] = []
    faults: list[tuple[int, str]] = []
    for row, text in enumerate(texts):
        try:
            good.append(text.cast(moment))
        except pa.ArrowInvalid:
            good.append(None)
            faults.append((row, "is not a moment with its zone"))
    return Column(pa.array(good, moment), faults)


def _addresses(values: Sequence[Address | None]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    lines = pa.array([JSON_ENCODER.encode_lines(values)], pa.string())
    texts = pc.split_pattern(lines, "\n").values[:-1]
    return pc.if_else(pc.is_in(texts, pa.array(_NO_ADDRESS_TEXTS, pa.string())), None, texts)


def _ids(ids: pa.Array) -> Column:
    import pyarrow as pa

    if _all_complete(ids):
        return Column(ids, [])
    good: list[str | None] = []
    faults: list[tuple[int, str]] = []
    for row, value in enumerate(ids.to_pylist()):
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

    different = ids.unique().drop_null()
    if pc.min_max(pc.binary_length(different)).as_py() != {"min": 18, "max": 18}:
        return len(different) == 0
    # One row for each of the 18 places: numpy is quick along rows.
    places = np.frombuffer(different.buffers()[2], np.uint8, len(different) * 18).reshape(-1, 18).T.copy()
    upper = (places >= ord("A")) & (places <= ord("Z"))
    lower = (places >= ord("a")) & (places <= ord("z"))
    digit = (places >= ord("0")) & (places <= ord("9"))
    letters = upper[:15].view(np.uint8).reshape(3, 5, -1)
    sums = sum(letters[:, place] << place for place in range(5))
    suffixes = np.frombuffer(_SUFFIX_LETTERS.encode(), np.uint8)[sums]
    return bool((upper | lower | digit).all() and (places[15:] == suffixes).all())


def _true_rows(mask: pa.Array) -> list[int]:
    import pyarrow.compute as pc

    rows: list[int] = pc.indices_nonzero(mask).to_pylist()
    return rows
