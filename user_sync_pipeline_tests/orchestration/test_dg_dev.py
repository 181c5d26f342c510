"""`dg dev`, Dagster's own way to open a project from its checkout."""

import os
import sys
import time
from pathlib import Path

import pytest
import requests

import user_sync_pipeline
from user_sync_pipeline_tests.orchestration.live_dagster import SECONDS_TO_START, answers, free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS_TO_START + 120)]

CHECKOUT = Path(user_sync_pipeline.__path__[0]).parent
PROGRAMS = Path(sys.executable).parent


def test_dg_dev_opens_the_pipeline_from_its_checkout(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "dg.log"
    url = f"http://127.0.0.1:{port}"
    environment = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "DAGSTER_HOME": str(tmp_path), "HOME": str(tmp_path)}
    deadline = time.monotonic() + SECONDS_TO_START
    with running([str(PROGRAMS / "dg"), "dev", "--port", str(port)], environment, CHECKOUT, log) as process:
        while not answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        query = "{repositoriesOrError {... on RepositoryConnection {nodes {jobs {name}}}}}"
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"{url}/graphql", json={"query": query}, timeout=120).json()
    [repository] = answer["data"]["repositoriesOrError"]["nodes"]
    assert {"user_sync", "reconcile_profiles"} <= {job["name"] for job in repository["jobs"]}
