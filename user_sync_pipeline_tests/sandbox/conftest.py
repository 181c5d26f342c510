"""A Salesforce organisation of its own for each test of this folder, and a client that is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.sandbox.salesforce_client import NOW, UNTIL, USERS, Client


@pytest.fixture
def simulator(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    with SalesforceSimulator(people(USERS, seed=3, until=UNTIL), authority, seed=3) as simulator:
        simulator.clock.set(NOW)
        yield simulator


@pytest.fixture
def client(simulator: SalesforceSimulator) -> Iterator[Client]:
    with closing(Client(simulator)) as client:
        client.carry_token()
        yield client
