from __future__ import annotations

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_COLUMNS, USER_FIELDS, Kind
from user_sync_pipeline_tests.postgres.users import query

POSTGRES_TYPES = {
    Kind.ID: "text",
    Kind.TEXT: "text",
    Kind.BOOLEAN: "boolean",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.ADDRESS: "jsonb",
}
BOOKKEEPING = {
    "user_sync.salesforce_users_raw": ["sync_run_id", "landed_at"],
    "public.sf_users": ["first_seen_at", "synced_at", "deactivated_at", "sync_run_id"],
}
COLUMNS = """
    SELECT column_name, data_type, is_nullable = 'NO' AS required
    FROM information_schema.columns
    WHERE table_schema || '.' || table_name = :relation
    ORDER BY ordinal_position
"""


@pytest.mark.parametrize("relation", BOOKKEEPING)
def test_both_tables_have_the_columns_of_the_catalogue_in_its_order(warehouse: Engine, relation: str) -> None:
    columns = [row["column_name"] for row in query(warehouse, COLUMNS, relation=relation)]
    assert columns == [*USER_COLUMNS, *BOOKKEEPING[relation]]


@pytest.mark.parametrize("relation", BOOKKEEPING)
def test_both_tables_store_each_field_as_its_kind_asks(warehouse: Engine, relation: str) -> None:
    types = {row["column_name"]: row["data_type"] for row in query(warehouse, COLUMNS, relation=relation)}
    expected = {field.column: POSTGRES_TYPES[field.kind] for field in USER_FIELDS} | {CUSTOM_FIELDS_COLUMN: "jsonb"}
    assert {column: types[column] for column in USER_COLUMNS} == expected


def test_sf_users_requires_what_the_catalogue_requires(warehouse: Engine) -> None:
    required = {row["column_name"] for row in query(warehouse, COLUMNS, relation="public.sf_users") if row["required"]}
    assert required & set(USER_COLUMNS) == {field.column for field in USER_FIELDS if field.required}


def test_sf_users_checks_nothing_that_the_merge_does_not_look_at_first(warehouse: Engine) -> None:
    checks = query(
        warehouse,
        "SELECT conname FROM pg_constraint WHERE conrelid = 'public.sf_users'::regclass AND contype = 'c' ORDER BY 1",
    )
    assert [row["conname"] for row in checks] == [
        "sf_users_address_is_an_object",
        "sf_users_custom_fields_is_an_object",
        "sf_users_id_has_18_characters",
    ]
