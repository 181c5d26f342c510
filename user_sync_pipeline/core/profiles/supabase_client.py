"""The few requests of the Supabase door, each checked on the way out and on the way back.

What belongs here: the HTTP connection and the requests. What does not: which of them are made in which order
(`supabase_directory.py`, `supabase_census.py`), the key (`supabase_keys.py`) and what an answer that is none means
to a person (`supabase_errors.py`).

Redirects are not followed: they would carry the key to another host and turn a write into a read. Nobody ever signs
in on this client, because a session would take the place of the key.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import httpx
import msgspec

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.profiles.supabase_errors import (
    PageBrokenError,
    UnknownColumnError,
    explain,
    not_supabase,
    refusal,
)
from user_sync_pipeline.core.profiles.supabase_keys import check_service_key

_TIMEOUT = httpx.Timeout(60, connect=10)
# Statuses that pass by themselves, and the seconds to wait before each further attempt. Every request made here
# may be repeated: reads, and creations that leave existing rows alone.
_PASSING = frozenset({429, 502, 503, 504, 520, 521, 522, 523, 524})
_PAUSES = (0.5, 2.0)
_LONGEST_PAUSE = 30.0
# Far behind the last user there is; such a page is empty, and so answers with the total whoever the users are.
_BEHIND_ALL = 10**9

COUNTED_COLUMNS = "id,created_at"
ALL_COLUMNS = "id,created_at,email,phone,updated_at,role"

Answer = TypeVar("Answer")


class AdminUser(msgspec.Struct, frozen=True, gc=False):
    """A user as the admin API lists it; e-mail and phone are empty or None where there is none."""

    id: UUID
    created_at: datetime
    aud: str = ""
    email: str | None = None
    phone: str | None = None
    email_confirmed_at: datetime | None = None
    phone_confirmed_at: datetime | None = None
    banned_until: datetime | None = None
    deleted_at: datetime | None = None
    is_anonymous: bool = False
    user_metadata: Any = None

    @property
    def is_in_scope(self) -> bool:
        """Whether the user counts: of audience `authenticated` and not soft-deleted."""
        return self.aud == "authenticated" and self.deleted_at is None


class AdminPage(NamedTuple):
    """One page of users; None stands in the place of one that nobody can read."""

    users: tuple[AdminUser | None, ...]


class Profile(NamedTuple):
    """A profile: what counting needs, and what a refresh compares where that was asked for too."""

    id: UUID
    created_at: str
    email: str | None = None
    phone: str | None = None
    updated_at: str | None = None
    role: str | None = None


class _ListedUsers(msgspec.Struct):
    users: list[msgspec.Raw] | None


class _Somebody(msgspec.Struct):
    id: UUID


class SupabaseClient:
    """A project's HTTP services with the rights of its service key. Close it after use.

    Every method raises `ConfigurationError` for a refused key, a missing right or table, and `UnreachableError`
    for no answer or an error that passes by itself.
    """

    def __init__(self, url: str, service_role_key: str, *, ca_bundle: str | None = None) -> None:
        import supabase

        self._key = check_service_key(service_role_key, url, now=time.time())
        # At level INFO httpx logs every address, with user ids and filters in it.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._auth_url = f"{url}/auth/v1"
        self._auth_headers = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
        self._last_status = 0
        self._transport = _PatientTransport(verify=_trust(ca_bundle), trust_env=False)
        self._http = httpx.Client(
            transport=self._transport,
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
            raise not_supabase(what)
        try:
            return msgspec.convert(value, answer)
        except msgspec.ValidationError:
            raise ConfigurationError(
                f"The function {function} at SUPABASE_URL is of another version; apply the migrations to its database."
            ) from None

    def list_users(self, page: int, per_page: int, *, oldest_first: bool = True) -> AdminPage:
        """Return a page of users by their creation, counted from 1; beyond the end it is empty.

        Raises `PageBrokenError` where the server cannot make the page, as it cannot with one odd user on it. The
        client's own `list_users` can neither sort nor tell the total, and cannot read some users itself.
        """
        order = "asc" if oldest_first else "desc"
        response = self._get_users({"page": page, "per_page": per_page, "sort": f"created_at {order}"})
        if response.status_code == 500:
            raise PageBrokenError
        try:
            listed = msgspec.json.decode(response.content, type=_ListedUsers).users or []
        except msgspec.MsgspecError:
            raise not_supabase("users") from None
        users = tuple(map(_read_user, listed))
        if listed and not any(users) and not _is_somebody(listed[0]):
            raise not_supabase("users")
        return AdminPage(users)

    def count_users(self) -> int | None:
        """Return how many users the admin API has at this moment, soft-deleted ones included; None when not told."""
        response = self._get_users({"page": _BEHIND_ALL, "per_page": 1})
        if response.status_code == 500:
            raise refusal("users", response.status_code, None, self._key)
        total = response.headers.get("X-Total-Count", "")
        return int(total) if total.isascii() and total.isdigit() else None

    def find_user(self, user_id: UUID) -> AdminUser | None:
        """Return one user, None when there is none. Raises `PageBrokenError` for one that the server cannot read."""
        response = self._get_users({}, f"/{user_id}")
        if response.status_code == 404 and b"user_not_found" in response.content:
            return None
        user = _read_user(response.content) if response.is_success else None
        if user is None:
            raise PageBrokenError
        return user

    def profiles(self, after: UUID | None, limit: int, *, columns: str = COUNTED_COLUMNS) -> list[Profile]:
        """Return the next profiles by id; the server may give fewer than `limit`."""
        query = self._profiles.select(columns).order("id").limit(limit)
        return self._read_profiles(query if after is None else query.gt("id", str(after)))

    def find_profiles(self, user_ids: Iterable[UUID]) -> dict[UUID, Profile]:
        """Return which of these users have a profile; at most a hundred, or the address of the request is too long."""
        query = self._profiles.select(ALL_COLUMNS).in_("id", list(map(str, user_ids)))
        return {profile.id: profile for profile in self._read_profiles(query)}

    def count_profiles(self, run_id: UUID | None = None) -> int | None:
        """Return how many profiles there are at this moment, or bear `run_id`; None when the server does not say."""
        from postgrest.types import CountMethod

        query = self._profiles.select("id", count=CountMethod.exact).limit(1)
        if run_id is not None:
            query = query.eq("sync_run_id", str(run_id))
        count: int | None = self._ask("profiles", lambda: query.execute().count)
        return count

    def has_run_column(self) -> bool:
        """Tell whether a profile can bear the id of the run that made it."""
        try:
            self._rows(self._profiles.select("sync_run_id").limit(1))
        except UnknownColumnError:
            return False
        return True

    def insert_profiles(self, rows: Sequence[dict[str, Any]]) -> int:
        """Insert the profiles whose id is not there yet, all or none; returns how many those were.

        Raises `RowsRefusedError` when a row cannot be stored.
        """
        return len(self._rows(self._profiles.upsert(list(rows), on_conflict="id", ignore_duplicates=True).select("id")))

    def change_profile(self, profile: Profile, changes: dict[str, str | None]) -> bool:
        """Change a profile, unless somebody else changed its e-mail or phone first; tells whether that was done.

        Raises `RowsRefusedError` when the change cannot be stored.
        """
        query = self._profiles.update(changes).eq("id", str(profile.id))
        for column, value in (("email", profile.email), ("phone", profile.phone)):
            query = query.is_(column, None) if value is None else query.eq(column, value)
        return bool(self._rows(query.select("id")))

    @property
    def repeated_requests(self) -> int:
        """How many requests were made again so far, of which the first may have done its work unheard."""
        return self._transport.repeated

    @property
    def _profiles(self) -> Any:
        return self._client.table("user_profiles")

    def _read_profiles(self, query: Any) -> list[Profile]:
        return [Profile(**{**row, "id": UUID(row["id"])}) for row in self._rows(query)]

    def _get_users(self, parameters: dict[str, str | int], path: str = "") -> httpx.Response:
        """Ask the admin API; an answer of status 500, or of 404 for a single user, is left to the caller."""
        url = f"{self._auth_url}/admin/users{path}"
        response = self._ask("users", lambda: self._http.get(url, params=parameters, headers=self._auth_headers))
        if not response.is_success and response.status_code not in ((500, 404) if path else (500,)):
            raise refusal("users", response.status_code, None, self._key)
        return response

    def _rows(self, query: Any) -> list[Any]:
        rows = self._ask("profiles", lambda: query.execute().data)
        if not isinstance(rows, list):
            raise not_supabase("profiles")
        return rows

    def _ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        from postgrest.exceptions import APIError

        try:
            return request()
        except APIError as error:
            raise explain(error, what, self._last_status, self._key) from None
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

    repeated = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for pause in _PAUSES:
            with suppress(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                response = super().handle_request(request)
                if response.status_code not in _PASSING:
                    return response
                response.close()
                pause = max(pause, _asked_pause(response))
            time.sleep(pause)
            self.repeated += 1
        return super().handle_request(request)


def _asked_pause(response: httpx.Response) -> float:
    """Return the seconds that the server asks to be left alone, as far as a person would wait for it."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isascii() and asked.isdigit() else 0


def _trust(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (ssl.SSLError, OSError):
        raise ConfigurationError(
            "SUPABASE_CA_BUNDLE names a file that holds no certificate; give the path of a PEM file."
        ) from None


def _is_somebody(content: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(content, type=_Somebody)
    except msgspec.MsgspecError:
        return False
    return True


def _read_user(content: msgspec.Raw | bytes) -> AdminUser | None:
    try:
        return msgspec.json.decode(content, type=AdminUser)
    except msgspec.MsgspecError:
        return None
