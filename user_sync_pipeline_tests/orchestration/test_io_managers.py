from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import dagster as dg
import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from user_sync_pipeline.core.warehouse.tables import Relation
from user_sync_pipeline.io_managers import PostgresIOManager
from user_sync_pipeline.partitions import daily_partitions
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import run_as_superuser

TEAMS = pa.table({"name": ["alpha", "beta"], "size": [3, 4]})


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a database with two tables of nobody's migrations."""
    run_as_superuser(postgres_server, "CREATE DATABASE io_manager")
    url = postgres_server.url("io_manager")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA user_sync")
        connection.execute("CREATE TABLE user_sync.teams (name text, size bigint)")
        connection.execute("CREATE TABLE public.squads (name text, size bigint)")
    yield url
    run_as_superuser(postgres_server, "DROP DATABASE io_manager WITH (FORCE)")


@pytest.fixture
def io_manager(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresIOManager]:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", database)
    with PostgresIOManager.from_resource_context_cm(dg.build_init_resource_context()) as io_manager:
        yield io_manager
    with psycopg.connect(database) as connection:
        connection.execute("TRUNCATE user_sync.teams, public.squads")


def stored(database: str, table: LiteralString = "user_sync.teams") -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(f"SELECT name, size FROM {table} ORDER BY name").fetchall()


def write(io_manager: PostgresIOManager, rows: Any, **output: Any) -> dict[str, Any]:
    """Store what an asset returned, and return the metadata of its materialization."""
    context = dg.build_output_context(**{"asset_key": dg.AssetKey("teams"), **output})
    io_manager.handle_output(context, rows)
    return {name: getattr(value, "value", value) for name, value in context.get_logged_metadata().items()}


def read(io_manager: PostgresIOManager, wanted: type[Any]) -> Any:
    upstream = dg.build_output_context(asset_key=dg.AssetKey("teams"))
    context = dg.build_input_context(
        name="teams",
        asset_key=dg.AssetKey("teams"),
        upstream_output=upstream,
        dagster_type=dg.PythonObjectDagsterType(wanted),
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


def test_rows_that_cannot_be_stored_leave_the_table_as_it_was(io_manager: PostgresIOManager, database: str) -> None:
    write(io_manager, TEAMS)
    with pytest.raises(Exception, match="bigint"):
        write(io_manager, pa.table({"name": ["gamma"], "size": ["many"]}))
    assert stored(database) == [("alpha", 3), ("beta", 4)]


def test_the_rows_of_one_day_never_replace_the_whole_table(io_manager: PostgresIOManager, database: str) -> None:
    write(io_manager, TEAMS)
    partitioned = {
        "asset_partitions_def": daily_partitions(pd.Timestamp("2026-01-01").date()),
        "asset_partition_key_range": dg.PartitionKeyRange("2026-01-02", "2026-01-03"),
    }
    with pytest.raises(dg.Failure, match="return a Relation"):
        write(io_manager, TEAMS.slice(0, 1), **partitioned)
    assert stored(database) == [("alpha", 3), ("beta", 4)]


def test_a_database_that_is_away_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/postgres")
    with (
        PostgresIOManager.from_resource_context_cm(dg.build_init_resource_context()) as io_manager,
        pytest.raises(dg.Failure, match="USER_SYNC_DATABASE_URL") as failure,
    ):
        write(io_manager, TEAMS)
    assert "secret" not in str(failure.value)


def test_assets_hand_frames_to_each_other_through_postgres(io_manager: PostgresIOManager, database: str) -> None:
    @dg.asset
    def teams() -> pd.DataFrame:
        return pd.DataFrame({"name": ["alpha", "beta"], "size": [3, 4]})

    @dg.asset(metadata={"dagster/table_name": "public.squads"})
    def squads(teams: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(teams[teams["size"] > 3], preserve_index=False)

    assert dg.materialize([teams, squads], resources={"io_manager": PostgresIOManager()}).success
    assert stored(database, "public.squads") == [("beta", 4)]
