"""After installation nothing of the network is needed but loopback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from user_sync_pipeline_tests.conftest import assert_only_read

pytestmark = pytest.mark.slow

# A network of its own, in which only loopback exists.
WITHOUT_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def _can_cut_the_network() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_cut_the_network(), reason="cutting the network needs root, unshare and ip")
def test_the_demo_needs_no_network_but_loopback(tmp_path: Path) -> None:
    user_sync = str(Path(sys.executable).parent / "user-sync")
    demo = subprocess.run(
        [*WITHOUT_NETWORK, user_sync, "demo", "--users", "40", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert demo.returncode == 0, demo.stderr
    assert_only_read(demo.stderr)
    assert json.loads(demo.stdout)["status"]["sync_percentage"] == 100
