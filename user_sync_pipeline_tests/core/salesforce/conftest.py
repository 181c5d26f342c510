"""The scripted server and a database, one each for a whole test file, and what each test uses of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.conftest import FORGET_EVERYTHING, create_database, drop_database, role_url
from user_sync_pipeline_tests.core.in_process import answered_in_process
from user_sync_pipeline_tests.core.salesforce.scripted_server import Client, ScriptedServer
from user_sync_pipeline_tests.core.salesforce.whole_runs import FEW, MADE_AT, NOW, PAGE

_warehouses = itertools.count()


@pytest.fixture(scope="module")
def one_server(authority: CertificateAuthority) -> Iterator[ScriptedServer]:
    with ScriptedServer(authority) as server:
        yield server


@pytest.fixture
def server(one_server: ScriptedServer) -> ScriptedServer:
    """The server of this test file, with an empty script."""
    one_server.forget()
    return one_server


@pytest.fixture
def client(server: ScriptedServer) -> Client:
    return Client(server)


@pytest.fixture
def company(authority: CertificateAuthority) -> Iterator[SalesforceSimulator]:
    """A Salesforce with a few users that is asked without a socket, at a clock that stands still."""
    simulator = SalesforceSimulator(people(FEW, seed=7, until=MADE_AT), authority, port=443)
    simulator.clock.set(NOW)
    with answered_in_process(simulator.application):
        yield simulator


@pytest.fixture
def paged(company: SalesforceSimulator) -> SalesforceSimulator:
    """The company, whose users come in three pages."""
    company.org.largest_page = PAGE
    return company


@pytest.fixture(scope="module")
def one_warehouse(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Engine]:
    name = f"warehouse_{next(_warehouses)}"
    create_database(postgres_server, name, template=migrated_template, owner="postgres")
    engine = create_database_engine(role_url(postgres_server, name))
    yield engine
    engine.dispose()
    drop_database(postgres_server, name)


@pytest.fixture
def warehouse(one_warehouse: Engine) -> Engine:
    """The database of this test file, migrated, and empty."""
    with one_warehouse.begin() as connection:
        connection.execute(text(FORGET_EVERYTHING))
    return one_warehouse
