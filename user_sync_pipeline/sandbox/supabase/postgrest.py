"""The part of PostgREST that the Supabase client uses, over the same Postgres and with the same roles.

What belongs here: one request, from its token to its answer, in one transaction of `authenticator`, which takes
the role of the caller. What does not: grammar, catalogue, SQL and errors, each in a module of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import jwt
import msgspec
import psycopg
from psycopg import AsyncConnection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from user_sync_pipeline.sandbox.supabase.keys import ANONYMOUS, ApiKeys, bearer_token
from user_sync_pipeline.sandbox.supabase.postgrest_catalog import Table, find_function, find_table
from user_sync_pipeline.sandbox.supabase.postgrest_errors import PostgrestError
from user_sync_pipeline.sandbox.supabase.postgrest_request import Preferences, Query, parse_query
from user_sync_pipeline.sandbox.supabase.postgrest_sql import (
    Statement,
    call_function,
    delete_rows,
    insert_rows,
    read_table,
    update_rows,
)

EXPOSED_SCHEMAS = ("public", "graphql_public")

_JSON = "application/json; charset=utf-8"
_OBJECT = "application/vnd.pgrst.object+json"
_READING = ("GET", "HEAD")

# The settings of a role count only for those who sign in as it, so they are taken over by hand.
_ROLE_SETTINGS = """
    SELECT set_config(split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1), true)
    FROM pg_roles, unnest(rolconfig) AS setting
    WHERE rolname = %(role)s
"""
_CALLER_SETTINGS = """
    SELECT set_config('search_path', quote_ident(%(schema)s) || ', extensions', true),
           set_config('request.method', %(method)s, true),
           set_config('request.path', %(path)s, true),
           set_config('request.jwt.claims', %(claims)s, true),
           set_config('role', %(role)s, true)
"""


class _Call(NamedTuple):
    """What every request has: who asks, of which schema, and how the answer is to look."""

    method: str
    path: str
    role: str
    claims: dict[str, Any]
    schema: str
    preferences: Preferences
    wants_object: bool
    body: str


class _Answer(NamedTuple):
    """The one row of every statement: rows in all, rows in the body, the body, rows that a merge inserted."""

    total: int | None
    page: int
    body: str
    inserted: int | None


class Postgrest:
    """Serves tables, views and functions of the exposed schemas; `app` is the ASGI application.

    `database_url` signs in as `authenticator`. No answer has more than `max_rows` rows, and none says so.
    """

    def __init__(self, database_url: str, keys: ApiKeys, *, max_rows: int) -> None:
        self._database_url = database_url
        self._keys = keys
        self._max_rows = max_rows
        self.app = Starlette(
            routes=[
                Route("/rpc/{name}", self._function, methods=["GET", "POST"]),
                Route("/{name}", self._table, methods=["GET", "POST", "PATCH", "DELETE"]),
            ],
            exception_handlers={PostgrestError: _refused, 404: _no_such_path, 405: _no_such_method},
        )

    async def _table(self, request: Request) -> Response:
        call = await self._call(request)
        query = parse_query(request.query_params.multi_items())
        async with self._transaction(call) as connection:
            table = await find_table(connection, call.schema, request.path_params["name"])
            answer = await _run(connection, self._statement(call, query, table))
            body = _single(call, answer) if call.wants_object else answer.body
        if call.method in _READING:
            return _page(call, query, answer, body)
        return _written(call, query, table, answer, body)

    async def _function(self, request: Request) -> Response:
        call = await self._call(request)
        is_posted = call.method == "POST"
        query = parse_query(request.query_params.multi_items(), with_arguments=not is_posted)
        arguments = (call.body or "{}") if is_posted else None
        if arguments is not None:
            query = dataclasses.replace(query, arguments=_object(_decoded(arguments)))
        async with self._transaction(call) as connection:
            function = await find_function(connection, call.schema, request.path_params["name"], query.arguments)
            if not function.is_volatile:
                await connection.execute("SET TRANSACTION READ ONLY")
            limit, is_counted = self._limit(query), call.preferences.count is not None
            answer = await _run(
                connection, call_function(function, query, arguments, limit=limit, is_counted=is_counted)
            )
            body = _single(call, answer) if call.wants_object and function.returns_set else answer.body
        if function.returns_void:
            return Response(status_code=204)
        return _page(call, query, answer, body)

    def _statement(self, call: _Call, query: Query, table: Table) -> Statement:
        is_returned = call.preferences.representation == "representation"
        if call.method in _READING:
            return read_table(table, query, limit=self._limit(query), is_counted=call.preferences.count is not None)
        if call.method == "DELETE":
            return delete_rows(table, query, is_returned=is_returned)
        value = _decoded(call.body)
        rows = call.body if isinstance(value, list) else f"[{call.body}]"
        objects = [_object(item) for item in (value if isinstance(value, list) else [value])]
        columns = _columns(table, query, objects)
        if call.method == "PATCH":
            return update_rows(table, query, columns, rows, is_returned=is_returned)
        return insert_rows(
            table, query, columns, rows, resolution=call.preferences.resolution,
            uses_defaults=call.preferences.missing == "default", is_returned=is_returned,
        )  # fmt: skip

    def _limit(self, query: Query) -> int:
        return self._max_rows if query.limit is None else min(query.limit, self._max_rows)

    async def _call(self, request: Request) -> _Call:
        claims = self._claims(request)
        is_reading = request.method in _READING
        schema = request.headers.get("accept-profile" if is_reading else "content-profile", EXPOSED_SCHEMAS[0])
        if schema not in EXPOSED_SCHEMAS:
            hint = f"Only the following schemas are exposed: {', '.join(EXPOSED_SCHEMAS)}"
            raise PostgrestError(406, "PGRST106", f"Invalid schema: {schema}", hint=hint)
        return _Call(
            method=request.method,
            path=request.url.path,
            role=claims["role"],
            claims=claims,
            schema=schema,
            preferences=Preferences.parse(",".join(request.headers.getlist("prefer"))),
            wants_object=_OBJECT in request.headers.get("accept", ""),
            body=(await request.body()).decode("utf-8", "replace"),
        )

    def _claims(self, request: Request) -> dict[str, Any]:
        token = bearer_token(request.headers.get("authorization"))
        try:
            return {"role": ANONYMOUS, **(self._keys.claims_of(token) if token else {})}
        except jwt.ExpiredSignatureError:
            raise PostgrestError(401, "PGRST303", "JWT expired") from None
        except jwt.InvalidTokenError:
            message = "No suitable key was found to decode the JWT"
            details = "None of the keys was able to decode the JWT"
            raise PostgrestError(401, "PGRST301", message, details=details) from None

    @asynccontextmanager
    async def _transaction(self, call: _Call) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection in the role of the caller; commits at the end, unless an error leaves the block."""
        settings = {
            "schema": call.schema,
            "method": call.method,
            "path": call.path,
            "claims": msgspec.json.encode(call.claims).decode(),
            "role": call.role,
        }
        try:
            async with await AsyncConnection.connect(self._database_url) as connection:
                await connection.execute(_ROLE_SETTINGS, settings)
                await connection.execute(_CALLER_SETTINGS, settings)
                if call.method in _READING:
                    await connection.execute("SET TRANSACTION READ ONLY")
                yield connection
        except psycopg.Error as error:
            raise PostgrestError.from_database(error, is_anonymous=call.role == ANONYMOUS) from error


async def _run(connection: AsyncConnection[Any], statement: Statement) -> _Answer:
    (row,) = await (await connection.execute(statement.text, statement.parameters)).fetchall()
    return _Answer(*row)


def _decoded(body: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        raise PostgrestError(400, "PGRST102", "Empty or invalid json") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PostgrestError(400, "PGRST102", "Empty or invalid json")
    return value


def _columns(table: Table, query: Query, objects: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the columns to write: those asked for, else the keys, which must be the same in every object."""
    columns = query.columns
    if columns is None:
        columns = tuple(objects[0]) if objects else ()
        if any(item.keys() != objects[0].keys() for item in objects):
            raise PostgrestError(400, "PGRST102", "All object keys must match")
    table.require(columns)
    return columns


def _single(call: _Call, answer: _Answer) -> str:
    """Return the only object of an array; raises PGRST116, which takes a change back as well."""
    if answer.page != 1:
        raise PostgrestError(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            details=f"The result contains {answer.page} rows",
        )
    return answer.body[1:-1]


def _page(call: _Call, query: Query, answer: _Answer, body: str) -> Response:
    total, offset = answer.total, query.offset
    headers = {"Content-Range": _content_range(offset, answer.page, total), **call.preferences.applied("count")}
    if total is not None and offset > total:
        details = f"An offset of {offset} was requested, but there are only {total} rows."
        refusal = PostgrestError(416, "PGRST103", "Requested range not satisfiable", details=details)
        refusal.headers = headers
        raise refusal
    is_part = total is not None and answer.page < total
    return _response(call, 206 if is_part else 200, headers, body)


def _written(call: _Call, query: Query, table: Table, answer: _Answer, body: str) -> Response:
    wanted = call.preferences
    is_returned = wanted.representation == "representation"
    total = answer.page if wanted.count is not None else None
    if call.method == "POST":
        only_updated = wanted.resolution == "merge-duplicates" and not answer.inserted
        has_target = bool(query.on_conflict or table.primary_key)
        status = 200 if only_updated else 201
        honoured = wanted.applied(*(["resolution"] if has_target else []), "missing", "return", "count")
    else:
        status = 200 if is_returned else 204
        honoured = wanted.applied("return", "count")
    headers = {"Content-Range": _content_range(0, answer.page if call.method == "PATCH" else 0, total), **honoured}
    return _response(call, status, headers, body) if is_returned else Response(status_code=status, headers=headers)


def _response(call: _Call, status: int, headers: dict[str, str], body: str) -> Response:
    media_type = f"{_OBJECT}; charset=utf-8" if call.wants_object else _JSON
    return Response(body, status, {**headers, "Content-Profile": call.schema}, media_type)


def _content_range(first: int, count: int, total: int | None) -> str:
    rows = f"{first}-{first + count - 1}" if count and total != 0 else "*"
    return f"{rows}/{'*' if total is None else total}"


async def _refused(request: Request, error: Any) -> Response:
    response: Response = error.response()
    return response


async def _no_such_path(request: Request, error: Exception) -> Response:
    return PostgrestError(404, "PGRST125", "Invalid path specified in request URL").response()


async def _no_such_method(request: Request, error: Exception) -> Response:
    return PostgrestError(405, "PGRST117", f"Unsupported HTTP method: {request.method}").response()
