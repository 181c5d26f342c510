"""The Salesforce organisation of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from user_sync_pipeline.core.salesforce import bulk_results
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.core.bulk.harness import BULK_PAGE, MADE_AT, MANY, NOW


@pytest.fixture
def org(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A Salesforce that puts its users into five Bulk pages, at a clock that stands still."""
    with SalesforceSimulator(people(MANY, seed=3, until=MADE_AT), authority) as simulator:
        simulator.clock.set(NOW)
        simulator.org.jobs.settings.page_rows = BULK_PAGE
        yield simulator
    assert simulator.journal.violations == []


@pytest.fixture
def in_turn(org: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are not listed, as in versions before 58.0; so each has to tell where the next one begins."""
    monkeypatch.setattr(bulk_results, "PAGE_RECORDS", BULK_PAGE)
    org.faults.add(Fault(on="result", path="*/resultPages", status=404))
