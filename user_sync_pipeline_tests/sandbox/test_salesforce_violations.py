"""A request that goes beyond reading fails the test in which it was sent, and is told of by the program that got it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.conftest import assert_only_read
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, Client

CHECKOUT = Path(__file__).parents[2]
A_WRITE = f"{DATA}/sobjects/User/0055g0000010wBVAAY"
THREE_TESTS = f"""
import pytest, requests

def write(salesforce):
    requests.patch(salesforce.url + "{A_WRITE}", verify=salesforce.environment()["SALESFORCE_CA_BUNDLE"], json={{}})

def test_that_writes(salesforce):
    write(salesforce)

def test_that_writes_on_purpose(salesforce, violations):
    write(salesforce)
    violations.clear()

def test_that_reads(salesforce):
    requests.get(salesforce.url + "/services/data/", verify=salesforce.environment()["SALESFORCE_CA_BUNDLE"])
"""


@pytest.mark.slow
def test_a_test_whose_client_writes_fails_unless_it_means_to(tmp_path: Path) -> None:
    (tmp_path / "test_writing.py").write_text(THREE_TESTS)
    options = ["-q", "-p", "user_sync_pipeline_tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert "3 passed, 1 error" in ran.stdout, ran.stdout
    assert "ERROR at teardown of test_that_writes _" in ran.stdout
    assert f"goes beyond reading: PATCH {A_WRITE}" in ran.stdout


@pytest.mark.parametrize(
    "soql",
    [
        "SELECT Id FROM User FOR VIEW",
        "select Id from User for  reference",
        "SELECT Id FROM User LIMIT 1 FOR\nUPDATE",
        "SELECT Id FROM User WHERE Name = 'x' UPDATE TRACKING",
    ],
)
def test_a_query_that_leaves_a_trace_is_a_violation(
    simulator: SalesforceSimulator, client: Client, violations: list[str], soql: str
) -> None:
    assert client.get(f"{DATA}/query", q=soql).status_code == 400
    assert [each.query for each in simulator.journal.violations] == [f"q={soql}"]
    assert len(violations) == 1
    violations.clear()


def test_words_inside_of_a_string_leave_no_trace(simulator: SalesforceSimulator, client: Client) -> None:
    client.query(r"SELECT Id FROM User WHERE Name = 'it\'s for view' OR Title = 'update tracking'")
    assert simulator.journal.violations == []


@pytest.mark.slow
def test_a_program_tells_of_a_violation_on_its_standard_error(authority: CertificateAuthority) -> None:
    """As `user-sync sandbox`, `demo` and `dev` do, for which the tests look."""
    program = f"""
import sys, requests
from pathlib import Path
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator

with SalesforceSimulator(1, CertificateAuthority(Path(sys.argv[1]))) as simulator:
    for method in sys.argv[2:]:
        requests.request(method, simulator.url + "{A_WRITE}", verify=simulator.environment()["SALESFORCE_CA_BUNDLE"])
"""
    folder = str(authority.ca_file.parent)
    command = [sys.executable, "-c", program, folder, "DELETE"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    with pytest.raises(AssertionError, match=f"DELETE {A_WRITE}"):
        assert_only_read(told)
    assert told.count("\n") == 1
    assert_only_read("Postgres, Salesforce and Supabase started")
