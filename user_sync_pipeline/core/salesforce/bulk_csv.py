"""From one page of a Bulk job's CSV to the same batches that REST's pages become.

What belongs here: reading CSV, and giving back what it has lost: types, null, and the compound Address.
What does not: what becomes of a value then (`columns.py`, `records.py`), and where pages come from (`bulk.py`).

An empty value is null: CSV cannot tell it from an empty text, and Salesforce stores none. No other word means null.
Pages are decoded column by column; only a block with a NUL, broken characters or a value of another type is taken
again record by record, as if REST had sent it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import repeat
from typing import TYPE_CHECKING, Any

from user_sync_pipeline.core.salesforce.columns import JSON_ENCODER, Address, Column, check_columns, to_column
from user_sync_pipeline.core.salesforce.fields import ADDRESS_CODES, ADDRESS_PARTS, CUSTOM_FIELDS_COLUMN, Kind
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage
from user_sync_pipeline.core.salesforce.selection import FieldSelection

if TYPE_CHECKING:
    import pyarrow as pa

# A block becomes a batch: about as many users as a page of REST. A single user with long texts may take more.
BLOCK_BYTES, LARGEST_BLOCK_BYTES = 1 << 21, 1 << 24
_COORDINATES = ("latitude", "longitude")
_COMPOUND_TYPES = frozenset({"address", "location"})
_NUMBER_TYPES = frozenset({"int", "long", "double", "currency", "percent"})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_FLAGS = {"true": True, "false": False}


class NotInBulkError(Exception):
    """These fields cannot be read by Bulk; the text says why, to go on a sentence with."""


class BrokenCsvError(Exception):
    """The answer is not a whole page of the fields that were asked for."""


@dataclass(frozen=True, slots=True)
class CsvPage:
    """A whole page as it came, and how many records are in it: small as long as it is not unpacked."""

    body: bytes
    is_gzip: bool
    rows: int
    block_bytes: int


class _Unpacked:
    """The content of a page, which notes how many quotes went by, and which byte was the last.

    It is no stream of Arrow's own, because those are unpacked as a whole before their CSV is read.
    """

    closed = False

    def __init__(self, body: bytes, is_gzip: bool) -> None:
        import pyarrow as pa

        plain = pa.BufferReader(body)
        self._stream: pa.NativeFile = pa.CompressedInputStream(plain, "gzip") if is_gzip else plain
        self.quotes = 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data: bytes = self._stream.read(size)
        self.quotes += data.count(b'"')
        self.last = data[-1:] or self.last
        return data


class CsvDecoder:
    """Decodes CSV pages of the fields of one selection; `names` are the fields to ask for.

    Raises `NotInBulkError` when the selection holds what Bulk does not give.
    """

    def __init__(self, selection: FieldSelection) -> None:
        self._selection = selection
        self._pages = PageDecoder(selection)
        self._plain = [field for field in selection.fields if field.kind is not Kind.ADDRESS]
        self._addresses = [field for field in selection.fields if field.kind is Kind.ADDRESS]
        self._parts = dict(selection.address_parts) if self._addresses else {}
        missing = set(ADDRESS_PARTS) - ADDRESS_CODES - self._parts.keys()
        if self._addresses and missing:
            raise NotInBulkError(f"it cannot give the address without its parts ({', '.join(sorted(missing))})")
        for name, type_ in zip(selection.extra, selection.extra_types, strict=True):
            if type_ in _COMPOUND_TYPES:
                raise NotInBulkError(f"it cannot give the compound field {name} of SALESFORCE_EXTRA_FIELDS")
        plain = [field.name for field in self._plain]
        self.names = tuple(dict.fromkeys([*plain, *self._parts.values(), *selection.extra]))

    def read(self, body: bytes, *, is_gzip: bool = False) -> CsvPage:
        """Read through a page, and count its records.

        Raises `BrokenCsvError` for a page that was cut, or that holds other fields.
        """
        import pyarrow as pa

        for block_bytes in (BLOCK_BYTES, LARGEST_BLOCK_BYTES):
            content = _Unpacked(body, is_gzip)
            try:
                rows = sum(block.num_rows for block in self._blocks(content, block_bytes))
            except (pa.ArrowInvalid, OSError):
                continue
            # Every value is quoted, so a page that ends within a value ends within quotes.
            if content.last in (b"\n", b'"') and content.quotes % 2 == 0:
                return CsvPage(body, is_gzip, rows, block_bytes)
        raise BrokenCsvError

    def pages(self, page: CsvPage, total: int) -> Iterator[UserPage]:
        """Yield a page in batches; `total` is how many records the job has in all."""
        for block in self._blocks(_Unpacked(page.body, page.is_gzip), page.block_bytes):
            try:
                columns = self._to_columns(block)
            except ValueError:
                yield self._pages.decode_records([self._to_record(row) for row in block.to_pylist()], total)
            else:
                yield self._pages.build(columns, block.num_rows, total)

    def _blocks(self, content: _Unpacked, block_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield the values as they stand there, null where they are empty."""
        import pyarrow as pa
        from pyarrow import csv

        reader = csv.open_csv(
            content,
            read_options=csv.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.binary()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        if tuple(reader.schema.names) != self.names:
            raise BrokenCsvError
        yield from reader

    def _to_columns(self, block: pa.RecordBatch) -> dict[str, Column]:
        """Raises `ValueError` when a value needs to be looked at by itself."""
        import pyarrow as pa

        texts: dict[str, pa.Array] = {}
        for name, values in zip(self.names, block.columns, strict=True):
            content = values.buffers()[2]
            if content is not None and b"\x00" in content.to_pybytes():
                raise ValueError("A text holds NUL.")
            texts[name] = values.cast(pa.string())
        arrays = [
            texts[field.name].cast(pa.bool_()) if field.kind is Kind.BOOLEAN else texts[field.name]
            for field in self._plain
        ]
        found = check_columns(self._plain, arrays)
        columns = {field.column: column for field, column in zip(self._plain, found, strict=True)}
        for field in self._addresses:
            columns[field.column] = to_column(field, self._to_addresses(texts))
        if self._selection.extra:
            columns[CUSTOM_FIELDS_COLUMN] = self._to_custom_fields(texts)
        return columns

    def _to_addresses(self, texts: dict[str, pa.Array]) -> list[Address]:
        parts: list[Any] = []
        for part in ADDRESS_PARTS:
            values = texts[self._parts[part]].to_pylist() if part in self._parts else repeat(None)
            parts.append(map(_decimal, values) if part in _COORDINATES else values)
        return list(map(Address, *parts))

    def _to_custom_fields(self, texts: dict[str, pa.Array]) -> Column:
        """Return one JSON object a row, with the values as REST would write them."""
        import pyarrow as pa

        names, types = self._selection.extra, self._selection.extra_types
        template = b"{" + b",".join(b'"%s":%%b' % name.encode() for name in names) + b"}"
        columns = [map(_json_writer(type_), texts[name].to_pylist()) for name, type_ in zip(names, types, strict=True)]
        return Column(pa.array([template % row for row in zip(*columns, strict=True)], pa.string()), [])

    def _to_record(self, row: dict[str, bytes | None]) -> dict[str, Any]:
        """Return a row as REST's JSON would be read, with all that is broken in it."""
        texts = {name: None if value is None else _decode(value) for name, value in row.items()}
        record: dict[str, Any] = {
            name: _typed(texts[name], type_)
            for name, type_ in zip(self._selection.extra, self._selection.extra_types, strict=True)
        }
        for field in self._plain:
            record[field.name] = _typed(texts[field.name], field.kind)
        for field in self._addresses:
            record[field.name] = {
                part: _typed(texts[name], "double" if part in _COORDINATES else "string")
                for part, name in self._parts.items()
            }
        return record


def _decimal(text: str | None) -> Decimal | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError("This is no number.")
    return Decimal(text)


def _json_writer(describe_type: str) -> Callable[[str | None], bytes]:
    """Return what writes values of a type as REST does; it raises `ValueError` for a value that is of another."""

    def number(text: str | None) -> bytes:
        if text is None:
            return b"null"
        if not _NUMBER.fullmatch(text):
            raise ValueError("This is no number.")
        return text.encode()  # not counted anew: it keeps its digits

    def value(text: str | None) -> bytes:
        return JSON_ENCODER.encode(_typed(text, describe_type))

    return number if describe_type in _NUMBER_TYPES else value


def _typed(text: str | None, type_: str) -> Any:
    """Return the value that JSON has for a text of CSV; one that does not fit its type stays a text."""
    if text is None:
        return None
    if type_ == "boolean":
        return _FLAGS.get(text, text)
    if type_ in _NUMBER_TYPES:
        return Decimal(text) if _NUMBER.fullmatch(text) else text
    if type_ == "datetime" and text.endswith("Z"):
        return f"{text[:-1]}+0000"
    return text


def _decode(value: bytes) -> str:
    """Return a text in which halves of characters, and bytes that are none, stand as such."""
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")
