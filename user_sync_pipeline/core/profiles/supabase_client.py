"""The few requests of the Supabase door, each checked on the way out and on the way back.

What belongs here: the key, the HTTP connection, and what an answer that is none means to a person.
What does not: which requests are made in which order (`supabase_directory.py`).

Redirects are not followed: they would carry the key to another host and turn a write into a read. Nobody ever signs
in on this client, because a session would take the place of the key. No error repeats what the server said, which
may hold addresses of people.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError, UserSyncError
from user_sync_pipeline.core.profiles.directory import RowsRefusedError, is_about_rows

if TYPE_CHECKING:
    from postgrest.exceptions import APIError

_TIMEOUT = httpx.Timeout(60, connect=10)
# Statuses that pass by themselves, and the seconds to wait before each further attempt. Every request made here
# may be repeated: reads, and creations that leave existing rows alone.
_PASSING = frozenset({429, 502, 503, 504, 520, 521, 522, 523, 524})
_PAUSES = (0.5, 2.0)

_SECRET_KEY = re.compile(r"sb_secret_[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CONSTRAINT = re.compile(r'constraint "([^"]+)"')
_COLUMN = re.compile(r'column "([^"]+)"')

Answer = TypeVar("Answer")


class AdminUser(msgspec.Struct, frozen=True, gc=False):
    """A user as the admin API lists it; e-mail and phone are empty where there is none."""

    id: UUID
    aud: str = ""
    email: str = ""
    phone: str = ""
    email_confirmed_at: datetime | None = None
    banned_until: datetime | None = None
    deleted_at: datetime | None = None
    user_metadata: Any = None

    @property
    def is_in_scope(self) -> bool:
        """Whether the user counts: of audience `authenticated` and not soft-deleted."""
        return self.aud == "authenticated" and self.deleted_at is None


class AdminPage(msgspec.Struct, frozen=True):
    """One page of users; `total` is what the server says there are in all, None when it says nothing."""

    users: tuple[AdminUser, ...] = ()
    total: int | None = None


class SupabaseClient:
    """A project's HTTP services with the rights of its service key. Close it after use.

    Every method raises `ConfigurationError` for a refused key, a missing right or table, and `UnreachableError`
    for no answer or an error that passes by itself.
    """

    def __init__(self, url: str, service_role_key: str, *, ca_bundle: str | None = None) -> None:
        import supabase

        check_service_key(service_role_key, url, now=time.time())
        # At level INFO httpx logs every address, with user ids and filters in it.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._auth_url = f"{url}/auth/v1"
        self._auth_headers = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
        self._last_status = 0
        self._http = httpx.Client(
            transport=_PatientTransport(verify=_trust(ca_bundle), trust_env=False),
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            event_hooks={"response": [self._look_at]},
        )
        options = supabase.ClientOptions(
            httpx_client=self._http,
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,
        )
        self._client = supabase.create_client(url, service_role_key, options=options)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, function: str, arguments: dict[str, Any], answer: type[Answer]) -> Answer:
        """Return what a function in `public` answers, as an `answer`.

        Raises `LookupError` when there is no such function.
        """
        what = f"function {function}"
        value = self._ask(what, lambda: self._client.rpc(function, arguments).execute().data)
        if isinstance(value, str):  # a page of some other server comes back as its text
            raise _not_supabase(what)
        try:
            return msgspec.convert(value, answer)
        except msgspec.ValidationError:
            raise ConfigurationError(
                f"The function {function} at SUPABASE_URL is of another version; apply the migrations to its database."
            ) from None

    def list_users(self, page: int, per_page: int) -> AdminPage:
        """Return a page of users, oldest first, counted from 1; beyond the end it is empty.

        The client's own `list_users` can neither sort nor tell the total, and one odd user costs it the page.
        """
        parameters: dict[str, str | int] = {"page": page, "per_page": per_page, "sort": "created_at asc"}
        url = f"{self._auth_url}/admin/users"
        response = self._ask("users", lambda: self._http.get(url, params=parameters, headers=self._auth_headers))
        if response.status_code == 500:
            raise ConfigurationError(
                f"SUPABASE_URL cannot list users {(page - 1) * per_page + 1} to {page * per_page}, most likely because "
                "of a row in auth.users that was made by hand; set SUPABASE_DB_URL, which reads it all the same."
            )
        if not response.is_success:
            raise _refusal("users", response.status_code, None)
        try:
            answer = msgspec.json.decode(response.content, type=AdminPage)
        except msgspec.MsgspecError:
            raise _not_supabase("users") from None
        total = response.headers.get("X-Total-Count", "")
        return AdminPage(answer.users, int(total) if total.isascii() and total.isdigit() else None)

    def profile_ids(self, after: UUID | None, limit: int) -> list[UUID]:
        """Return the next ids of profiles, in order; the server may give fewer than `limit`."""
        query = self._client.table("user_profiles").select("id").order("id").limit(limit)
        rows = self._rows(query if after is None else query.gt("id", str(after)))
        return [UUID(row["id"]) for row in rows]

    def count_profiles(self) -> int | None:
        """Return how many profiles there are; None when the server does not say."""
        from postgrest.types import CountMethod

        query = self._client.table("user_profiles").select("id", count=CountMethod.exact).limit(1)
        return self._ask("profiles", lambda: query.execute().count)

    def insert_profiles(self, rows: Sequence[dict[str, Any]]) -> int:
        """Insert the profiles whose id is not there yet, all or none; returns how many those were.

        Raises `RowsRefusedError` when a row cannot be stored.
        """
        table = self._client.table("user_profiles")
        return len(self._rows(table.upsert(list(rows), on_conflict="id", ignore_duplicates=True).select("id")))

    def _rows(self, query: Any) -> list[Any]:
        rows = self._ask("profiles", lambda: query.execute().data)
        if not isinstance(rows, list):
            raise _not_supabase("profiles")
        return rows

    def _ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        from postgrest.exceptions import APIError

        try:
            return request()
        except APIError as error:
            raise _explain(error, what, self._last_status) from None
        except httpx.TimeoutException:
            raise UnreachableError(f"SUPABASE_URL does not answer in time, asked for {what}; run again.") from None
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ConfigurationError(
                    "The certificate of SUPABASE_URL is not trusted; set SUPABASE_CA_BUNDLE to its issuer's PEM file."
                ) from None
            raise UnreachableError(
                f"SUPABASE_URL cannot be reached, asked for {what}; check the address and the network."
            ) from None

    def _look_at(self, response: httpx.Response) -> None:
        self._last_status = response.status_code
        if response.is_redirect:
            raise ConfigurationError("SUPABASE_URL answers with a redirect; give the address that it leads to.")


class _PatientTransport(httpx.HTTPTransport):
    """Asks again after a pause where a failure passes by itself; a server that is not there is not asked twice."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for pause in _PAUSES:
            with suppress(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                response = super().handle_request(request)
                if response.status_code not in _PASSING:
                    return response
                response.close()
            time.sleep(pause)
        return super().handle_request(request)


def check_service_key(key: str, url: str, *, now: float) -> None:
    """Raise `ConfigurationError` unless `key` is a secret key, or a service_role token that is still valid.

    `now` is in seconds since 1970. The key itself is never repeated.
    """
    if _SECRET_KEY.fullmatch(key):
        return
    mend = "put the project's secret key (sb_secret_…) there."
    if key.startswith("sb_publishable_"):
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY holds a publishable key, which may not read users; {mend}")
    claims = _claims(key)
    if claims is None:
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY is no key of Supabase; {mend}")
    if claims.get("role") != "service_role":
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY holds a key of another role than service_role; {mend}")
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires <= now:
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY has expired; {mend}")
    host, project = urlsplit(url).hostname or "", claims.get("ref")
    if project and host.endswith(".supabase.co") and host != f"{project}.supabase.co":
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY belongs to another project than SUPABASE_URL; {mend}")


def _claims(key: str) -> dict[str, Any] | None:
    """Return what a token says about itself; None for anything else. The signature is the server's business."""
    if not _TOKEN.fullmatch(key):
        return None
    payload = key.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def _trust(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (ssl.SSLError, OSError):
        raise ConfigurationError(
            "SUPABASE_CA_BUNDLE names a file that holds no certificate; give the path of a PEM file."
        ) from None


def _explain(error: APIError, what: str, status: int) -> Exception:
    """Say what an error of the Data API means; its message serves only to find names of the schema in it."""
    code = error.code
    if code == "PGRST202":
        return LookupError(code)
    if code is not None and is_about_rows(code) and 400 <= status < 500:
        constraint, column = _CONSTRAINT.search(error.message or ""), _COLUMN.search(error.message or "")
        return RowsRefusedError(
            code,
            constraint=constraint.group(1) if constraint else None,
            column=column.group(1) if column else None,
        )
    return _refusal(what, status, code)


def _refusal(what: str, status: int, code: str | None) -> UserSyncError:
    if code == "PGRST205":
        return ConfigurationError(
            "The project at SUPABASE_URL has no public.user_profiles; apply the migrations to its database, "
            "or wait a minute if that was just done."
        )
    if code == "42501":
        return ConfigurationError(
            f"SUPABASE_SERVICE_ROLE_KEY may not use {what}; apply the migrations to the database, they grant it."
        )
    if status in (401, 403):
        return ConfigurationError(
            "SUPABASE_SERVICE_ROLE_KEY is refused; put the secret key of the project at SUPABASE_URL there."
        )
    if status in (404, 406):
        return _not_supabase(what)
    detail = f"HTTP {status}, code {code}" if code else f"HTTP {status}"
    return UnreachableError(f"SUPABASE_URL answers with an error, asked for {what} ({detail}); run again later.")


def _not_supabase(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"SUPABASE_URL does not answer as a Supabase project does, asked for {what}; correct the address."
    )
