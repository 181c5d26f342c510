from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, LiteralString

import dagster as dg
import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from user_sync_pipeline.assets import asset_in_one_run
from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.io_managers import PostgresIOManager
from user_sync_pipeline.partitions import daily_partitions, range_tags
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import create_database, drop_database, patient

TEAMS = pa.table({"name": ["alpha", "beta"], "size": [3, 4]})


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a database with two tables of nobody's migrations."""
    create_database(postgres_server, "io_manager")
    url = patient(postgres_server.url("io_manager"))
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA user_sync")
        connection.execute("CREATE TABLE user_sync.teams (name text, size bigint)")
        connection.execute("CREATE TABLE public.squads (name text, size bigint)")
        connection.execute("CREATE TABLE user_sync.visits (visitor text, seen_at timestamptz, seen_on date)")
    yield url
    drop_database(postgres_server, "io_manager")


@pytest.fixture
def io_manager(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresIOManager]:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", database)
    with PostgresIOManager.from_resource_context_cm(dg.build_init_resource_context()) as io_manager:
        yield io_manager
    with psycopg.connect(database) as connection:
        connection.execute("TRUNCATE user_sync.teams, public.squads, user_sync.visits")


def stored(database: str, table: LiteralString = "user_sync.teams") -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(f"SELECT name, size FROM {table} ORDER BY name").fetchall()


def write(io_manager: PostgresIOManager, rows: Any, **output: Any) -> dict[str, Any]:
    """Store what an asset returned, and return the metadata of its materialization."""
    context = dg.build_output_context(**{"asset_key": dg.AssetKey("teams"), **output})
    io_manager.handle_output(context, rows)
    return {name: getattr(value, "value", value) for name, value in context.get_logged_metadata().items()}


def read(
    io_manager: PostgresIOManager,
    wanted: type[Any],
    asset: str = "teams",
    metadata: dict[str, Any] | None = None,
    **asked: Any,
) -> Any:
    upstream = dg.build_output_context(asset_key=dg.AssetKey(asset), definition_metadata=metadata)
    context = dg.build_input_context(
        name=asset,
        asset_key=dg.AssetKey(asset),
        upstream_output=upstream,
        dagster_type=dg.PythonObjectDagsterType(wanted),
        **asked,
    )
    return io_manager.load_input(context)


@pytest.mark.parametrize(
    "rows",
    [
        TEAMS,
        TEAMS.to_pandas(),
        TEAMS.to_reader(),
        (frame for frame in (TEAMS.slice(0, 1).to_pandas(), TEAMS.slice(1).to_pandas())),
    ],
    ids=["arrow table", "pandas", "arrow reader", "iterator of pandas"],
)
def test_a_table_holds_exactly_what_the_asset_returned(io_manager: PostgresIOManager, database: str, rows: Any) -> None:
    write(io_manager, pa.table({"name": ["gone"], "size": [1]}))
    metadata = write(io_manager, rows)
    assert stored(database) == [("alpha", 3), ("beta", 4)]
    assert metadata["dagster/row_count"] == 2
    assert metadata["dagster/table_name"] == "user_sync.teams"
    assert metadata["size_mb"] > 0


def test_a_relation_is_left_as_it_is_and_only_described(io_manager: PostgresIOManager, database: str) -> None:
    write(io_manager, TEAMS)
    metadata = write(io_manager, Relation("user_sync", "teams"))
    assert stored(database) == [("alpha", 3), ("beta", 4)]
    assert metadata["dagster/row_count"] == 2


@pytest.mark.parametrize(
    "output",
    [
        {"definition_metadata": {"dagster/table_name": "public.squads"}},
        {"asset_key": dg.AssetKey(["public", "squads"])},
    ],
    ids=["by metadata", "by the key's prefix"],
)
def test_an_asset_chooses_its_table(io_manager: PostgresIOManager, database: str, output: dict[str, Any]) -> None:
    write(io_manager, TEAMS, **output)
    assert stored(database, "public.squads") == [("alpha", 3), ("beta", 4)]
    assert stored(database) == []


@pytest.mark.slow
def test_an_input_is_read_as_the_type_it_is_annotated_with(io_manager: PostgresIOManager) -> None:
    write(io_manager, TEAMS)
    assert read(io_manager, Relation) == Relation("user_sync", "teams")
    assert read(io_manager, pa.Table).sort_by("name").to_pydict() == TEAMS.to_pydict()
    assert read(io_manager, pa.RecordBatchReader).read_all().num_rows == 2
    frame = read(io_manager, pd.DataFrame)
    assert isinstance(frame, pd.DataFrame)
    assert frame["size"].sum() == 7


def test_an_input_of_another_type_is_refused_with_a_sentence(io_manager: PostgresIOManager) -> None:
    with pytest.raises(dg.Failure, match=r"annotate it with Relation, pandas\.DataFrame"):
        read(io_manager, dict)


def test_a_table_that_no_migration_made_is_not_made_here(io_manager: PostgresIOManager) -> None:
    with pytest.raises(dg.Failure, match=r"There is no table user_sync\.unknown"):
        write(io_manager, TEAMS, asset_key=dg.AssetKey("unknown"))


@pytest.mark.parametrize("returned", [None, 5, "alpha", {"name": "alpha"}, [{"name": "alpha"}]], ids=repr)
def test_what_is_no_table_is_refused_with_a_sentence(
    io_manager: PostgresIOManager, database: str, returned: Any
) -> None:
    write(io_manager, TEAMS)
    with pytest.raises(
        dg.Failure, match=r"teams has returned a \w+; return a Relation, a pandas DataFrame or Arrow data"
    ):
        write(io_manager, returned)
    assert stored(database) == [("alpha", 3), ("beta", 4)]


def test_rows_that_cannot_be_stored_leave_the_table_as_it_was(io_manager: PostgresIOManager, database: str) -> None:
    write(io_manager, TEAMS)
    with pytest.raises(Exception, match="bigint"):
        write(io_manager, pa.table({"name": ["gamma"], "size": ["many"]}))
    assert stored(database) == [("alpha", 3), ("beta", 4)]


DAYS = daily_partitions(date(2026, 1, 1))
BY_MOMENT = {"partition_expr": "seen_at"}
# One visit a day at noon, from before the axis to behind the days that the tests ask for.
VISITS = pd.DataFrame(
    {"visitor": ["old", "a", "b", "c", "d"], "seen_at": pd.date_range("2025-12-31 12:00", periods=5, tz="UTC")}
)


def days(first: str, last: str | None = None) -> dict[str, Any]:
    """What Dagster tells an IO manager of a run of these days."""
    key_range = dg.PartitionKeyRange(first, last or first)
    return {"asset_partitions_def": DAYS, "asset_partition_key_range": key_range}


def write_visits(io_manager: PostgresIOManager, rows: Any, first: str, last: str, **output: Any) -> dict[str, Any]:
    asset = {"asset_key": dg.AssetKey("visits"), "definition_metadata": BY_MOMENT, **output}
    return write(io_manager, rows, **asset, **days(first, last))


def read_visits(io_manager: PostgresIOManager, wanted: type[Any], **asked: Any) -> Any:
    return read(io_manager, wanted, "visits", BY_MOMENT, **asked)


def visitors(database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        return [name for (name,) in connection.execute("SELECT visitor FROM user_sync.visits ORDER BY seen_at, 1")]


@pytest.fixture
def visits(io_manager: PostgresIOManager) -> PostgresIOManager:
    """The IO manager with five visits stored: the first partition is open to the past."""
    write_visits(io_manager, VISITS, "2026-01-01", "2026-01-04")
    return io_manager


def test_a_run_replaces_exactly_its_days(visits: PostgresIOManager, database: str) -> None:
    assert visitors(database) == ["old", "a", "b", "c", "d"]
    again = VISITS[2:4].assign(visitor=["B", "C"])
    write_visits(visits, again, "2026-01-02", "2026-01-03")
    assert visitors(database) == ["old", "a", "B", "C", "d"]


def test_the_first_day_stands_for_everything_before_it(visits: PostgresIOManager, database: str) -> None:
    write_visits(visits, VISITS[1:2].assign(visitor="A"), "2026-01-01", "2026-01-01")
    assert visitors(database) == ["A", "b", "c", "d"]


def test_days_without_rows_are_emptied(visits: PostgresIOManager, database: str) -> None:
    write_visits(visits, VISITS[:0], "2026-01-02", "2026-01-03")
    assert visitors(database) == ["old", "a", "d"]


def test_a_row_of_another_day_refuses_the_whole_output(visits: PostgresIOManager, database: str) -> None:
    undated = pd.concat([VISITS[2:3], pd.DataFrame({"visitor": ["undated"], "seen_at": [pd.NaT]})])
    for strays in (VISITS[2:4], undated):
        with pytest.raises(dg.Failure, match=r"1 of 2 rows for user_sync\.visits lie outside .* by their seen_at"):
            write_visits(visits, strays, "2026-01-02", "2026-01-02")
    assert visitors(database) == ["old", "a", "b", "c", "d"]


@pytest.mark.slow
def test_days_in_a_column_of_type_date_are_days_in_utc(io_manager: PostgresIOManager, database: str) -> None:
    rows = pd.DataFrame({"visitor": ["a", "b"], "seen_on": [date(2026, 1, 1), date(2026, 1, 2)]})
    by_day = {"partition_expr": "seen_on"}
    write_visits(io_manager, rows, "2026-01-01", "2026-01-02", definition_metadata=by_day)
    asked = days("2026-01-02")
    assert read(io_manager, pd.DataFrame, "visits", by_day, **asked)["visitor"].tolist() == ["b"]


@pytest.mark.slow
def test_the_count_of_one_day_is_told_and_that_of_a_run_is_not_repeated_for_each(io_manager: PostgresIOManager) -> None:
    one = write_visits(io_manager, VISITS[2:3], "2026-01-02", "2026-01-02")
    assert (one["dagster/partition_row_count"], one["dagster/row_count"]) == (1, 1)
    several = write_visits(io_manager, VISITS[3:], "2026-01-03", "2026-01-04")
    assert "dagster/partition_row_count" not in several
    assert several["dagster/row_count"] == 3, "this one is of the whole table"
    assert several["dagster/table_name"] == "user_sync.visits"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2026-01-02", "2026-01-02", ["b"]),
        ("2026-01-02", "2026-01-03", ["b", "c"]),
        ("2026-01-01", "2026-01-02", ["old", "a", "b"]),
        ("2026-01-06", "2026-01-07", []),
    ],
    ids=["a day", "a range", "from the first day on", "days without rows"],
)
def test_an_input_loads_exactly_the_days_asked_for(
    visits: PostgresIOManager, first: str, last: str, expected: list[str]
) -> None:
    asked = days(first, last)
    assert read_visits(visits, pd.DataFrame, **asked)["visitor"].tolist() == expected
    assert read_visits(visits, pa.Table, **asked)["visitor"].to_pylist() == expected
    assert read_visits(visits, pa.RecordBatchReader, **asked).read_all()["visitor"].to_pylist() == expected
    assert read_visits(visits, Relation, **asked) == Relation("user_sync", "visits")


@pytest.mark.slow
def test_an_asset_without_partitions_gets_the_whole_axis_and_one_with_them_its_days(
    io_manager: PostgresIOManager, database: str
) -> None:
    seen: dict[str, list[str]] = {}

    @asset_in_one_run(partitions_def=DAYS, metadata=BY_MOMENT)
    def visits() -> pd.DataFrame:
        return VISITS[2:4]

    @asset_in_one_run(partitions_def=DAYS)
    def daily(visits: pd.DataFrame) -> Relation:
        seen["daily"] = visits.sort_values("seen_at")["visitor"].tolist()
        return Relation("user_sync", "teams")

    @dg.asset
    def overall(visits: pd.DataFrame) -> Relation:
        seen["overall"] = visits.sort_values("seen_at")["visitor"].tolist()
        return Relation("user_sync", "teams")

    write_visits(io_manager, VISITS, "2026-01-01", "2026-01-04")
    resources = {"io_manager": PostgresIOManager()}
    tags = range_tags(date(2026, 1, 2), date(2026, 1, 3))
    assert dg.materialize([visits, daily, overall], resources=resources, tags=tags).success
    assert seen == {"daily": ["b", "c"], "overall": ["old", "a", "b", "c", "d"]}


@pytest.mark.slow
def test_a_day_that_depends_on_the_day_before_gets_no_rows_on_the_first_day(io_manager: PostgresIOManager) -> None:
    seen: list[list[str]] = []
    day_before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @asset_in_one_run(partitions_def=DAYS, metadata=BY_MOMENT)
    def visits() -> pd.DataFrame:
        return VISITS[:2]

    @asset_in_one_run(partitions_def=DAYS, ins={"visits": dg.AssetIn(partition_mapping=day_before)})
    def following(visits: pd.DataFrame) -> Relation:
        seen.append(visits["visitor"].tolist())
        return Relation("user_sync", "teams")

    resources = {"io_manager": PostgresIOManager()}
    for day in (date(2026, 1, 1), date(2026, 1, 2)):
        tags = range_tags(day, day)
        assert dg.materialize([visits, following], selection=[following], resources=resources, tags=tags).success
        write_visits(io_manager, VISITS[:2], "2026-01-01", "2026-01-01")
    assert seen == [[], ["old", "a"]]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "set 'partition_expr' there, or let the asset write its own rows and return a Relation"),
        ({"partition_expr": {"day": "seen_at"}}, "set 'partition_expr' there"),
        ({"partition_expr": "seen_at::date"}, "is not the name of a column"),
        ({"partition_expr": "visitor"}, "has no column visitor of type timestamptz"),
        ({"partition_expr": "nowhere"}, "has no column nowhere of type timestamptz"),
    ],
)
def test_rows_of_some_days_never_replace_others_by_guessing(
    visits: PostgresIOManager, database: str, metadata: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(dg.Failure, match=complaint):
        write_visits(visits, VISITS[2:3], "2026-01-02", "2026-01-02", definition_metadata=metadata)
    assert visitors(database) == ["old", "a", "b", "c", "d"]


def test_partitions_that_are_no_times_are_refused(io_manager: PostgresIOManager) -> None:
    partitioned = {
        "asset_partitions_def": dg.StaticPartitionsDefinition(["north", "south"]),
        "asset_partition_key_range": dg.PartitionKeyRange("north", "north"),
    }
    with pytest.raises(dg.Failure, match="partitions of teams are not days or other times"):
        write(io_manager, TEAMS, **partitioned)


def test_a_database_that_is_away_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/postgres")
    with (
        PostgresIOManager.from_resource_context_cm(dg.build_init_resource_context()) as io_manager,
        pytest.raises(dg.Failure, match="USER_SYNC_DATABASE_URL") as failure,
    ):
        write(io_manager, TEAMS)
    assert "secret" not in str(failure.value)


@pytest.mark.slow
def test_assets_hand_frames_to_each_other_through_postgres(io_manager: PostgresIOManager, database: str) -> None:
    @dg.asset
    def teams() -> pd.DataFrame:
        return pd.DataFrame({"name": ["alpha", "beta"], "size": [3, 4]})

    @dg.asset(metadata={"dagster/table_name": "public.squads"})
    def squads(teams: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(teams[teams["size"] > 3], preserve_index=False)

    assert dg.materialize([teams, squads], resources={"io_manager": PostgresIOManager()}).success
    assert stored(database, "public.squads") == [("beta", 4)]
