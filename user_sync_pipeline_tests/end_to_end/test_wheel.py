"""The built wheel, installed apart from this checkout, must do what the checkout does."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from user_sync_pipeline_tests.conftest import assert_only_read

CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(CHECKOUT)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; the packages that it depends on are lent, so that no network is needed."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([str(python), "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    (Path(own) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_carries_the_sql_and_the_instance_settings(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (CHECKOUT / "sql").rglob("*.sql"):
        assert f"user_sync_pipeline/{path.relative_to(CHECKOUT)}" in names
    assert "user_sync_pipeline/dagster.yaml" in names


def test_the_demo_runs_from_the_wheel_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = "import user_sync_pipeline; print(user_sync_pipeline.__file__)"
    python = str(environment / "bin" / "python")
    found = subprocess.run([python, "-c", where], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert found.stdout.startswith(str(environment)), found.stdout + found.stderr

    command = [str(environment / "bin" / "user-sync"), "demo", "--users", "40", "--json"]
    demo = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert demo.returncode == 0, demo.stderr
    assert_only_read(demo.stderr)
    assert json.loads(demo.stdout)["sync_users"]["inserted"] == 40
    assert list(tmp_path.iterdir()) == []
