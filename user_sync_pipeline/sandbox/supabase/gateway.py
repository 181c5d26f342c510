"""The gateway in front of the services: it lets nothing in without an API key of the project.

What belongs here: checking `apikey`, and turning an opaque key into a token that the services understand.
What does not: what a role may do; GoTrue and Postgres decide that. Every request comes through here, and no
service is reached another way.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from user_sync_pipeline.sandbox.supabase.keys import ApiKeys, bearer_token

_MISSING = ("No API key found in request", "No `apikey` request header or url param was found.")
_WRONG = ("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")
_DISABLED = (
    "Legacy API keys are disabled",
    "Your legacy API keys (anon, service_role) were disabled. Re-enable them in the Supabase dashboard, or use the new "
    "publishable and secret API keys.",
)
_IN_A_BROWSER = (
    "Forbidden use of secret API key in browser",
    "Secret API keys can only be used in a protected environment and should never be used in a browser.",
)


def gateway(
    keys: ApiKeys, *, auth: ASGIApp, rest: ASGIApp, takes_legacy_keys: bool = True, delay: float = 0
) -> Starlette:
    """Return the application that serves `/auth/v1` and `/rest/v1`; each answer takes `delay` seconds longer."""
    return Starlette(
        routes=[Mount("/auth/v1", app=auth), Mount("/rest/v1", app=rest)],
        middleware=[Middleware(_ApiKeyCheck, keys=keys, takes_legacy_keys=takes_legacy_keys, delay=delay)],
    )


class _ApiKeyCheck:
    def __init__(self, app: ASGIApp, keys: ApiKeys, *, takes_legacy_keys: bool, delay: float) -> None:
        self._app = app
        self._keys = keys
        self._takes_legacy_keys = takes_legacy_keys
        self._delay = delay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._delay:
            await asyncio.sleep(self._delay)
        headers = Headers(scope=scope)
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        key = headers.get("apikey") or dict(parameters).get("apikey")
        role = self._keys.role_of(key) if key else None
        if key is None or role is None:
            await _refusal(*(_MISSING if key is None else _WRONG))(scope, receive, send)
        elif not self._takes_legacy_keys and self._keys.is_legacy(key):
            await _refusal(*_DISABLED)(scope, receive, send)
        elif key == self._keys.secret_key and "Mozilla/" in headers.get("user-agent", ""):
            await _refusal(*_IN_A_BROWSER)(scope, receive, send)
        else:
            passed_on = dict(scope)
            if "apikey" not in headers:
                kept = [(name, value) for name, value in parameters if name != "apikey"]
                passed_on["query_string"] = urlencode(kept).encode("latin-1")
            if key.startswith("sb_") and bearer_token(headers.get("authorization")) in (None, key):
                changed = MutableHeaders(raw=list(scope["headers"]))
                changed["authorization"] = f"Bearer {self._keys.sign(role)}"
                passed_on["headers"] = changed.raw
            await self._app(passed_on, receive, send)


def _refusal(message: str, hint: str) -> JSONResponse:
    return JSONResponse({"message": message, "hint": hint}, 401)
