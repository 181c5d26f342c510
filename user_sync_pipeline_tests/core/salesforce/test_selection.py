"""What Salesforce describes decides what is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.salesforce.fields import DESCRIBE_TYPES, USER_COLUMNS, USER_FIELDS
from user_sync_pipeline.core.salesforce.selection import select_fields


def described(*extra: dict[str, Any], without: tuple[str, ...] = (), types: dict[str, str] | None = None) -> bytes:
    """A describe answer that fits the catalogue, except for what is said."""
    fields = [
        {"name": field.name, "type": (types or {}).get(field.name, min(DESCRIBE_TYPES[field.kind])), "length": 1}
        for field in USER_FIELDS
        if field.name not in without
    ]
    return json.dumps({"name": "User", "fields": [{"name": "Unknown__c", "type": "int"}, *fields, *extra]}).encode()


def test_everything_visible_is_selected_in_the_order_of_the_catalogue() -> None:
    selection = select_fields(described())
    assert selection.soql_names == tuple(field.name for field in USER_FIELDS)
    assert selection.columns == USER_COLUMNS[:-1]
    assert selection.hidden == ()


def test_gotcha_26_a_hidden_field_is_left_out_and_reported() -> None:
    selection = select_fields(described(without=("External_ID__c", "Fax")))
    assert selection.hidden == ("Fax", "External_ID__c")
    assert "External_ID__c" not in selection.soql_names
    assert "external_id" not in selection.columns


@pytest.mark.parametrize("name", [field.name for field in USER_FIELDS if field.required])
def test_a_hidden_required_field_stops_with_the_permission_to_grant(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"User\.{name} .*field-level security"):
        select_fields(described(without=(name,)))


@pytest.mark.parametrize(("name", "type_"), [("Title", "int"), ("IsActive", "string"), ("LastLoginDate", "date")])
def test_gotcha_28_a_field_of_another_type_stops_and_is_never_cast(name: str, type_: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"User\.{name} is of type {type_}"):
        select_fields(described(types={name: type_}))


def test_extra_fields_are_selected_reported_or_left_to_the_catalogue() -> None:
    extra = ({"name": "Region__c", "type": "picklist"}, {"name": "Score__c", "type": "double"})
    selection = select_fields(described(*extra), ("region__C", "Score__c", "Nobody__c", "Title", "Region__c"))
    assert selection.extra == ("Region__c", "Score__c")
    assert selection.columns == USER_COLUMNS
    assert selection.hidden == ("Nobody__c",)


def test_the_spelling_of_the_organisation_is_used() -> None:
    extra = {"name": "External_Id__c", "type": "string", "length": 36}
    selection = select_fields(described(extra, without=("External_ID__c",)))
    assert "External_Id__c" in selection.soql_names
    assert "external_id" in selection.columns


def test_a_field_may_be_longer_in_this_organisation() -> None:
    extra = {"name": "Alias", "type": "string", "length": 20}
    selection = select_fields(described(extra, without=("Alias",)))
    assert {field.column: field.max_length for field in selection.fields}["alias"] == 20
    assert {field.column: field.max_length for field in select_fields(described()).fields}["alias"] == 8


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>"])
def test_what_is_no_description_is_an_error(body: bytes) -> None:
    with pytest.raises(UnreachableError, match="run again"):
        select_fields(body)
