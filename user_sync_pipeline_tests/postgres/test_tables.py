from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from psycopg.errors import InvalidTextRepresentation, NotNullViolation
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


@pytest.fixture
def samples(warehouse: Engine) -> Iterator[Relation]:
    """A table with a column of each type that pandas is odd about."""
    with warehouse.begin() as connection:
        connection.execute(
            text("""
                CREATE TABLE public.samples (
                    number bigint, small smallint, moment timestamptz, day date, flag boolean,
                    price numeric, share double precision, word text, document jsonb
                )
            """)
        )
    yield Relation("public", "samples")
    with warehouse.begin() as connection:
        connection.execute(text("DROP TABLE public.samples"))


ZURICH = "Europe/Zurich"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("number", pd.array([1, None], dtype="Int64"), [1, None]),
        ("number", pd.Series([1, None]), [1, None]),
        ("number", pd.Series([2**62, None], dtype="Int64"), [2**62, None]),
        ("small", pd.Series([None, 7.0]), [None, 7]),
        ("moment", pd.to_datetime([NOON, None]), [NOON, None]),
        ("moment", pd.to_datetime([NOON, None]).tz_convert(ZURICH), [NOON, None]),
        ("moment", pd.Series([NOON, pd.NaT], dtype=object), [NOON, None]),
        ("moment", pd.to_datetime(["2026-07-01 12:00", None]), [NOON, None]),
        ("day", pd.Series([NOON.date(), None], dtype=object), [NOON.date(), None]),
        ("flag", pd.Series([True, None], dtype=object), [True, None]),
        ("flag", pd.array([False, None], dtype="boolean"), [False, None]),
        ("price", pd.Series([Decimal("1.50"), None], dtype=object), [Decimal("1.50"), None]),
        ("share", pd.Series([0.5, float("nan")]), [0.5, None]),
        ("word", pd.Series(["", None], dtype=object), ["", None]),
        ("word", pd.Series(['Zoë, "x"\n', float("nan")], dtype=object), ['Zoë, "x"\n', None]),
        ("word", pd.Series([None, None], dtype=object), [None, None]),
        ("document", pd.Series([{"a": 1}, {"b": [1, None]}]), [{"a": 1}, {"b": [1, None]}]),
        ("document", pd.Series([{"a": {}}, None]), [{"a": {}}, None]),
        ("document", pd.Series([[1, "x"], {"y": NOON}]), [[1, "x"], {"y": str(NOON)}]),
    ],
)
def test_values_of_pandas_arrive_as_they_are_meant(
    warehouse: Engine, samples: Relation, column: str, values: Any, expected: list[Any]
) -> None:
    assert replace(warehouse, pd.DataFrame({column: values}), samples) == 2
    rows = query(warehouse, f"SELECT {column} FROM {samples.qualified}")
    assert [row[column] for row in rows] == expected


def test_a_number_with_a_fraction_is_not_cut_to_a_whole_one(warehouse: Engine, samples: Relation) -> None:
    with pytest.raises(InvalidTextRepresentation, match=r"1\.5"):
        replace(warehouse, pd.DataFrame({"number": [1.5, None]}), samples)


def test_a_frame_without_columns_empties_the_table(warehouse: Engine, samples: Relation) -> None:
    replace(warehouse, pd.DataFrame({"number": [1]}), samples)
    assert replace(warehouse, pd.DataFrame(), samples) == 0
    assert query(warehouse, f"SELECT FROM {samples.qualified}") == []


def test_what_was_read_as_pandas_can_be_written_again(warehouse: Engine, warehouse_url: str, samples: Relation) -> None:
    with warehouse.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {samples.qualified} VALUES (:big, 1, now(), now(), true, 1.5, 0.5, '', '{{}}')"),
            {"big": 2**53 + 1},
        )
        connection.execute(text(f"INSERT INTO {samples.qualified} DEFAULT VALUES"))
    before = query(warehouse, f"SELECT * FROM {samples.qualified} ORDER BY number")
    assert replace(warehouse, read_pandas(warehouse_url, samples), samples) == 2
    assert query(warehouse, f"SELECT * FROM {samples.qualified} ORDER BY number") == before


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


@pytest.mark.slow
def test_reading_holds_no_connection_once_the_stream_has_ended_or_is_forgotten(
    warehouse: Engine, warehouse_url: str
) -> None:
    replace(warehouse, findings("a"))

    def readers_become(expected: int) -> bool:
        activity = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'copy (%'"
        deadline = time.monotonic() + 60  # a session ends a moment after its connection
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
