"""Requests answered by an ASGI application in this process, where a test cannot afford a socket for each of them.

What belongs here: the way from a prepared request to a response. Everything on both sides of the wire stays as it is,
but answers are not compressed, and a connection that the application drops is an error at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from starlette.types import ASGIApp, Message, Scope
from urllib3 import HTTPResponse


@contextmanager
def answered_in_process(application: ASGIApp) -> Iterator[None]:
    """Let `application` answer whatever any session of `requests` sends, one request at a time."""
    one_at_a_time = threading.Lock()

    def send(_: HTTPAdapter, request: PreparedRequest, *_args: object, **_options: object) -> Response:
        with one_at_a_time:
            return _Exchange(request).answer(application)

    with patch.object(HTTPAdapter, "send", send):
        yield


class _Exchange:
    """One request and its answer; stands for the server's connection as well, which an application may abort."""

    def __init__(self, request: PreparedRequest) -> None:
        self._request = request
        self._aborted = False
        self._response = Response()
        self._response.request = request
        self._response.url = request.url or ""
        self._body = bytearray()

    def answer(self, application: ASGIApp) -> Response:
        """Return the answer; raises `requests.ConnectionError` when the connection was aborted."""
        # Nothing is ever waited for, so that no event loop is needed.
        steps: Any = application(self._scope(), self.receive, self.send)
        with suppress(StopIteration):
            while True:
                steps.send(None)
        if self._aborted:
            raise requests.ConnectionError("the connection was aborted")
        self._response._content = bytes(self._body)
        self._response._content_consumed = True  # type: ignore[attr-defined]
        self._response.raw = HTTPResponse(BytesIO(self._response._content), preload_content=False)
        return self._response

    @property
    def transport(self) -> _Exchange:
        """What the server sends through."""
        return self

    def abort(self) -> None:
        """Lose the connection."""
        self._aborted = True

    async def receive(self) -> Message:
        if self._aborted:
            return {"type": "http.disconnect"}
        body = self._request.body or b""
        return {"type": "http.request", "body": body.encode() if isinstance(body, str) else body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._response.status_code = message["status"]
            self._response.headers.update({name.decode(): value.decode() for name, value in message["headers"]})
        else:
            self._body += message.get("body", b"")

    def _scope(self) -> Scope:
        url = urlsplit(self._request.url or "")
        headers = {name.lower(): value for name, value in self._request.headers.items()}
        headers.pop("accept-encoding", None)
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": [
                (name.encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in headers.items()
            ],
            "server": (url.hostname, url.port or 443),
            "client": ("localhost", 0),
        }
