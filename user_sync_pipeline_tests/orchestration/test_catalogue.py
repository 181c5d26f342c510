from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

import user_sync_pipeline
from user_sync_pipeline.assets.catalogue import AUTH_USERS, SALESFORCE_USER, USER_PROFILES
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.definitions import build_definitions

CHECKOUT = Path(user_sync_pipeline.__path__[0]).parent
RAW, SF_USERS, RECONCILIATION = map(dg.AssetKey, ("salesforce_users_raw", "sf_users", "profile_reconciliation"))
SOURCES = {SALESFORCE_USER, AUTH_USERS, USER_PROFILES}


def nodes() -> dict[dg.AssetKey, Any]:
    graph = build_definitions().resolve_asset_graph()
    return {node.key: node for node in graph.asset_nodes}


def columns_of(node: Any) -> set[str]:
    return {column.name for column in node.metadata["dagster/column_schema"].columns}


def test_the_graph_begins_with_what_others_keep_and_ends_with_the_reconciliation() -> None:
    assert {key: node.parent_keys for key, node in nodes().items()} == {
        **{source: set() for source in SOURCES},
        RAW: {SALESFORCE_USER},
        SF_USERS: {RAW},
        RECONCILIATION: {SF_USERS, AUTH_USERS, USER_PROFILES},
    }
    assert {key for key, node in nodes().items() if not node.is_materializable} == SOURCES


def test_every_asset_tells_a_newcomer_what_it_is() -> None:
    for node in nodes().values():
        assert node.description
        assert node.group_name == "user_sync"
        assert node.kinds
        assert node.tags["personal_data"] in ("yes", "ids-only")
        assert columns_of(node)
        assert all(column.description for column in node.metadata["dagster/column_schema"].columns)
        if node.is_materializable:
            assert list(node.owners) == ["team:data"]


def test_every_column_is_followed_back_to_where_it_comes_from() -> None:
    known = nodes()
    for node in known.values():
        if not node.is_materializable:
            continue
        lineage = node.metadata["dagster/column_lineage"].deps_by_column
        assert set(lineage) <= columns_of(node)
        for origins in lineage.values():
            for origin in origins:
                assert origin.asset_key in node.parent_keys
                assert origin.column_name in columns_of(known[origin.asset_key])


def test_a_stored_column_leads_to_the_salesforce_field_of_which_it_is_made() -> None:
    known = nodes()

    def origin(asset: dg.AssetKey, column: str) -> dg.TableColumnDep:
        [found] = known[asset].metadata["dagster/column_lineage"].deps_by_column[column]
        return found

    for field in USER_FIELDS:
        raw = origin(SF_USERS, field.column)
        assert origin(raw.asset_key, raw.column_name) == dg.TableColumnDep(SALESFORCE_USER, field.name)


def test_the_columns_in_the_ui_are_those_in_the_database(engine: Engine) -> None:
    for node in nodes().values():
        if "dagster/table_name" not in node.metadata:
            assert node.key == SALESFORCE_USER
            continue
        schema = node.metadata["dagster/column_schema"]
        shown = {column.name: (column.type, column.constraints.nullable) for column in schema.columns}
        with engine.connect() as connection:
            stored = connection.exec_driver_sql(
                "SELECT attname, replace(format_type(atttypid, NULL), 'timestamp with time zone', 'timestamptz'), "
                f"NOT attnotnull FROM pg_attribute WHERE attrelid = '{node.metadata['dagster/table_name']}'::regclass "
                "AND attnum > 0"
            ).all()
        in_database = {
            name: (type_.replace("character varying", "text"), nullable)
            for name, type_, nullable in stored
            if node.is_materializable or name in shown
        }
        assert shown == in_database, node.key


def test_whom_the_setting_names_owns_the_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_OWNERS", "team:identity, ada@example.com")
    assert list(nodes()[SF_USERS].owners) == ["team:identity", "ada@example.com"]


@pytest.mark.parametrize("wrong", ["identity", "team:", "ada@example", "ada@example.com bob@example.com"])
def test_an_owner_that_is_none_is_said_in_a_sentence(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_OWNERS", wrong)
    with pytest.raises(ConfigurationError, match="USER_SYNC_OWNERS"):
        build_definitions()


def test_each_asset_leads_to_its_lines_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_SOURCE_URL", "https://git.example.com/team/sync/tree/main/")
    for key, file in ((RAW, "salesforce.py"), (SF_USERS, "warehouse.py"), (RECONCILIATION, "reconciliation.py")):
        [source] = nodes()[key].metadata["dagster/code_references"].code_references
        address, _, line = source.url.partition("#L")
        assert address == f"https://git.example.com/team/sync/tree/main/user_sync_pipeline/assets/{file}"
        shown = (CHECKOUT / f"user_sync_pipeline/assets/{file}").read_text().splitlines()[int(line) - 1]
        assert shown.strip().startswith("@asset_in_one_run")


def test_without_a_repository_the_editor_opens_and_in_production_no_path_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [source] = nodes()[RAW].metadata["dagster/code_references"].code_references
    assert Path(source.file_path).samefile(CHECKOUT / "user_sync_pipeline/assets/salesforce.py")
    monkeypatch.setenv("USER_SYNC_ENVIRONMENT", "production")
    assert "dagster/code_references" not in nodes()[RAW].metadata
