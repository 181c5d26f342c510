"""The endpoints: who may ask what, and the form of every answer, errors included.

What belongs here: routes, the bearer token, status codes. What does not: examinations, and the server (`server.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from dataclasses import dataclass
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from user_sync_pipeline.health.metrics import exposition
from user_sync_pipeline.health.shared_answer import Aged, SharedAnswer

_log = logging.getLogger(__name__)

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
_NOT_TO_BE_KEPT = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What all endpoints answer from."""

    database: SharedAnswer
    users: SharedAnswer
    dashboard: SharedAnswer


def build_app(answers: Answers, *, token: str | None) -> Starlette:
    """Return the application.

    Without a `token`, users are told of to those who ask directly, which is for a server on loopback only.
    """

    async def health(_: Request) -> Response:
        report, _age = await answers.database.get()
        return JSONResponse(report.as_json(), 200 if report.is_healthy else 503, _NOT_TO_BE_KEPT)

    async def users(request: Request) -> Response:
        if not _may_see_users(request, token):
            return _error(401, {"WWW-Authenticate": 'Bearer realm="user-sync"'})
        return _told(await answers.users.get())

    async def dashboard(_: Request) -> Response:
        return _told(await answers.dashboard.get())

    async def metrics(request: Request) -> Response:
        asked = [answers.database.get(), answers.dashboard.get()]
        if _may_see_users(request, token):
            asked.append(answers.users.get())
        database, dagster, *known = [report for report, _age in await asyncio.gather(*asked)]
        body, media_type = exposition(database, dagster, known[0] if known else None, request.headers.get("accept", ""))
        return Response(body, headers={**_NOT_TO_BE_KEPT, "Content-Type": media_type})

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/admin/users/health-check", users),
            Route("/dashboard/health-check", dashboard),
            Route("/metrics", metrics),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return app


def _told(answer: Aged) -> JSONResponse:
    report, age = answer
    content = {**report.as_json(), "age_seconds": round(age, 1)}
    return JSONResponse(content, 200 if report.is_healthy else 503, _NOT_TO_BE_KEPT)


def _may_see_users(request: HTTPConnection, token: str | None) -> bool:
    """Compare the token without telling by time how much of it is right."""
    if token is None:
        # A proxy on this machine would bring strangers to a server that only this machine was to reach.
        return not any(name in request.headers for name in _FORWARDED)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(_digest(given.strip()), _digest(token))
    return same and scheme.lower() == "bearer"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


_WORDS = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 500: "internal_error"}


def _error(status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": _WORDS.get(status, "refused")}, status, {**_NOT_TO_BE_KEPT, **(headers or {})})


def _refused(_: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    return _error(refusal.status_code, dict(refusal.headers or {}))


def _failed(_: Request, error: Exception) -> Response:
    _log.error("a request failed with %s", type(error).__qualname__)
    return _error(500)
