"""Certificates and the https server that both simulators stand on."""

from __future__ import annotations

import asyncio
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.http_server import HttpServer


async def greet(_: Request) -> PlainTextResponse:
    return PlainTextResponse("good day")


async def dawdle(_: Request) -> PlainTextResponse:
    await asyncio.sleep(120)
    return PlainTextResponse("at last")


APPLICATION = Starlette(routes=[Route("/", greet), Route("/dawdle", dawdle)])


@pytest.fixture
def server(authority: CertificateAuthority) -> Iterator[HttpServer]:
    server = HttpServer(APPLICATION, authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(authority: CertificateAuthority) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(authority.ca_file)
        yield session


def test_certificates_are_made_once_and_the_key_is_private(tmp_path: Path) -> None:
    first = CertificateAuthority(tmp_path / "certificates")
    made = first.ca_file.read_bytes(), first.server_certificate.read_bytes(), first.server_key.read_bytes()
    assert stat.S_IMODE(first.server_key.stat().st_mode) == 0o600

    again = CertificateAuthority(tmp_path / "certificates")
    assert (again.ca_file.read_bytes(), again.server_certificate.read_bytes(), again.server_key.read_bytes()) == made


def test_a_half_written_folder_of_certificates_is_made_anew(tmp_path: Path, client: requests.Session) -> None:
    CertificateAuthority(tmp_path).server_key.unlink()
    authority = CertificateAuthority(tmp_path)
    server = HttpServer(APPLICATION, authority)
    server.start()
    try:
        client.verify = str(authority.ca_file)
        assert client.get(server.url, timeout=60).text == "good day"
    finally:
        server.stop()


def test_it_is_reached_by_name_and_by_number_and_only_with_the_authority(
    server: HttpServer, client: requests.Session
) -> None:
    assert client.get(server.url, timeout=60).text == "good day"
    assert client.get(f"https://127.0.0.1:{server.port}", timeout=60).text == "good day"
    client.verify = True
    with pytest.raises(requests.exceptions.SSLError):
        client.get(f"{server.url}/", timeout=60)


def test_the_date_header_can_be_left_to_the_application(
    authority: CertificateAuthority, server: HttpServer, client: requests.Session
) -> None:
    dateless = HttpServer(APPLICATION, authority, date_header=False)
    dateless.start()
    try:
        assert "Date" not in client.get(dateless.url, timeout=60).headers
    finally:
        dateless.stop()
    assert "Server" not in client.get(server.url, timeout=60).headers


def test_a_taken_port_is_told_in_one_sentence(authority: CertificateAuthority, server: HttpServer) -> None:
    with pytest.raises(ConfigurationError, match=f"Port {server.port} .* choose another"):
        HttpServer(APPLICATION, authority, port=server.port).start()


def test_stopping_does_not_wait_for_an_idle_client_and_starting_again_keeps_the_address(
    server: HttpServer, client: requests.Session
) -> None:
    client.get(server.url, timeout=60)
    address, began = server.url, time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15  # a polite close takes up to thirty
    with pytest.raises(requests.exceptions.ConnectionError):
        client.get(address, timeout=60)
    server.start()
    assert server.url == address
    assert client.get(address, timeout=60).text == "good day"


@pytest.mark.slow
def test_stopping_cuts_off_a_request_that_takes_too_long(server: HttpServer, client: requests.Session) -> None:
    outcome: list[str] = []

    def ask() -> None:
        try:
            outcome.append(client.get(f"{server.url}/dawdle", timeout=100).text)
        except requests.exceptions.ConnectionError:
            outcome.append("cut off")

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    began = time.monotonic()
    server.stop()
    asking.join()
    assert time.monotonic() - began < 60
    assert outcome == ["cut off"]
