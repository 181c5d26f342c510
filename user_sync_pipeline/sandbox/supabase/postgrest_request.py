"""Reads a PostgREST request: query string and `Prefer` header as plain values.

What belongs here: grammar. What does not: SQL (`postgrest_sql.py`) and whether a column exists.
Embedding, casts, JSON paths, logic trees and text search are not read; they are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from user_sync_pipeline.sandbox.supabase.postgrest_errors import PostgrestError, not_implemented

COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
IS_VALUES = {
    "null": "NULL",
    "not_null": "NOT NULL",
    "true": "TRUE",
    "false": "FALSE",
    "unknown": "UNKNOWN",
}
DIRECTIONS = {"asc": "ASC", "desc": "DESC", "nullsfirst": "NULLS FIRST", "nullslast": "NULLS LAST"}

_RESERVED = frozenset({"select", "order", "limit", "offset", "columns", "on_conflict", "and", "or"})
_OTHER_OPERATORS = re.compile(
    r"(like|ilike|match|imatch|fts|plfts|phfts|wfts|cs|cd|ov|sl|sr|nxl|nxr|adj|isdistinct)[.(]"
)
_OPERATOR = re.compile(rf"(not\.)?({'|'.join(COMPARISONS)}|in|is)\.(.*)", re.DOTALL)
_LIST_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,])++', re.DOTALL)
_UNREAD_IN_SELECT = re.compile(r"[(]|->|::|\.\.\.")


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition; `values` has one element, except for `in`."""

    column: str
    operator: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """One column of the answer, under `alias` if there is one; the name `*` means all of them."""

    name: str
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Ordering:
    """One term of ORDER BY; `modifiers` are keys of `DIRECTIONS`."""

    column: str
    modifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What the query string asks for."""

    select: tuple[Selected, ...] = (Selected("*"),)
    filters: tuple[Filter, ...] = ()
    order: tuple[Ordering, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The parts of the `Prefer` header that are understood; the others are passed over, as PostgREST does."""

    resolution: str | None = None
    missing: str | None = None
    representation: str | None = None
    count: str | None = None

    @classmethod
    def parse(cls, header: str) -> Preferences:
        """Read for example `return=representation,count=exact`."""
        given = {part.strip() for part in header.split(",")}

        def chosen(name: str, *values: str) -> str | None:
            return next((value for value in values if f"{name}={value}" in given), None)

        return cls(
            resolution=chosen("resolution", "merge-duplicates", "ignore-duplicates"),
            missing=chosen("missing", "default", "null"),
            representation=chosen("return", "representation", "minimal", "headers-only"),
            count=chosen("count", "exact"),
        )

    def applied(self, *names: str) -> dict[str, str]:
        """Return the header that repeats which of `names` were honoured, or nothing."""
        values = {
            "resolution": self.resolution,
            "missing": self.missing,
            "return": self.representation,
            "count": self.count,
        }
        honoured = ", ".join(f"{name}={values[name]}" for name in names if values[name])
        return {"Preference-Applied": honoured} if honoured else {}


def parse_query(parameters: Iterable[tuple[str, str]], *, with_arguments: bool = False) -> Query:
    """Read the parameters of a query string; raises `PostgrestError` for what cannot be read.

    `with_arguments` is for a function called by GET: a value without an operator is then an argument.
    """
    last: dict[str, str] = {}
    filters: list[Filter] = []
    arguments: dict[str, str] = {}
    for name, value in parameters:
        if name in _RESERVED:
            last[name] = value
        elif with_arguments and not (_OPERATOR.fullmatch(value) or _OTHER_OPERATORS.match(value)):
            arguments[name] = value
        else:
            filters.append(_filter(name, value))
    if "and" in last or "or" in last:
        raise not_implemented("logic trees")
    return Query(
        select=tuple(_selected(term) for term in _split(last["select"])) if last.get("select") else (Selected("*"),),
        filters=tuple(filters),
        order=tuple(_ordering(term) for term in _split(last.get("order", ""))),
        limit=_whole_number("limit", last["limit"]) if "limit" in last else None,
        offset=_whole_number("offset", last.get("offset", "0")),
        columns=tuple(_unquoted(name) for name in _split(last["columns"])) if "columns" in last else None,
        on_conflict=tuple(_unquoted(name) for name in _split(last.get("on_conflict", ""))),
        arguments=arguments,
    )


def _filter(name: str, text: str) -> Filter:
    match = _OPERATOR.fullmatch(text)
    if match is None:
        if _OTHER_OPERATORS.match(text.removeprefix("not.")):
            raise not_implemented(f"filter {text.removeprefix('not.').split('.')[0]}")
        raise _unreadable("filter", text)
    if "->" in name or "." in name:
        raise not_implemented("filters on JSON paths or embedded tables")
    negation, operator, value = match.groups()
    values: tuple[str, ...] = (value,)
    if operator == "is":
        if value.lower() not in IS_VALUES:
            raise _unreadable("filter", text)
        values = (value.lower(),)
    elif operator == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise _unreadable("filter", text)
        values = tuple(_unquoted(item) for item in _split(value[1:-1]))
    return Filter(_unquoted(name), operator, values, negated=negation is not None)


def _selected(term: str) -> Selected:
    if _UNREAD_IN_SELECT.search(term):
        raise not_implemented("embedding, casts, JSON paths or aggregates in select")
    alias, colon, name = term.partition(":")
    return Selected(_unquoted(name), _unquoted(alias)) if colon else Selected(_unquoted(term))


def _ordering(term: str) -> Ordering:
    name, *modifiers = term.split(".")
    if not all(modifier in DIRECTIONS for modifier in modifiers):
        raise _unreadable("order", term)
    return Ordering(_unquoted(name), tuple(modifiers))


def _whole_number(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise _unreadable(name, text)
    if int(text) < 0:
        details = "Limit should be greater than or equal to zero."
        raise PostgrestError(416, "PGRST103", "Requested range not satisfiable", details=details)
    return int(text)


def _split(text: str) -> list[str]:
    """Split at commas outside double quotes; a backslash within quotes takes the next character as it is."""
    return _LIST_ITEM.findall(text)


def _unquoted(name: str) -> str:
    if len(name) >= 2 and name[0] == name[-1] == '"':
        return re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL)
    return name


def _unreadable(what: str, text: str) -> PostgrestError:
    return PostgrestError(
        400, "PGRST100", f'"failed to parse {what} ({text})" (line 1, column 1)', details="unexpected input"
    )
