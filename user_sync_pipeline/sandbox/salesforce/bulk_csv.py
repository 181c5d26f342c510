"""Results of Bulk 2.0 queries: records as CSV.

What belongs here: the header line, quoting, and how each type is written: booleans in lower case, moments with `Z`,
null and the empty text alike. What does not: pages and jobs (`bulk.py`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from user_sync_pipeline.sandbox.salesforce.access import Found
from user_sync_pipeline.sandbox.salesforce.records import values_getter
from user_sync_pipeline.sandbox.salesforce.soql import Query
from user_sync_pipeline.sandbox.salesforce.users import Record

DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}


class CsvFormat(msgspec.Struct, frozen=True):
    """How a job wants its results, by Salesforce's names; raises `ValueError` for a name that it has not."""

    delimiter: str = "COMMA"
    line_ending: str = "LF"

    def __post_init__(self) -> None:
        if self.delimiter not in DELIMITERS:
            raise ValueError(f"columnDelimiter must be one of {', '.join(DELIMITERS)}")
        if self.line_ending not in LINE_ENDINGS:
            raise ValueError(f"lineEnding must be one of {', '.join(LINE_ENDINGS)}")


class CsvWriter:
    """Writes records with the columns of a query; every value is quoted, and moments end in Z unless told otherwise."""

    def __init__(
        self, query: Query, columns: Sequence[Found], csv_format: CsvFormat, *, moments_end_in_z: bool = True
    ) -> None:
        self._header = [".".join([*_relationships(column), column.field.name]) for column in columns]
        self._columns = columns
        self._format = csv_format
        self._formatters = {
            place: format_value
            for place, column in enumerate(columns)
            if (format_value := _FORMATS.get(column.field.type)) is not None
            and (moments_end_in_z or column.field.type != "datetime")
        }
        # Most queries have only fields of the object itself, which can be read in one go.
        self._values = None
        if not any(column.parents or column.field.convert for column in columns):
            self._values = values_getter([column.field.path for column in columns])
            self._places = {column.field.name: place for place, column in enumerate(columns)}

    def write(self, records: Iterable[Record]) -> bytes:
        """Return a page: the header line, then a line a record."""
        page = io.StringIO()
        writer = csv.writer(
            page,
            delimiter=DELIMITERS[self._format.delimiter],
            lineterminator=LINE_ENDINGS[self._format.line_ending],
            quoting=csv.QUOTE_ALL,
        )
        writer.writerow(self._header)
        writer.writerows(map(self._row, records))
        return page.getvalue().encode()

    def _row(self, record: Record) -> list[Any]:
        if self._values is None:
            row = [column.read(record) for column in self._columns]
        else:
            row = list(self._values(record))
            for name, value in (record.changes or {}).items():
                if name in self._places:
                    row[self._places[name]] = value
        for place, format_value in self._formatters.items():
            if row[place] is not None:
                row[place] = format_value(row[place])
        return row


def _relationships(column: Found) -> list[str]:
    return [str(parent.relationship) for parent in column.parents]


def _moment(wire_time: str) -> str:
    return wire_time.replace("+0000", "Z")


_FORMATS: dict[str, Callable[[Any], str]] = {
    "boolean": lambda value: "true" if value else "false",
    "datetime": _moment,
}
