"""A server over TLS that gives the answers it is told to give, in order, and remembers what it was asked.

For single answers of the wire that no well-behaved server gives: resets, cut bodies, HTML, silence.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

import requests

from user_sync_pipeline.core.login_flows import ClientCredentials
from user_sync_pipeline.core.salesforce.budget import NO_BUDGET, ApiBudget
from user_sync_pipeline.core.salesforce.read_only import READING, AllowedRequest, ReadOnlyAdapter
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.sandbox.certificates import CertificateAuthority

LIMITS = "/services/data/v66.0/limits/"
SILENCE_SECONDS = 0.6


@dataclass(frozen=True)
class Answer:
    """One answer; `broken` says how it goes wrong on the way."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    broken: Literal["reset", "cut", "silence"] | None = None


def refused(status: int, code: str, message: str = "") -> Answer:
    return Answer(status, json.dumps([{"message": message, "errorCode": code}]).encode())


def answered(value: Any, **headers: str) -> Answer:
    return Answer(200, json.dumps(value).encode(), headers)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """Gives the answers of `script`, then `{}` to everything."""

    def __init__(self, authority: CertificateAuthority, *script: Answer) -> None:
        self.script = list(script)
        self.asked: list[Asked] = []
        self._authority = authority
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ssl.SSLError):
                    self.close_connection = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                server.asked.append(Asked(self.command, self.path, dict(self.headers), body))
                answer = server.script.pop(0) if server.script else Answer()
                if answer.broken == "silence":
                    time.sleep(SILENCE_SECONDS)
                if answer.broken == "reset":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json;charset=UTF-8", **answer.headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                cut = answer.broken == "cut"
                self.close_connection = self.close_connection or cut
                self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server_certificate, authority.server_key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_port}"

    def settings(self, **changes: Any) -> SalesforceSettings:
        """Settings of a client that trusts this server and, unless told otherwise, signs in with client credentials."""
        given = {"login_url": self.url, "login": ClientCredentials("client", "s3cret")}
        return SalesforceSettings(**{**given, "ca_bundle": str(self._authority.ca_file), **changes})

    def token(self, number: int = 1, **changes: Any) -> Answer:
        """The answer to a sign-in, with `token-<number>`."""
        identity = "https://login.salesforce.com/id/00D5g0000SimOrgEQE/0055g0000SimApiAQE"
        return answered({"access_token": f"token-{number}", "instance_url": self.url, "id": identity, **changes})

    def forget(self) -> None:
        """Drop the rest of the script and what was asked."""
        self.script, self.asked = [], []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Tokens:
    """A source that gives token-1, then token-2, and so on."""

    def __init__(self) -> None:
        self.number = 1

    def access_token(self) -> str:
        return f"token-{self.number}"

    def renew(self, rejected: str) -> None:
        assert rejected == self.access_token()
        self.number += 1


class Client:
    """A session on a scripted server, with pauses that are noted and not waited for."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.pauses: list[float] = []
        self.tokens = Tokens()
        self.usage = ApiUsage()

    def session(
        self,
        *,
        allowed: tuple[AllowedRequest, ...] = READING,
        retry: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        timeouts: tuple[float, float] = (60.0, 60.0),
        budget: ApiBudget = NO_BUDGET,
    ) -> SalesforceSession:
        policy = {"sleep": self.pauses.append, "random": lambda: 0.0, **(retry or {})}
        return SalesforceSession(
            self.server.settings(**(settings or {})),
            ReadOnlyAdapter(self.server.url, allowed, self.usage, budget),
            tokens=self.tokens,
            page_size=200,
            retry=RetryPolicy(**policy),
            timeouts=timeouts,
        )

    def get(self, path: str = LIMITS, **options: Any) -> requests.Response:
        with self.session(**options) as session:
            return session.get(self.server.url + path)

    def sent(self) -> list[str]:
        return [request.headers["Authorization"].removeprefix("Bearer ") for request in self.server.asked]
