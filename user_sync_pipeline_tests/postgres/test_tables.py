from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pytest
from psycopg.errors import NotNullViolation
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.warehouse.tables import Relation, read_arrow, read_pandas, replace_rows
from user_sync_pipeline_tests.postgres.users import land, query, user

if TYPE_CHECKING:
    from user_sync_pipeline.core.warehouse.tables import Rows

FINDINGS = Relation("user_sync", "profile_reconciliation")
RAW = Relation("user_sync", "salesforce_users_raw")


def replace(engine: Engine, rows: Rows, relation: Relation = FINDINGS) -> int:
    with engine.begin() as connection:
        return replace_rows(connection, relation, rows)


def reasons(engine: Engine) -> list[str]:
    return [row["reason"] for row in query(engine, f"SELECT reason FROM {FINDINGS.qualified} ORDER BY reason")]


def findings(*texts: str) -> pa.Table:
    return pa.table({"finding": ["test"] * len(texts), "reason": list(texts)})


def frame(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"finding": ["test"] * len(texts), "reason": list(texts)})


@pytest.mark.parametrize(
    "rows",
    [
        findings("a", "b", "c"),
        findings("a", "b", "c").to_batches()[0],
        findings("a", "b", "c").to_reader(),
        [findings("a", "b"), findings("c")],
        [findings("a", "b"), findings("c").select(["reason", "finding"])],
        frame("a", "b", "c"),
        iter([frame("a"), frame("b", "c")]),
    ],
    ids=["table", "batch", "reader", "tables", "columns in another order", "data frame", "data frames"],
)
def test_arrow_and_pandas_in_every_form_replace_what_was_there(warehouse: Engine, rows: Rows) -> None:
    replace(warehouse, findings("old", "older"))
    assert replace(warehouse, rows) == 3
    assert reasons(warehouse) == ["a", "b", "c"]


def test_a_filtered_data_frame_does_not_bring_its_index_along(warehouse: Engine) -> None:
    rows = frame("a", "b", "c")
    assert replace(warehouse, rows[rows["reason"] != "b"]) == 2
    assert reasons(warehouse) == ["a", "c"]


@pytest.mark.parametrize("nothing", [[], findings(), frame()], ids=["list", "table", "data frame"])
def test_no_rows_leave_the_table_empty(warehouse: Engine, nothing: Rows) -> None:
    replace(warehouse, findings("old"))
    assert replace(warehouse, nothing) == 0
    assert reasons(warehouse) == []


def test_uuids_moments_and_nested_values_of_pandas_find_their_column_types(warehouse: Engine) -> None:
    run_id, moment = uuid.uuid4(), datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows = pd.DataFrame(
        {
            "id": ["x"],
            "sync_run_id": [run_id],
            "system_modstamp": [pd.Timestamp(moment)],
            "address": [{"city": "Zürich", "lines": ["a", None]}],
            "is_active": [True],
            "user_type": pd.Categorical(["Standard"]),
        }
    )
    assert replace(warehouse, rows, RAW) == 1
    (stored,) = query(warehouse, f"SELECT * FROM {RAW.qualified}")
    assert (stored["sync_run_id"], stored["system_modstamp"]) == (run_id, moment)
    assert (stored["address"], stored["is_active"]) == ({"city": "Zürich", "lines": ["a", None]}, True)
    assert stored["user_type"] == "Standard"
    assert stored["landed_at"] is not None, "a column that is not given gets its default"


def test_what_was_read_as_arrow_can_be_written_again(warehouse: Engine, warehouse_url: str) -> None:
    land(warehouse, user(1, address='{"city": "Bern"}', title=""), user(2, title=None))
    before = query(warehouse, f"SELECT * FROM {RAW.qualified} ORDER BY id")
    assert replace(warehouse, read_arrow(warehouse_url, RAW).read_all(), RAW) == 2
    assert query(warehouse, f"SELECT * FROM {RAW.qualified} ORDER BY id") == before


def test_a_table_is_read_as_typed_arrow_and_as_pandas(warehouse: Engine, warehouse_url: str) -> None:
    land(warehouse, user(1, title="first"), user(2))
    table = read_arrow(warehouse_url, RAW).read_all()
    assert table.schema.field("system_modstamp").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("is_active").type == pa.bool_()
    assert table.column("title").to_pylist() == ["first", None]
    data = read_pandas(warehouse_url, RAW)
    assert data["id"].tolist() == table.column("id").to_pylist()
    assert data["is_active"].all()


def test_reading_holds_no_connection_once_the_stream_has_ended_or_is_forgotten(
    warehouse: Engine, warehouse_url: str
) -> None:
    replace(warehouse, findings("a"))

    def readers_become(expected: int) -> bool:
        activity = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'copy (%'"
        deadline = time.monotonic() + 5  # a session ends a moment after its connection
        while len(query(warehouse, activity)) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(query(warehouse, activity)) == expected

    reader = read_arrow(warehouse_url, FINDINGS)
    assert readers_become(1)
    reader.read_all()
    assert readers_become(0)

    unread = read_arrow(warehouse_url, FINDINGS)
    begun = read_arrow(warehouse_url, FINDINGS)
    begun.read_next_batch()
    assert readers_become(2)
    del unread, begun
    assert readers_become(0)


def test_a_column_that_the_table_lacks_is_refused_before_anything_is_deleted(warehouse: Engine) -> None:
    replace(warehouse, findings("old"))
    with warehouse.begin() as connection:
        with pytest.raises(ConfigurationError, match=r"user_sync\.profile_reconciliation has no column colour, size"):
            replace_rows(connection, FINDINGS, pa.table({"reason": ["a"], "colour": ["red"], "size": [1]}))
        assert connection.scalar(text(f"SELECT count(*) FROM {FINDINGS.qualified}")) == 1


def test_a_table_that_does_not_exist_is_refused(warehouse: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no table public\.nowhere"):
        replace(warehouse, findings("a"), Relation("public", "nowhere"))


def test_batches_with_different_columns_are_refused_as_a_whole(warehouse: Engine) -> None:
    replace(warehouse, findings("old"))
    with pytest.raises(ConfigurationError, match="give all batches the same"):
        replace(warehouse, [findings("a"), pa.table({"reason": ["b"]})])
    assert reasons(warehouse) == ["old"]


def test_a_failure_on_the_way_keeps_the_old_rows(warehouse: Engine) -> None:
    def rows() -> Iterator[pa.Table]:
        yield findings("a")
        raise RuntimeError("the source broke")

    replace(warehouse, findings("old"))
    with pytest.raises(RuntimeError, match="the source broke"):
        replace(warehouse, rows())
    with pytest.raises(NotNullViolation):
        replace(warehouse, pa.table({"finding": ["test"], "reason": pa.array([None], pa.string())}))
    assert reasons(warehouse) == ["old"]


@pytest.mark.parametrize("name", ["", "Users", "sf users", 'x"; DROP TABLE y', "1st", "a.b", "x" * 64])
def test_only_plain_identifiers_name_a_relation(name: str) -> None:
    for parts in ((name, "users"), ("public", name)):
        with pytest.raises(ConfigurationError, match="lower-case letters"):
            Relation(*parts)


def test_a_reserved_word_is_quoted(warehouse: Engine, warehouse_url: str) -> None:
    with warehouse.begin() as connection:
        connection.execute(text('CREATE TABLE public."order" (id integer)'))
    try:
        order = Relation("public", "order")
        assert replace(warehouse, pa.table({"id": [1, 2]}), order) == 2
        assert read_pandas(warehouse_url, order)["id"].tolist() == [1, 2]
    finally:
        with warehouse.begin() as connection:
            connection.execute(text('DROP TABLE public."order"'))
