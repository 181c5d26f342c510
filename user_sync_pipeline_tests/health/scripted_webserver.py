"""A webserver that answers every GraphQL question as it is told to."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from user_sync_pipeline.health.dagster import ASSETS


class ScriptedWebserver:
    """Answers every GraphQL question with `answer`, after `delay` seconds; `asked` counts them."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = healthy_answer(time.time())
        self.delay = threading.Event()
        self.delay.set()
        self.asked = 0
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                scripted.asked += 1
                scripted.delay.wait(60)
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps(scripted.answer).encode()
                self.send_response(scripted.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked may have been stopped meanwhile
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.delay.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def healthy_answer(now: float, *, age: float = 60.0) -> dict[str, Any]:
    materialization = {"timestamp": str(int((now - age) * 1000))}
    return {
        "data": {
            "instance": {
                "daemonHealth": {
                    "allDaemonStatuses": [
                        {"required": True, "healthy": True},
                        {"required": False, "healthy": None},
                    ]
                }
            },
            "assetNodes": [
                {"assetKey": {"path": [name]}, "assetMaterializations": [materialization]} for name in ASSETS
            ],
        }
    }
