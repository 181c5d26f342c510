"""The scripted server, one for a whole test file, and a client of it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline_tests.core.salesforce.scripted_server import Client, ScriptedServer


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
