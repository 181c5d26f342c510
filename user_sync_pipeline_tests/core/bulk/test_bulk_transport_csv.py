"""CSV pages of Bulk become the same batches, with the same notes, as JSON pages of REST with the same users."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_sync_pipeline.core.salesforce.bulk_csv import BLOCK_BYTES, BrokenCsvError, CsvDecoder, NotInBulkError
from user_sync_pipeline.core.salesforce.columns import complete_id
from user_sync_pipeline.core.salesforce.fields import ADDRESS_CODES, ADDRESS_PARTS, USER_FIELDS, Kind
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage
from user_sync_pipeline.core.salesforce.selection import FieldSelection, select_fields

DESCRIBE_TYPES = {
    Kind.ID: "reference",
    Kind.TEXT: "string",
    Kind.BOOLEAN: "boolean",
    Kind.TIMESTAMP: "datetime",
    Kind.ADDRESS: "address",
}
EXTRA = {
    "Word__c": "textarea",
    "Number__c": "double",
    "Price__c": "currency",
    "Flag__c": "boolean",
    "Day__c": "date",
    "Moment__c": "datetime",
}
PART_FIELDS = {part: part[0].upper() + part[1:] for part in ADDRESS_PARTS}

# Salesforce stores no empty text: it is null.
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
numbers = st.none() | st.floats(-1e6, 1e6) | st.integers(-(10**20), 10**20) | st.just(1e22)
moments = st.datetimes(datetime(1900, 1, 1)).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000")
flags = st.booleans()


def describe(*, codes: bool, extra: dict[str, str]) -> bytes:
    fields = {field.name: DESCRIBE_TYPES[field.kind] for field in USER_FIELDS} | extra
    parts = {name: "string" for part, name in PART_FIELDS.items() if codes or part not in ADDRESS_CODES}
    return json.dumps({"fields": [{"name": name, "type": type_} for name, type_ in (fields | parts).items()]}).encode()


def selection(*, codes: bool = True, extra: dict[str, str] = EXTRA) -> FieldSelection:
    return select_fields(describe(codes=codes, extra=extra), tuple(extra))


def values_of(kind: Kind | str) -> st.SearchStrategy[Any]:
    match kind:
        case Kind.ID:
            return st.text("aZ09", min_size=15, max_size=15).map(complete_id)
        case "boolean":
            return flags
        case "timestamp" | "datetime":
            return moments
        case "date":
            return st.none() | st.dates().map(str)
        case "double" | "currency":
            return numbers
        case _:
            return texts


def users(*, codes: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Users as REST shows them."""
    fields = {field.name: values_of(field.kind) for field in USER_FIELDS if field.kind is not Kind.ADDRESS}
    fields |= {name: values_of(type_) for name, type_ in EXTRA.items()}
    parts = {
        part: numbers if part in ("latitude", "longitude") else texts
        for part in ADDRESS_PARTS
        if codes or part not in ADDRESS_CODES
    }
    return st.fixed_dictionaries(fields | {"Address": st.none() | st.fixed_dictionaries(parts)})


def as_json(records: list[dict[str, Any]]) -> bytes:
    page = {"totalSize": len(records), "done": True, "records": [{"attributes": {}} | each for each in records]}
    return json.dumps(page).encode()


def as_csv(names: tuple[str, ...], records: list[dict[str, Any]]) -> bytes:
    """Write users as Salesforce does."""

    def text(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return "" if value is None else str(value).lower()
        return str(value)

    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for record in records:
        address = record.get("Address") or {}
        values = record | {PART_FIELDS[part]: value for part, value in address.items()}
        moments = [name for name in names if name.endswith(("Date", "Modstamp", "Moment__c"))]
        values |= {name: values[name].replace("+0000", "Z") for name in moments if values.get(name)}
        writer.writerow([text(values.get(name)) for name in names])
    return page.getvalue().encode()


def stored(page: UserPage) -> list[dict[str, Any]]:
    """Return the rows as Postgres sees them: escapes in JSON are no difference, digits of a number are."""
    rows: list[dict[str, Any]] = page.batch.to_pylist()
    for row in rows:
        for column in ("address", "custom_fields"):
            row[column] = row[column] and json.loads(row[column], parse_float=str, parse_int=str)
    return rows


@pytest.mark.slow
@settings(deadline=None)
@given(st.booleans().flatmap(lambda codes: st.tuples(st.just(codes), st.lists(users(codes=codes), max_size=4))))
def test_gotcha_24_a_page_of_csv_becomes_what_the_same_page_of_json_becomes(
    case: tuple[bool, list[dict[str, Any]]],
) -> None:
    codes, records = case
    fields = selection(codes=codes)
    decoder = CsvDecoder(fields)
    by_rest = PageDecoder(fields).decode(as_json(records))

    page = decoder.read(as_csv(decoder.names, records))
    by_bulk = [*decoder.pages(page, len(records))]

    assert page.rows == len(records)
    assert [row for part in by_bulk for row in stored(part)] == stored(by_rest)
    assert [note for part in by_bulk for note in part.rejected] == [*by_rest.rejected]
    assert sum(part.fetched for part in by_bulk) == by_rest.fetched


PERSON: dict[str, Any] = {
    **{"Id": "0055g000001AbCdAAK", "Username": "ann@example.com", "IsActive": True},
    **{"CreatedDate": "2026-01-01T00:00:00.000+0000", "SystemModstamp": "2026-01-02T00:00:00.000+0000"},
}


def test_moments_may_end_in_either_way() -> None:
    decoder = CsvDecoder(selection())
    body = as_csv(decoder.names, [PERSON | {"Moment__c": "2026-01-02T00:00:00.000+0000"}])
    pages = [[*decoder.pages(decoder.read(each), 1)] for each in (body, body.replace(b".000Z", b".000+0000"))]
    assert pages[0][0].batch.equals(pages[1][0].batch)
    assert '"Moment__c":"2026-01-02T00:00:00.000+0000"' in pages[0][0].batch.column("custom_fields")[0].as_py()


@pytest.mark.slow
def test_a_user_with_very_long_texts_is_read_as_well() -> None:
    decoder = CsvDecoder(selection())
    text = "a,b\n" * BLOCK_BYTES
    page = decoder.read(gzip.compress(as_csv(decoder.names, [PERSON, PERSON | {"Word__c": text}])), is_gzip=True)
    found = [row for part in decoder.pages(page, 2) for row in stored(part)]
    assert page.rows == len(found) == 2
    assert found[1]["custom_fields"]["Word__c"] == text


@pytest.mark.parametrize(
    ("bytes_", "reason"),
    [
        (b"\xff\xfe", "2 broken characters replaced by U+FFFD"),
        ("\ud83d".encode("utf-8", "surrogatepass"), "1 broken characters replaced by U+FFFD"),
        (b"\x00", "1 NUL removed"),
    ],
)
def test_what_is_broken_in_a_value_is_cleaned_and_noted(bytes_: bytes, reason: str) -> None:
    decoder = CsvDecoder(selection())
    body = as_csv(decoder.names, [PERSON | {"Title": "(here)", "Address": {"city": "Lyon"}}])
    [page] = decoder.pages(decoder.read(body.replace(b"(here)", b"(" + bytes_ + b")")), 1)
    assert page.batch.num_rows == 1
    assert json.loads(page.batch.column("address")[0].as_py())["city"] == "Lyon"
    [note] = page.rejected
    assert (note.salesforce_id, note.field, note.reason, note.row_stored) == (PERSON["Id"], "Title", reason, True)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [("IsActive", True, "perhaps"), ("Latitude", None, "north"), ("SystemModstamp", None, "yesterday")],
)
def test_a_value_of_another_type_loses_its_row_and_no_other(name: str, value: Any, wrong: str) -> None:
    decoder = CsvDecoder(selection())
    rows = list(csv.reader(io.StringIO(as_csv(decoder.names, [PERSON, PERSON]).decode())))
    rows[1][decoder.names.index(name)] = wrong
    page = io.StringIO()
    csv.writer(page, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    [decoded] = decoder.pages(decoder.read(page.getvalue().encode()), 2)
    assert (decoded.batch.num_rows, decoded.fetched) == (1, 2)
    assert [note.row_stored for note in decoded.rejected] == [False]


@pytest.mark.slow
def test_a_page_that_ends_anywhere_else_is_not_taken_for_whole() -> None:
    decoder = CsvDecoder(selection())
    body = as_csv(decoder.names, [PERSON | {"Title": "a,b\r\nc"}] * 3)
    for end in range(len(body) - 1):
        try:
            assert decoder.read(body[:end]).rows < 3
        except BrokenCsvError:
            continue


@pytest.mark.parametrize("body", [b"", b"\n", b"<html>\n", b'"Id"\n', b'"Id","Id"\n'])
def test_an_answer_that_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenCsvError):
        CsvDecoder(selection()).read(body)


def test_gotcha_21_fields_are_asked_for_once_and_address_by_its_parts() -> None:
    names = CsvDecoder(selection(extra={"City": "string"})).names
    assert len(set(names)) == len(names)
    assert "Address" not in names
    assert set(PART_FIELDS.values()) <= set(names)


def test_a_compound_extra_field_is_not_for_bulk() -> None:
    with pytest.raises(NotInBulkError, match="Office__c"):
        CsvDecoder(selection(extra={"Office__c": "location"}))
