"""The administration of users that GoTrue offers, as its role `supabase_auth_admin`.

What belongs here: the endpoints. What does not: signing in. Nobody does that here, so a password is accepted
and not kept, and no mail is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import jwt
import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from user_sync_pipeline.sandbox.supabase import gotrue_tables as tables
from user_sync_pipeline.sandbox.supabase.gotrue_users import (
    GoTrueError,
    UserAttributes,
    failure,
    invalid,
    merged,
    metadata,
    parse_user_id,
    user_json,
)
from user_sync_pipeline.sandbox.supabase.keys import SERVICE, ApiKeys, bearer_token

AUDIENCE = "authenticated"
USERS_PER_PAGE = 50
VERSION = {
    "version": "v2.196.0",
    "name": "GoTrue",
    "description": "GoTrue is a user registration and authentication API",
}

_ADMIN_ROLES = (SERVICE, "supabase_admin")
_PROVIDERS = ("email", "phone")
_TAKEN = {
    "email": ("email_exists", "A user with this email address has already been registered"),
    "phone": ("phone_exists", "Phone number already registered by another user"),
}

_Endpoint = Callable[[Request], Awaitable[Response]]


class GoTrue:
    """Serves `/health` and `/admin/users`; `database_url` signs in as `supabase_auth_admin`."""

    def __init__(self, database_url: str, keys: ApiKeys) -> None:
        self._database_url = database_url
        self._keys = keys
        one, many = "/admin/users/{user_id}", "/admin/users"
        self.app = Starlette(
            routes=[
                Route("/health", _health, methods=["GET"]),
                Route(many, self._admin(self._list_users), methods=["GET"]),
                Route(many, self._admin(self._create_user), methods=["POST"]),
                Route(one, self._admin(self._get_user), methods=["GET"]),
                Route(one, self._admin(self._update_user), methods=["PUT"]),
                Route(one, self._admin(self._delete_user), methods=["DELETE"]),
            ],
            exception_handlers={GoTrueError: _refused, psycopg.Error: _failed},
        )

    def _admin(self, endpoint: _Endpoint) -> _Endpoint:
        """Let in only those whose token says that they administrate."""

        async def checked(request: Request) -> Response:
            token = bearer_token(request.headers.get("authorization"))
            if token is None:
                raise GoTrueError(401, "no_authorization", "This endpoint requires a valid Bearer token")
            try:
                claims = self._keys.claims_of(token)
            except jwt.InvalidTokenError as error:
                message = f"invalid JWT: unable to parse or verify signature, {error}"
                raise GoTrueError(403, "bad_jwt", message) from None
            if claims.get("role") not in _ADMIN_ROLES:
                raise GoTrueError(403, "not_admin", "User not allowed")
            return await endpoint(request)

        return checked

    async def _connect(self) -> AsyncConnection[DictRow]:
        return await AsyncConnection.connect(self._database_url, autocommit=True, row_factory=dict_row)

    async def _list_users(self, request: Request) -> Response:
        given = request.query_params
        try:
            page = max(_whole_number(given.get("page") or "1"), 1)
            per_page = _whole_number(given.get("per_page") or str(USERS_PER_PAGE))
            if per_page == 0:
                raise ValueError("per_page must be greater than 0")
        except ValueError as error:
            raise invalid(f"Bad Pagination Parameters: {error}") from None
        audience, pattern = _audience(request), given.get("filter")
        order = _order(given.getlist("sort"))
        try:
            async with await self._connect() as connection:
                total, rows = await tables.list_users(
                    connection,
                    audience=audience,
                    pattern=f"%{pattern}%" if pattern else None,
                    order=order,
                    limit=per_page,
                    offset=(page - 1) * per_page,
                )
            users = [user_json(row, None) for row in rows]
        except (psycopg.Error, ValueError):
            raise failure("Database error finding users") from None
        headers = {"X-Total-Count": str(total), "Link": _links(request, page, per_page, total)}
        return _json({"users": users, "aud": audience}, headers)

    async def _get_user(self, request: Request) -> Response:
        user_id = parse_user_id(request.path_params["user_id"])
        async with await self._connect() as connection:
            return await _shown(connection, user_id)

    async def _create_user(self, request: Request) -> Response:
        wanted = UserAttributes.parse(await request.body())
        addresses = {name: address for name in _PROVIDERS if (address := getattr(wanted, name))}
        if not addresses:
            raise invalid("Cannot create a user without either an email or phone")
        if wanted.password is not None and wanted.password_hash:
            raise invalid("Only a password or a password hash should be provided")
        user_id = _chosen_id(wanted.id) if wanted.id else uuid4()
        audience = wanted.aud or _audience(request)
        app_metadata = {"provider": next(iter(addresses)), "providers": list(addresses)}
        # Without metadata it is {}, but null where a hash was given in place of a password.
        user_metadata = wanted.user_metadata or (None if wanted.password_hash else {})
        now = datetime.now(UTC)
        async with await self._connect() as connection:
            for provider, address in addresses.items():
                if await tables.has_user_with(connection, provider, address, audience=audience):
                    raise GoTrueError(422, *_TAKEN[provider])
            try:
                async with connection.transaction():
                    await tables.add_user(
                        connection,
                        user_id,
                        wanted,
                        audience=audience,
                        app_metadata=app_metadata,
                        user_metadata=user_metadata,
                        now=now,
                    )
                    for provider, address in addresses.items():
                        await tables.put_identity(connection, user_id, provider, address, is_verified=False, now=now)
                    changes = _changes(wanted, app_metadata, user_metadata, now)
                    await tables.update_user(connection, user_id, {"role": AUDIENCE, **changes})
            except psycopg.Error:
                raise failure("Database error creating new user") from None
            return await _shown(connection, user_id)

    async def _update_user(self, request: Request) -> Response:
        user_id = parse_user_id(request.path_params["user_id"])
        async with await self._connect() as connection:
            row = await _require(connection, user_id)
            wanted = UserAttributes.parse(await request.body())
            now = datetime.now(UTC)
            changes = _changes(wanted, metadata(row["app_metadata"]), metadata(row["user_metadata"]), now)
            try:
                async with connection.transaction():
                    for provider in _PROVIDERS:
                        address, is_verified = getattr(wanted, provider), bool(getattr(wanted, f"{provider}_confirm"))
                        if address:
                            await tables.put_identity(
                                connection, user_id, provider, address, is_verified=is_verified, now=now
                            )
                            changes[provider] = address
                            changes["is_anonymous"] = row["is_anonymous"] and not is_verified
                    await tables.update_user(connection, user_id, changes)
            except psycopg.Error:
                raise failure("Error updating user") from None
            return await _shown(connection, user_id)

    async def _delete_user(self, request: Request) -> Response:
        user_id = parse_user_id(request.path_params["user_id"])
        body = await request.body()
        try:
            is_soft = msgspec.json.decode(body, type=dict[str, bool]).get("should_soft_delete") if body else False
        except (msgspec.DecodeError, UnicodeError) as error:
            raise GoTrueError(400, "bad_json", f"Could not parse request body as JSON: {error}") from None
        async with await self._connect() as connection:
            row = await _require(connection, user_id)
            try:
                async with connection.transaction():
                    if not is_soft:
                        await tables.delete_user(connection, user_id)
                    elif row["deleted_at"] is None:
                        await tables.delete_user_softly(connection, row)
            except psycopg.Error:
                raise failure("Database error deleting user") from None
        return _json({})


async def _require(connection: AsyncConnection[DictRow], user_id: UUID) -> DictRow:
    row = await tables.find_user(connection, user_id)
    if row is None:
        raise GoTrueError(404, "user_not_found", "User not found")
    return row


async def _shown(connection: AsyncConnection[DictRow], user_id: UUID) -> Response:
    row = await _require(connection, user_id)
    try:
        return _json(user_json(row, await tables.find_identities(connection, user_id)))
    except ValueError:
        raise failure("Database error loading user") from None


def _changes(
    wanted: UserAttributes, app_metadata: dict[str, Any] | None, user_metadata: dict[str, Any] | None, now: datetime
) -> dict[str, Any]:
    """Return the columns that a request changes besides the addresses."""
    changes: dict[str, Any] = {}
    if wanted.role:
        changes["role"] = wanted.role
    if wanted.email_confirm:
        changes |= {"email_confirmed_at": now, "confirmation_token": ""}
    if wanted.phone_confirm:
        changes |= {"phone_confirmed_at": now, "confirmation_token": ""}
    if wanted.app_metadata is not None:
        changes["raw_app_meta_data"] = Jsonb(merged(app_metadata, wanted.app_metadata))
    if wanted.user_metadata is not None or wanted.email_confirm:
        confirmation = {"email_verified": True} if wanted.email_confirm else {}
        changes["raw_user_meta_data"] = Jsonb(merged(user_metadata, confirmation | (wanted.user_metadata or {})))
    if wanted.ban_duration:
        changes["banned_until"] = wanted.banned_until()
    return changes


def _chosen_id(text: str) -> UUID:
    try:
        chosen = UUID(text)
    except ValueError:
        raise invalid("ID must conform to the uuid v4 format") from None
    if chosen.int == 0:
        raise invalid("ID cannot be a nil uuid")
    return chosen


def _audience(request: Request) -> str:
    return request.headers.get("x-jwt-aud", AUDIENCE)


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _order(sorts: list[str]) -> str:
    """Return ORDER BY: only by creation, and without a second column for those created at the same moment."""
    terms = []
    for text in sorts or ["created_at desc"]:
        name, _, direction = text.partition(" ")
        if name != "created_at":
            raise invalid(f"Bad Sort Parameters: bad field for sort '{name}'")
        if direction.upper() not in ("", "ASC", "DESC"):
            message = f"bad direction for sort '{direction}', only 'asc' and 'desc' allowed"
            raise invalid(f"Bad Sort Parameters: {message}")
        terms.append(f"created_at {direction.upper() or 'DESC'}")
    return ", ".join(terms)


def _links(request: Request, page: int, per_page: int, total: int) -> str:
    """Return the next and the last page; the path lacks `/auth/v1`, since the gateway takes it away."""
    pages = -(-total // per_page)

    def link(number: int, relation: str) -> str:
        given = {**dict(request.query_params), "page": str(number)}
        return f'</admin/users?{urlencode(sorted(given.items()))}>; rel="{relation}"'

    last = link(pages, "last")
    return f"{link(page + 1, 'next')}, {last}" if pages > page else last


def _json(value: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


async def _health(request: Request) -> Response:
    return _json(VERSION)


async def _refused(request: Request, error: Any) -> Response:
    response: Response = error.response(request.headers.get("x-supabase-api-version", ""))
    return response


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, failure("Unexpected failure, please check server logs for more information"))
