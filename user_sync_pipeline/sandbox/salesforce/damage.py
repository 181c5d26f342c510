"""Doing to an answer what a fault says: other content, a body cut off or dripping, a connection that is lost.

What belongs here: bytes and connections. What does not: which requests are meant (`faults.py`).
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from user_sync_pipeline.sandbox.salesforce.answers import Answer
from user_sync_pipeline.sandbox.salesforce.errors import ApiError
from user_sync_pipeline.sandbox.salesforce.faults import Fault

_DRIPS = 20
_HTML = b"<html><head><title>Salesforce</title></head><body><h1>We are down for maintenance.</h1></body></html>"


def substitute(fault: Fault, *, for_sign_in: bool) -> Answer:
    """Return what a fault that replaces the answer puts in its place; a refused sign-in has a form of its own."""
    status = fault.status or (fault.usual.status if fault.error else 302 if fault.redirect else 200)
    headers = {"Location": fault.redirect} if fault.redirect else {}
    if fault.body == "html":
        return Answer(_HTML, status, headers | {"Content-Type": "text/html; charset=UTF-8"})
    if fault.error is None:
        return Answer((fault.text or "").encode(), status, headers)
    message = fault.usual.message if fault.message is None else fault.message
    body: object = ApiError(status, fault.error, message).body()
    if for_sign_in:
        body = {"error": fault.error, "error_description": message}
    return Answer(msgspec.json.encode(body), status, headers)


def shortened(body: bytes, fault: Fault) -> bytes:
    """Return half of a body that is to be cut before it is compressed."""
    return body[: len(body) // 2] if fault.body == "cut" else body


def with_changed_headers(headers: Mapping[str, str], fault: Fault) -> dict[str, str]:
    """Return the headers of an answer as a fault wants them."""
    changes = dict(fault.headers)
    if fault.content_type is not None:
        changes["Content-Type"] = fault.content_type
    changed = {name.lower() for name in changes}
    kept = {name: value for name, value in headers.items() if name.lower() not in changed}
    return kept | {name: value for name, value in changes.items() if value is not None}


class DamagedResponse(Response):
    """A response that reaches the client as a fault wants it, or does not."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str], fault: Fault) -> None:
        if fault.body == "cut_gzip":
            compressed = body if headers.get("Content-Encoding") == "gzip" else gzip.compress(body, 1)
            body, headers = compressed[: len(compressed) // 2], {**headers, "Content-Encoding": "gzip"}
        super().__init__(body, status, with_changed_headers(headers, fault))
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or as much of it as the fault lets through."""
        body, lost = bytes(self.body), self._fault.connection is not None
        if self._fault.leaves_no_answer:
            await _drop_connection(receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if lost:
            body = body[: len(body) // 2]
        pieces = _DRIPS if self._fault.drip and body else 1
        size = -(-len(body) // pieces)
        for piece in range(pieces):
            await asyncio.sleep(self._fault.drip / pieces)
            last = piece == pieces - 1 and not lost
            part = body[piece * size : (piece + 1) * size]
            await send({"type": "http.response.body", "body": part, "more_body": not last})
        if lost:
            await _drop_connection(receive, send)


async def _drop_connection(receive: Receive, send: Send) -> None:
    """Close the connection under the answer; ASGI has no word for it, so that this goes to the server's transport."""
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("this server's connections cannot be dropped")
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
