"""From the bytes of one page of users to one Arrow batch, losing no good row to a bad one.

What belongs here: decoding pages, cleaning text that Postgres cannot hold, leaving out rows that cannot be stored.
What does not: the rules of single values (`columns.py`), requests (`rest.py`).

Pages are decoded at once into typed rows, and those into columns. Only where that fails, or where a NUL character
hides in a text, the page is taken again value by value, which is slower and says what was wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.salesforce.columns import (
    DECODED_TYPES,
    JSON_ENCODER,
    Column,
    complete_id,
    to_column,
    to_columns,
)
from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_FIELDS, Kind, UserField, arrow_schema
from user_sync_pipeline.core.salesforce.selection import FieldSelection

if TYPE_CHECKING:
    import pyarrow as pa

_ESCAPED_NUL = re.compile(rb"\\u0000")
_JSON_COLUMNS = {CUSTOM_FIELDS_COLUMN, *(field.column for field in USER_FIELDS if field.kind is Kind.ADDRESS)}
# NUL, which no text in Postgres may hold, and halves of characters, which are no characters.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_JSON_NULL = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class UserPage:
    """One page of users.

    `batch` has `fields.arrow_schema()`. `fetched` counts the records of this page, stored or not; `total` those
    that the query matched in all. `rejected` holds one note for each row left out (`row_stored=False`), and one
    for each value that was cleaned in a row that is there.
    """

    batch: pa.RecordBatch
    fetched: int
    total: int
    rejected: tuple[RejectedValue, ...] = ()


class _Envelope(msgspec.Struct):
    done: bool
    totalSize: int  # noqa: N815
    nextRecordsUrl: str | None = None  # noqa: N815


class _PlainPage(msgspec.Struct):
    totalSize: int  # noqa: N815
    records: list[dict[str, Any]]


_T = TypeVar("_T")


def read_envelope(body: bytes) -> tuple[int, str | None]:
    """Return the number of records that a query matched, and the address of its next page (None: the last).

    Raises `UnreachableError` when the answer is no page.
    """
    # It stands before the records in what Salesforce writes, so that they need not be read for it.
    for text in (body[: body.find(b',"records":[')] + b"}", body):
        try:
            envelope = msgspec.json.decode(text, type=_Envelope)
        except ValueError:
            continue
        if envelope.done or envelope.nextRecordsUrl:
            break
    else:
        envelope = _parse_as(body, _Envelope)
    if not envelope.done and not envelope.nextRecordsUrl:
        raise _not_a_page()
    return envelope.totalSize, None if envelope.done else envelope.nextRecordsUrl


class PageDecoder:
    """Decodes pages of the fields of one selection."""

    def __init__(self, selection: FieldSelection) -> None:
        self._fields = selection.fields
        self._extra = selection.extra
        types = [DECODED_TYPES[field.kind] for field in self._fields] + [msgspec.Raw] * len(self._extra)
        self._types = dict(zip(selection.soql_names, types, strict=True))
        # A row begins with its plain values; those that are JSON in Postgres stand behind them.
        self._plain = [field for field in self._fields if field.kind is not Kind.ADDRESS]
        self._addresses = [field for field in self._fields if field.kind is Kind.ADDRESS]
        names = [field.name for field in (*self._plain, *self._addresses)]
        self._row = msgspec.defstruct(
            "UserRow",
            [
                *((name, self._types[name], None) for name in names),
                *((name, msgspec.Raw, _JSON_NULL) for name in self._extra),
            ],
            gc=False,
        )
        page = msgspec.defstruct("UserRecords", [("totalSize", int), ("records", list[self._row])])  # type: ignore[name-defined]
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(page)

    def decode(self, body: bytes) -> UserPage:
        """Return the users of one page; raises `UnreachableError` when the answer is no page."""
        try:
            page = self._decoder.decode(body)
            columns = self._to_columns(page.records)
        except ValueError:
            return self._decode_carefully(body)
        if any(_ESCAPED_NUL.search(columns[name].array.buffers()[2]) for name in _JSON_COLUMNS & columns.keys()):
            return self._decode_carefully(body)
        return self.build(columns, len(page.records), page.totalSize)

    def _decode_carefully(self, body: bytes) -> UserPage:
        page = _parse_as(body, _PlainPage)
        return self.decode_records(page.records, page.totalSize)

    def decode_records(self, records: Sequence[dict[str, Any]], total: int) -> UserPage:
        """Return records as a page, value by value: what is broken is cleaned or left out, with a note."""
        rows: list[msgspec.Struct] = []
        notes: list[list[RejectedValue]] = []
        lost: list[RejectedValue] = []
        for record in records:
            values, of_row = self._clean_record(record)
            try:
                rows.append(msgspec.convert(values, self._row))
                notes.append(of_row)
            except msgspec.ValidationError:
                lost.append(self._first_of_another_type(values))
        return self.build(self._to_columns(rows), len(rows), total, notes, lost)

    def _clean_record(self, record: dict[str, Any]) -> tuple[dict[str, Any], list[RejectedValue]]:
        values: dict[str, Any] = {}
        notes: list[RejectedValue] = []
        for name, type_ in self._types.items():
            value, change = _clean(record.get(name))
            values[name] = msgspec.Raw(JSON_ENCODER.encode(value)) if type_ is msgspec.Raw else value
            if change:
                notes.append(RejectedValue(_readable_id(record.get("Id")), name, change, row_stored=True))
        return values, notes

    def _first_of_another_type(self, values: dict[str, Any]) -> RejectedValue:
        for name, type_ in self._types.items():
            try:
                msgspec.convert(values[name], type_)
            except msgspec.ValidationError:
                break
        return RejectedValue(_readable_id(values["Id"]), name, "is of another type", row_stored=False)

    def build(
        self,
        columns: dict[str, Column],
        rows: int,
        total: int,
        notes: Sequence[list[RejectedValue]] = (),
        lost: Sequence[RejectedValue] = (),
    ) -> UserPage:
        """Put columns into a batch; `notes` has one list a row or is empty, `lost` are rows left out before."""
        import pyarrow as pa

        first_faults: dict[int, tuple[UserField, str]] = {}
        for field in self._fields:
            for place, reason in columns[field.column].faults:
                first_faults.setdefault(place, (field, reason))
        arrays = {name: column.array for name, column in columns.items()}
        schema = arrow_schema()
        batch = pa.RecordBatch.from_arrays(
            [arrays[part.name] if part.name in arrays else pa.nulls(rows, part.type) for part in schema],
            schema=schema,
        )
        rejected = [*lost]
        for place, (field, reason) in sorted(first_faults.items(), key=lambda fault: fault[0]):
            salesforce_id = arrays["id"][place].as_py()
            rejected.append(RejectedValue(salesforce_id, field.name, reason, row_stored=False))
        rejected.extend(note for place, of_row in enumerate(notes) if place not in first_faults for note in of_row)
        if first_faults:
            batch = batch.filter(pa.array([place not in first_faults for place in range(rows)]))
        return UserPage(batch, rows + len(lost), total, tuple(rejected))

    def _to_columns(self, rows: list[msgspec.Struct]) -> dict[str, Column]:
        width = len(self._plain)
        plain = to_columns(self._plain, [msgspec.structs.astuple(row)[:width] for row in rows])
        columns = {field.column: column for field, column in zip(self._plain, plain, strict=True)}
        for field in self._addresses:
            columns[field.column] = to_column(field, [getattr(row, field.name) for row in rows])
        if self._extra:
            columns[CUSTOM_FIELDS_COLUMN] = self._custom_fields(rows)
        return columns

    def _custom_fields(self, rows: list[msgspec.Struct]) -> Column:
        """Return one JSON object a row, with the values as Salesforce wrote them."""
        import pyarrow as pa

        template = b"{" + b",".join(b'"%s":%%b' % name.encode() for name in self._extra) + b"}"
        texts = [template % tuple(bytes(getattr(row, name)) for name in self._extra) for row in rows]
        return Column(pa.array(texts, pa.string()), [])


def _parse_as(body: bytes, type_: type[_T]) -> _T:
    """Parse JSON with broken characters in it; bytes that are not UTF-8 become broken characters too."""
    try:
        text = body.decode("utf-8", "surrogateescape")
        return msgspec.convert(json.loads(text, strict=False, parse_float=Decimal), type_)
    except ValueError:
        raise _not_a_page() from None


def _clean(value: Any) -> tuple[Any, str]:
    """Return a JSON value without characters that Postgres cannot hold, and what was changed ("": nothing)."""
    if isinstance(value, str):
        if not _UNSTORABLE.search(value):
            return value, ""
        nuls = value.count("\x00")
        cleaned, halves = _UNSTORABLE.subn("\ufffd", value.replace("\x00", ""))
        changes = [f"{nuls} NUL removed"] if nuls else []
        changes += [f"{halves} broken characters replaced by U+FFFD"] if halves else []
        return cleaned, ", ".join(changes)
    if isinstance(value, dict):
        parts = {key: _clean(part) for key, part in value.items()}
        changes = [f"{change} in {key}" for key, (_, change) in parts.items() if change]
        return {key: part for key, (part, _) in parts.items()}, ", ".join(changes)
    return value, ""


def _readable_id(value: Any) -> str | None:
    try:
        return complete_id(value)
    except (TypeError, ValueError):
        return None


def _not_a_page() -> UnreachableError:
    return UnreachableError("Salesforce answered a query with something that is not a page of records; run again.")
