"""A page becomes a batch: every good row arrives as Salesforce sent it, every bad one leaves a note."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.rejects import RejectedValue
from user_sync_pipeline.core.salesforce.columns import complete_id, to_column
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS, Kind, arrow_schema
from user_sync_pipeline.core.salesforce.records import PageDecoder, UserPage, read_envelope
from user_sync_pipeline.core.salesforce.selection import FieldSelection

FIELDS = {field.name: field for field in USER_FIELDS}
EVERYTHING = FieldSelection(USER_FIELDS)
WITH_EXTRA = FieldSelection(USER_FIELDS, ("Region__c", "Score__c"))
STAMP = "2026-01-01T00:00:00.000+0000"
ADDRESS_KEYS = [
    *("city", "country", "countryCode", "geocodeAccuracy", "latitude", "longitude"),
    *("postalCode", "state", "stateCode", "street"),
]


def user_id(number: int) -> str:
    return complete_id(f"0055g00000A{number:04d}")


def record(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A record as Salesforce sends it, every field filled."""
    values: dict[Kind, Any] = {Kind.ID: user_id(9), Kind.TEXT: "text", Kind.BOOLEAN: True, Kind.TIMESTAMP: STAMP}
    fields = {field.name: values.get(field.kind) for field in USER_FIELDS}
    attributes = {"type": "User", "url": f"/services/data/v66.0/sobjects/User/{user_id(number)}"}
    return {"attributes": attributes, **fields, "Id": user_id(number), **changes}


def page(*records: dict[str, Any], **envelope: Any) -> bytes:
    return json.dumps({"totalSize": len(records), "done": True, "records": records, **envelope}).encode()


def decode(*records: dict[str, Any], selection: FieldSelection = EVERYTHING) -> UserPage:
    decoded = PageDecoder(selection).decode(page(*records))
    decoded.batch.validate(full=True)
    assert decoded.batch.schema == arrow_schema()
    assert decoded.fetched == len(records)
    assert decoded.batch.num_rows == decoded.fetched - sum(not note.row_stored for note in decoded.rejected)
    return decoded


def row(**changes: Any) -> dict[str, Any]:
    stored: list[dict[str, Any]] = decode(record(**changes)).batch.to_pylist()
    assert len(stored) == 1
    return stored[0]


def test_a_full_record_arrives_field_by_field() -> None:
    stored = row(
        Username="ann@example.com", IsActive=False, SystemModstamp="2026-01-02T03:04:05.678+0000", ManagerId=None
    )
    assert stored["id"] == user_id(1)
    assert stored["username"] == "ann@example.com"
    assert stored["is_active"] is False
    assert stored["manager_id"] is None
    assert stored["system_modstamp"] == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert stored["created_by_id"] == user_id(9)
    assert stored["custom_fields"] is None


def test_an_empty_page_gives_an_empty_batch() -> None:
    assert decode().batch.num_rows == 0


def test_a_hidden_field_is_a_null_column() -> None:
    selection = FieldSelection(tuple(field for field in USER_FIELDS if field.name != "Fax"))
    assert decode(record(Fax="never asked for"), selection=selection).batch["fax"].null_count == 1


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T23:59:59.999+0000", datetime(2024, 2, 29, 23, 59, 59, 999000, UTC)),
        ("2024-01-01T00:00:00.000Z", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T02:00:00.000+02:00", datetime(2024, 1, 1, tzinfo=UTC)),
        ("1700-01-01T00:00:00.000+0000", datetime(1700, 1, 1, tzinfo=UTC)),
    ],
)
def test_gotcha_14_both_forms_of_moments_are_read(text: str, moment: datetime) -> None:
    assert row(LastLoginDate=text)["last_login_date"] == moment


@given(st.datetimes(datetime(1700, 1, 1), datetime(4000, 1, 1)))
def test_a_moment_keeps_its_millisecond(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "+0000")
    assert to_column(FIELDS["SystemModstamp"], [text]).array[0].as_py() == moment


# Addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, {}, dict.fromkeys(ADDRESS_KEYS), {"city": None, "latitude": None}])
def test_no_address_and_an_empty_one_are_null(address: dict[str, None] | None) -> None:
    assert row(Address=address)["address"] is None


def test_a_partial_address_gets_its_missing_keys() -> None:
    stored = json.loads(row(Address={"city": "Lyon", "street": '1 rue "A"\r\nBât. 🏠'})["address"])
    assert list(stored) == ADDRESS_KEYS
    assert stored == dict.fromkeys(ADDRESS_KEYS) | {"city": "Lyon", "street": '1 rue "A"\r\nBât. 🏠'}


@pytest.mark.parametrize("latitude", ["45.123456789012345678", "-0.000000000000001", "45", "45.50"])
def test_coordinates_keep_every_digit(latitude: str) -> None:
    fast = page(record(Address={"latitude": 1.25})).replace(b"1.25", latitude.encode())
    careful = fast.replace(b'"text"', b'"te\\u0000xt"', 1)
    for body in (fast, careful):
        text = PageDecoder(EVERYTHING).decode(body).batch["address"][0].as_py()
        assert json.loads(text, parse_float=Decimal, parse_int=Decimal)["latitude"] == Decimal(latitude)


# Ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "full"), [("0055g000001AbCd", "0055g000001AbCdAAK"), ("00D5g0000SimOrg", "00D5g0000SimOrgEQE")]
)
def test_gotcha_19_a_short_id_gets_its_check_characters(short: str, full: str) -> None:
    assert complete_id(short) == full
    assert complete_id(full) == full
    assert row(Id=short)["id"] == full
    assert row(ManagerId=short)["manager_id"] == full


def test_a_short_id_in_one_column_leaves_the_others_as_they_are() -> None:
    decoded = decode(record(1), record(2, ManagerId="0055g000001AbCd"), record(3, ProfileId=None))
    assert decoded.batch["id"].to_pylist() == [user_id(1), user_id(2), user_id(3)]
    assert decoded.batch["manager_id"].to_pylist() == [user_id(9), "0055g000001AbCdAAK", user_id(9)]
    assert decoded.batch["profile_id"].to_pylist() == [user_id(9), user_id(9), None]


@pytest.mark.slow
@given(st.lists(st.text("ABMYZabmyz0189", min_size=15, max_size=15)), st.booleans())
def test_ids_of_a_column_are_checked_as_one_by_one(ids: list[str], complete: bool) -> None:
    values = [complete_id(short) if complete else short for short in ids]
    column = to_column(FIELDS["ManagerId"], [None, *values])
    assert column.array.to_pylist() == [None, *(complete_id(short) for short in ids)]
    assert column.faults == []


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "0055g000001AbC", "0055g000001AbCdAA", "0055g000001AbCdAAA", "0055g000001abcdAAK"),
        *("0055g000001AbCd_AK", "0055g000001AbCdAAKX", "0055g000001AbC\u00e9", " 0055g000001AbCdAA"),
    ],
)
def test_a_damaged_id_costs_its_row_only(wrong: str) -> None:
    decoded = decode(record(1), record(2, Id=wrong), record(3))
    assert decoded.batch["id"].to_pylist() == [user_id(1), user_id(3)]
    (note,) = decoded.rejected
    assert (note.salesforce_id, note.field, note.row_stored) == (None, "Id", False)


# Rows that cannot be stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Id", None),
        ("Id", 7),
        ("Username", None),
        ("Username", ["ann@example.com"]),
        ("Username", "x" * 81),
        ("Alias", "123456789"),
        ("Title", 7),
        ("IsActive", None),
        ("IsActive", "true"),
        ("SystemModstamp", None),
        ("SystemModstamp", ""),
        ("SystemModstamp", "yesterday"),
        ("SystemModstamp", "2026-01-01T00:00:00"),
        ("SystemModstamp", "2026-02-30T00:00:00.000+0000"),
        ("SystemModstamp", 1767225600),
        ("CreatedDate", None),
        ("LastLoginDate", "never"),
        ("ProfileId", "00e"),
        ("Address", "1 rue A, Lyon"),
        ("Address", {"city": 7}),
    ],
)
def test_a_row_that_cannot_be_stored_leaves_a_note_and_the_others_alone(field: str, value: Any) -> None:
    decoded = decode(record(1), record(2, **{field: value}), record(3))
    assert decoded.batch["id"].to_pylist() == [user_id(1), user_id(3)]
    (note,) = decoded.rejected
    assert (note.field, note.row_stored) == (field, False)
    assert note.salesforce_id == (None if field == "Id" else user_id(2))
    assert str(value) not in note.reason or value in (None, "", 7)


def test_a_missing_key_is_a_missing_value() -> None:
    without = record(2)
    del without["Username"]
    assert decode(record(1), without).rejected == (RejectedValue(user_id(2), "Username", "is missing", False),)


def test_a_row_with_several_faults_is_counted_once() -> None:
    decoded = decode(record(1, Username=None, IsActive=None, SystemModstamp="never"))
    assert len(decoded.rejected) == 1


def test_a_length_that_the_organisation_allows_is_stored() -> None:
    longer = tuple(replace(field, max_length=200) if field.name == "Alias" else field for field in USER_FIELDS)
    assert decode(record(Alias="x" * 200), selection=FieldSelection(longer)).batch["alias"][0].as_py() == "x" * 200


@pytest.mark.parametrize("letter", ["x", "é", "あ", "😀"])
def test_lengths_are_in_characters_and_not_in_bytes(letter: str) -> None:
    decoded = decode(record(1, Alias=letter * 8), record(2, Alias=letter * 9))
    assert decoded.batch["alias"].to_pylist() == [letter * 8]
    assert decoded.rejected == (RejectedValue(user_id(2), "Alias", "is longer than 8 characters", False),)


# Characters that Postgres cannot hold ---------------------------------------------------------------------------


def test_nul_is_removed_and_noted() -> None:
    decoded = decode(record(1, Title="a\0b\0"), record(2))
    assert decoded.batch["title"].to_pylist() == ["ab", "text"]
    assert decoded.rejected == (RejectedValue(user_id(1), "Title", "2 NUL removed", True),)


@pytest.mark.parametrize(
    ("field", "value"), [("Username", "ann@example.com"), ("ManagerId", user_id(3)), ("LastLoginDate", STAMP)]
)
def test_nul_is_removed_whatever_the_kind_of_field(field: str, value: str) -> None:
    decoded = decode(record(1, **{field: f"{value}\0"}), record(2, **{field: value}))
    first, second = decoded.batch[FIELDS[field].column].to_pylist()
    assert first == second is not None
    assert decoded.rejected == (RejectedValue(user_id(1), field, "1 NUL removed", True),)


def test_gotcha_23_half_a_character_is_replaced_and_noted() -> None:
    decoded = decode(record(1, Title="a\ud800b"), record(2, Title="\udc00"), record(3, Title="\ud83d\ude00"))
    assert decoded.batch["title"].to_pylist() == ["a\ufffdb", "\ufffd", "😀"]
    assert [(note.salesforce_id, note.row_stored) for note in decoded.rejected] == [
        (user_id(1), True),
        (user_id(2), True),
    ]


def test_bytes_that_are_no_text_are_replaced_and_noted() -> None:
    decoded = PageDecoder(EVERYTHING).decode(page(record(1, Title="broken"), record(2)).replace(b"broken", b"a\xffb"))
    assert decoded.batch["title"].to_pylist() == ["a\ufffdb", "text"]
    assert [note.field for note in decoded.rejected] == ["Title"]


@pytest.mark.parametrize("place", [{"Address": {"street": "broken"}}, {"Region__c": "broken"}])
def test_bytes_that_are_no_text_are_replaced_inside_of_json_too(place: dict[str, Any]) -> None:
    body = page(record(1, **place), record(2)).replace(b"broken", b"a\xffb")
    decoded = PageDecoder(WITH_EXTRA).decode(body)
    assert decoded.batch.num_rows == 2
    assert [(note.field, note.row_stored) for note in decoded.rejected] == [(*place, True)]
    column = "address" if "Address" in place else "custom_fields"
    assert "a\ufffdb" in json.loads(decoded.batch[column][0].as_py()).values()


def test_addresses_and_extra_fields_are_cleaned_as_well() -> None:
    decoded = decode(record(1, Address={"street": "1\0 rue"}, Region__c="E\0MEA", Score__c=1.5), selection=WITH_EXTRA)
    (stored,) = decoded.batch.to_pylist()
    assert json.loads(stored["address"])["street"] == "1 rue"
    assert json.loads(stored["custom_fields"]) == {"Region__c": "EMEA", "Score__c": 1.5}
    assert [note.field for note in decoded.rejected] == ["Address", "Region__c"]


def test_a_backslash_before_u0000_is_only_text() -> None:
    stored = row(Title="\\u0000", Address={"street": "\\u0000"})
    assert stored["title"] == "\\u0000"
    assert json.loads(stored["address"])["street"] == "\\u0000"


def test_a_cleaned_value_in_a_lost_row_leaves_one_note() -> None:
    assert [note.row_stored for note in decode(record(1, Title="a\0", IsActive=None)).rejected] == [False]
    assert [note.row_stored for note in decode(record(1, Title="a\0", IsActive=7)).rejected] == [False]


@pytest.mark.slow
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_all_text_that_postgres_can_hold_arrives_unchanged(titles: list[str]) -> None:
    decoded = decode(*(record(number, Title=title) for number, title in enumerate(titles)))
    assert decoded.batch["title"].to_pylist() == [title.replace("\0", "") for title in titles]
    assert len(decoded.rejected) == sum("\0" in title for title in titles)


# Extra fields ---------------------------------------------------------------------------------------------------


def test_extra_fields_are_kept_together_as_they_came() -> None:
    body = page(record(Region__c={"a": [1, None]}, Score__c=0.5)).replace(b"0.5", b"0.500000000000000000001")
    decoded = PageDecoder(WITH_EXTRA).decode(body)
    text = decoded.batch["custom_fields"][0].as_py()
    assert json.loads(text)["Region__c"] == {"a": [1, None]}
    assert '"Score__c":0.500000000000000000001' in text


def test_an_extra_field_without_value_is_null_in_its_object() -> None:
    (stored,) = decode(record(Region__c=None), selection=WITH_EXTRA).batch.to_pylist()
    assert json.loads(stored["custom_fields"]) == {"Region__c": None, "Score__c": None}


# Pages ----------------------------------------------------------------------------------------------------------


def test_the_envelope_tells_total_and_next_page() -> None:
    url = "/services/data/v66.0/query/0r85g0000SimCurAQE-200"
    assert read_envelope(page(record(), totalSize=401, done=False, nextRecordsUrl=url)) == (401, url)
    assert read_envelope(page(record(), totalSize=1)) == (1, None)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n ", " : ")])
@pytest.mark.parametrize(
    "order", [("totalSize", "done", "nextRecordsUrl", "records"), ("records", "totalSize", "done")]
)
def test_the_envelope_is_read_wherever_it_stands(order: tuple[str, ...], separators: tuple[str, str]) -> None:
    url = "/services/data/v66.0/query/0r85g0000SimCurAQE-200"
    misleading = record(Title=',"records":[', Region__c={"done": False, "records": []})
    parts = {"totalSize": 1, "done": False, "records": [misleading], "nextRecordsUrl": url}
    keys = [*order, *(parts.keys() - order)]
    assert read_envelope(json.dumps({key: parts[key] for key in keys}, separators=separators).encode()) == (1, url)


def test_the_envelope_is_read_also_where_a_text_is_broken() -> None:
    url = "/services/data/v66.0/query/0r85g0000SimCurAQE-200"
    body = page(record(Title="\ud800"), totalSize=2, done=False, nextRecordsUrl=url)
    assert read_envelope(body) == (2, url)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"totalSize": 1, "records": [], "done": false}', b"7", b"<html>"])
def test_what_is_no_page_is_an_error_and_not_an_empty_page(body: bytes) -> None:
    with pytest.raises(UnreachableError, match="run again"):
        read_envelope(body)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"totalSize": 1, "records": null}', b'{"totalSize": 1, "records": [7]}']
)
def test_no_page_is_decoded_as_if_it_were_empty(body: bytes) -> None:
    with pytest.raises(UnreachableError, match="run again"):
        PageDecoder(EVERYTHING).decode(body)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "Username": st.none() | st.text(max_size=90),
                "IsActive": st.sampled_from([True, False, None, "true", 0]),
                "SystemModstamp": st.sampled_from([STAMP, None, "never", "2026-01-01T00:00:00Z", 5]),
                "Title": st.none() | st.text(max_size=90) | st.just("a\ud800\0") | st.integers(),
                "ManagerId": st.sampled_from([None, user_id(3), user_id(3)[:15], "005", user_id(3).lower()]),
            },
        ),
        max_size=8,
    )
)
def test_whatever_comes_each_record_is_stored_or_noted(changes: list[dict[str, Any]]) -> None:
    """The fast way for a whole page and the careful way for each record alone give the same rows."""
    records = [record(number, **change) for number, change in enumerate(changes)]
    together = decode(*records)
    alone = [decode(one) for one in records]
    assert together.batch.to_pylist() == [stored for one in alone for stored in one.batch.to_pylist()]
    assert set(together.rejected) == {note for one in alone for note in one.rejected}


def test_a_large_page_with_one_bad_row_keeps_its_order() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    stamps = [(start + timedelta(seconds=number)).isoformat() for number in range(2000)]
    records = [record(number, SystemModstamp=stamp) for number, stamp in enumerate(stamps)]
    records[700]["IsActive"] = None
    decoded = decode(*records)
    assert decoded.batch["id"].to_pylist() == [user_id(number) for number in range(2000) if number != 700]
