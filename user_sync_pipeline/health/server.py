"""Serving the endpoints: where to listen, who must not be served without a token, and a quick, silent end.

What belongs here: sockets, uvicorn and its settings. What does not: what is answered (`app.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from user_sync_pipeline.core.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_SECONDS_TO_FINISH = 1


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """Return a socket that listens; raises `UsageError` for an address that cannot be used.

    Raises `ConfigurationError` where others than this machine could reach it and there is no token.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UsageError(f"--host is {host!r}, which is no address of this machine ({error.strerror}).") from None
    if token is None and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigurationError(
            f"--host is {host!r}, which other machines can reach; set USER_SYNC_ADMIN_TOKEN to a secret that they "
            "must give, or serve 127.0.0.1."
        )
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(f"--port is {port}, which cannot be used on {host} ({error.strerror}).") from None
    return listener


def serve(app: ASGIApp, listener: socket.socket, *, root_path: str = "", started: Callable[[], None]) -> None:
    """Serve until INT or TERM, which is raised again at the end; call `started` when requests are answered."""
    config = uvicorn.Config(
        _CutShort(app),
        root_path=root_path,
        log_config=None,
        log_level="critical",  # an address may hold what somebody typed by mistake
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    _Server(config, started).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


class _CutShort:
    """An application whose requests may be cancelled when the server stops, without a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await self._app(scope, receive, send)
