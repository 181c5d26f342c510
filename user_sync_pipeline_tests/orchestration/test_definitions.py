import os
import pkgutil
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

import user_sync_pipeline
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.definitions import build_definitions, defs
from user_sync_pipeline.resources import PostgresResource

CHECKOUT = Path(user_sync_pipeline.__path__[0]).parent

ASSETS = {"salesforce_users_raw", "sf_users", "profile_reconciliation"}
CHECKS = {
    ("salesforce_users_raw", "window_read_whole"),
    ("salesforce_users_raw", "salesforce_fields_unchanged"),
    ("salesforce_users_raw", "table_columns_unchanged"),
    ("salesforce_users_raw", "null_rates_steady"),
    ("salesforce_users_raw", "api_reserve_kept"),
    ("sf_users", "salesforce_count_matches"),
    ("sf_users", "watermark_is_recent"),
    ("sf_users", "no_rejected_records"),
    ("sf_users", "external_ids_unique"),
    ("profile_reconciliation", "sync_percentage"),
    ("profile_reconciliation", "no_orphan_profiles"),
    ("profile_reconciliation", "auth_trigger_installed"),
    ("profile_reconciliation", "leavers_cannot_sign_in"),
}


def module_names(*, under: str = "user_sync_pipeline") -> list[str]:
    walked = pkgutil.walk_packages(user_sync_pipeline.__path__, "user_sync_pipeline.")
    return [module.name for module in walked if module.name.startswith(under) and "__main__" not in module.name]


def run_fresh(program: str, **environment: str) -> str:
    """Run a program in a new interpreter, whose environment holds nothing but what is given."""
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_the_definitions_load_without_any_setting() -> None:
    dg.Definitions.validate_loadable(build_definitions())


def test_the_definitions_hold_the_three_assets_their_checks_and_the_jobs() -> None:
    definitions = build_definitions()
    materializable = definitions.resolve_asset_graph().materializable_asset_keys
    assert {key.to_user_string() for key in materializable} == ASSETS
    job = definitions.resolve_job_def("user_sync")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == ASSETS
    checks = {(key.asset_key.to_user_string(), key.name) for key in job.asset_layer.asset_graph.asset_check_keys}
    assert checks == CHECKS
    assert job.executor_def is dg.in_process_executor
    profiles = definitions.resolve_job_def("reconcile_profiles")
    assert {key.to_user_string() for key in profiles.asset_layer.executable_asset_keys} == {"profile_reconciliation"}


def test_what_asks_salesforce_and_what_changes_profiles_is_in_a_pool_of_its_own() -> None:
    job = build_definitions().resolve_job_def("user_sync")
    pools = {node.name: pool for node in job.nodes for pool in node.definition.pools}
    assert pools == {"salesforce_users_raw": "salesforce", "profile_reconciliation": "profiles"}


def test_every_asset_computes_a_range_in_one_run_and_says_which_version_of_it_did() -> None:
    graph = build_definitions().resolve_asset_graph()
    for asset in (graph.get(key) for key in graph.materializable_asset_keys):
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()
        assert asset.code_version


def test_every_check_tells_what_it_compares_and_one_that_blocks_why() -> None:
    graph = build_definitions().resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert all(spec.description for spec in specs)
    blocking = {spec.name for spec in specs if spec.blocking}
    assert blocking == {"table_columns_unchanged", "null_rates_steady"}
    assert blocking == {spec.name for spec in specs if "**Blocking**" in (spec.description or "")}


def test_every_check_stands_in_the_documents_under_its_asset_and_says_there_whether_it_blocks() -> None:
    asset, rows = "", {}
    for line in (CHECKOUT / "docs" / "checks.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0].startswith("**`"):
            asset = cells[0].strip("*`")
        elif cells and cells[0].startswith("`"):
            rows[(asset, cells[0].strip("`"))] = cells[4].startswith("**yes**")
    graph = build_definitions().resolve_asset_graph()
    assert rows == {
        (key.asset_key.to_user_string(), key.name): graph.get_check_spec(key).blocking for key in graph.asset_check_keys
    }


def test_an_asset_grows_stale_by_its_schedule() -> None:
    graph = build_definitions().resolve_asset_graph()
    windows = {
        key.to_user_string(): (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta())
        for key in graph.materializable_asset_keys
        if isinstance(policy := graph.get(key).freshness_policy, TimeWindowFreshnessPolicy) and policy.warn_window
    }
    by_night, by_hour = (timedelta(hours=26), timedelta(hours=50)), (timedelta(hours=3), timedelta(hours=26))
    assert windows == {
        "salesforce_users_raw": by_night,
        "sf_users": by_night,
        "profile_reconciliation": by_hour,
    }


def test_the_horizon_setting_moves_the_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_HORIZON", "2026-05-17")
    node = build_definitions().resolve_asset_graph().get(dg.AssetKey("sf_users"))
    assert node.partitions_def is not None
    assert node.partitions_def.get_first_partition_key() == "2026-05-17"


def test_a_wrong_horizon_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_SYNC_HORIZON", "last year")
    with pytest.raises(ConfigurationError, match="USER_SYNC_HORIZON"):
        defs()


def test_a_resource_can_be_replaced_by_name() -> None:
    class OwnPostgres(PostgresResource):
        pass

    resources = build_definitions(resources={"postgres": OwnPostgres()}).resources
    assert resources is not None
    assert isinstance(resources["postgres"], OwnPostgres)
    assert {"salesforce", "supabase", "io_manager"} <= set(resources)


def test_no_resource_shows_a_setting_in_the_ui() -> None:
    resources = build_definitions().resources
    assert resources is not None
    fields = {name: set(type(resource).model_fields) for name, resource in resources.items()}
    assert fields == {"salesforce": set(), "postgres": set(), "supabase": set(), "io_manager": {"default_schema"}}


def test_core_needs_no_dagster() -> None:
    names = module_names(under="user_sync_pipeline.core")
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.partition('.')[0].startswith('dagster')])"
    )
    assert run_fresh(program) == "[]"


@pytest.mark.slow
def test_importing_any_module_reads_no_setting() -> None:
    program = f"""
import importlib, os, sys
import click, dagster, requests, rich, simple_salesforce, sqlalchemy, starlette, uvicorn  # read what they like

names = {module_names()!r}
asked = []
class Recorded(dict):
    def __getitem__(self, key):
        asked.append(key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        asked.append(key)
        return super().get(key, default)
    def __contains__(self, key):
        asked.append(key)
        return super().__contains__(key)
os.environ = Recorded(os.environ)
for name in names:
    importlib.import_module(name)
print([key for key in asked if str(key).startswith(("SALESFORCE_", "SUPABASE_", "USER_SYNC_", "DAGSTER_HOME"))])
"""
    assert run_fresh(program) == "[]"


@pytest.mark.slow
def test_loading_the_definitions_leaves_the_heavy_libraries_alone() -> None:
    program = (
        "import sys\nfrom user_sync_pipeline.definitions import defs\ndefs()\n"
        "print([name for name in ('pandas', 'pyarrow', 'simple_salesforce', 'supabase') if name in sys.modules])"
    )
    assert run_fresh(program) == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "dagster definitions validate -m user_sync_pipeline.definitions",
        "dagster definitions validate -w workspace.yaml",
        "dg check defs",
        "dg list defs",
    ],
)
def test_every_way_of_loading_finds_the_definitions(command: str, tmp_path: Path) -> None:
    program, *arguments = command.split()
    finished = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DAGSTER_HOME": str(tmp_path)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.slow
def test_the_instance_settings_keep_the_history_in_postgres(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def anything() -> None:
        pass

    monkeypatch.setenv("DAGSTER_POSTGRES_URL", empty_database.replace("postgresql:", "postgresql+psycopg2:"))
    shutil.copy(CHECKOUT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dg.materialize([anything], instance=instance)
        assert instance.run_monitoring_enabled
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert pools.pool_granularity is not None
        assert pools.pool_granularity.value == "run"
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert not instance.telemetry_enabled
        assert instance.freshness_enabled, "by default, so that dagster.yaml need not say so"
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT run_id, status FROM runs").fetchall() == [(run.run_id, "SUCCESS")]
