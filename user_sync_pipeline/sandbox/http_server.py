"""One ASGI application behind TLS on this machine, in a thread of its own.

What belongs here: starting, stopping and the address. What does not: what the application answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.sandbox.certificates import CertificateAuthority

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_GRACE_SECONDS = 0.5
_KEEP_ALIVE_SECONDS = 75


class HttpServer:
    """Serves `app` at `https://localhost:PORT` between `start()` and `stop()`.

    With `port=0` the system chooses one at the first start, and a later start uses it again.
    `date_header=False` leaves the `Date` header to the application.
    """

    def __init__(
        self, app: ASGIApp, authority: CertificateAuthority, *, port: int = 0, date_header: bool = True
    ) -> None:
        self.port = port
        self._app = app
        self._authority = authority
        self._date_header = date_header
        self._server: _StoppableServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, without a trailing slash; known once the server has started."""
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Return when the server answers; raises `ConfigurationError` when the port is taken."""
        listener = self._listen()
        server = self._server = _StoppableServer(
            uvicorn.Config(
                _CutShort(self._app),
                ssl_certfile=self._authority.server_certificate,
                ssl_keyfile=self._authority.server_key,
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                date_header=self._date_header,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )
        self._thread = threading.Thread(target=server.serve_in_thread, args=(listener,), daemon=True)
        self._thread.start()
        server.ready.wait()
        if not server.started:
            self._thread.join()
            self._server = None
            raise RuntimeError("the application did not start; its own log says why")

    def stop(self) -> None:
        """End what is being answered after at most half a second, close every connection, free the port."""
        if self._server is not None and self._thread is not None:
            self._server.request_stop()
            self._thread.join()
        self._server = self._thread = None

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.port))
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"Port {self.port} of this machine cannot be used ({error.strerror}); choose another one."
            ) from error
        self.port = int(listener.getsockname()[1])
        return listener


class _StoppableServer(uvicorn.Server):
    """uvicorn with an event for "ready", and with a stop that waits neither for a tick nor for idle clients."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def serve_in_thread(self, listener: socket.socket) -> None:
        with listener:
            try:
                self.run(sockets=[listener])
            finally:
                self.ready.set()

    def request_stop(self) -> None:
        """Begin to stop; may be called from any thread while the server runs."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # renews the Date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE_SECONDS)
        # A polite close waits up to half a minute for a client that keeps its connection for later.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        while self.server_state.connections:
            await asyncio.sleep(0.001)
        unfinished = list(self.server_state.tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await self.lifespan.shutdown()


class _CutShort:
    """An application whose requests may be cancelled when the server stops, without a traceback in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._app(scope, receive, send)
