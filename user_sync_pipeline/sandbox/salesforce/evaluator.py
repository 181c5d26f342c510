"""What a query finds: the users that its WHERE lets through, in its order.

What belongs here: the meaning of conditions, and the short way for windows of SystemModstamp, which are looked up
in the sorted table instead of being tried on every user. What does not: the text of queries (`soql.py`).
Text is compared without regard to case, ids with it; nothing is smaller or larger than null, but null is unequal
to every value.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from user_sync_pipeline.sandbox.salesforce.access import FieldAccess, Found
from user_sync_pipeline.sandbox.salesforce.errors import QueryError
from user_sync_pipeline.sandbox.salesforce.ids import with_check_characters
from user_sync_pipeline.sandbox.salesforce.soql import Comparison, Condition, Group, Literal, Name, Not, Order, Query
from user_sync_pipeline.sandbox.salesforce.users import Record, RecordTable

Predicate = Callable[[Any], bool]

_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
# The kind of literal that a field of each type is compared with; every other type is text.
_LITERAL_KINDS = {"boolean": "boolean", "int": "number", "double": "number", "datetime": "datetime", "date": "date"}
_ID = re.compile(r"[0-9A-Za-z]{15}(?:[A-Z0-5]{3})?")


def find_records(query: Query, table: RecordTable[Any], access: FieldAccess) -> list[Any]:
    """Return the records that `query` asks for, after ORDER BY, OFFSET and LIMIT; raises `QueryError`."""
    stop = None if query.limit is None else query.offset + query.limit
    return list(islice(_Finder(query, table, access).records(), query.offset, stop))


def count_records(query: Query, table: RecordTable[Any], access: FieldAccess) -> int:
    """Return how many records `query` finds, after OFFSET and LIMIT; raises `QueryError`."""
    matched = max(0, _Finder(query, table, access).count() - query.offset)
    return matched if query.limit is None else min(matched, query.limit)


def stamp_bounds(where: Condition | None) -> tuple[str | None, str | None]:
    """Return the earliest and latest SystemModstamp, in wire form, that a condition lets through, as far as it says."""
    if isinstance(where, Group) and where.operator == "and":
        bounds = [stamp_bounds(part) for part in where.parts]
        starts, ends = ([bound for bound in side if bound] for side in zip(*bounds, strict=True))
        return max(starts, default=None), min(ends, default=None)
    if not isinstance(where, Comparison) or where.name.path.lower() != "systemmodstamp":
        return None, None
    literal = where.values[0]
    stamp = literal.value if literal.kind == "datetime" and isinstance(literal.value, str) else None
    is_start, is_end = where.operator in ("=", ">", ">="), where.operator in ("=", "<", "<=")
    return stamp if is_start else None, stamp if is_end else None


def names_in(condition: Condition | None) -> set[str]:
    """Return the names that a condition compares, in lower case."""
    match condition:
        case None:
            return set()
        case Not(part):
            return names_in(part)
        case Group(_, parts):
            return set().union(*map(names_in, parts))
        case Comparison(name):
            return {name.path.lower()}


class _Span(NamedTuple):
    """Positions of the table that can match; with `exact`, all of them do."""

    first: int
    last: int
    exact: bool


class _Finder:
    def __init__(self, query: Query, table: RecordTable[Any], access: FieldAccess) -> None:
        self._query = query
        self._table = table
        self._access = access

    def records(self) -> Iterator[Record]:
        """Yield the matching records in the order of the query; without ORDER BY, in that of their ids."""
        keys = [(self._filterable(order.name), order) for order in self._query.order]
        matches = self._matches()
        if _is_sync_order(keys):
            return matches
        records = sorted(matches, key=lambda record: record.id)
        for found, order in reversed(keys):
            records.sort(key=_sort_key(found, order), reverse=order.descending)
        return iter(records)

    def count(self) -> int:
        """Return how many records match, in whatever order."""
        predicate, span = self._narrow()
        return span.last - span.first if span.exact else sum(map(predicate, self._records_in(span)))

    def _matches(self) -> Iterator[Record]:
        predicate, span = self._narrow()
        return self._records_in(span) if span.exact else filter(predicate, self._records_in(span))

    def _narrow(self) -> tuple[Predicate, _Span]:
        where = self._query.where
        if where is None:
            return lambda _: True, _Span(0, len(self._table), True)
        return self._predicate(where), self._span(where)

    def _records_in(self, span: _Span) -> Iterator[Record]:
        return (self._table.ordered[position] for position in range(span.first, span.last))

    def _span(self, condition: Condition) -> _Span:
        everything = _Span(0, len(self._table), False)
        if isinstance(condition, Group):
            spans = [self._span(part) for part in condition.parts]
            firsts, lasts, exacts = zip(*spans, strict=True)
            if condition.operator == "or":
                return _Span(min(firsts), max(lasts), False)
            return _Span(max(firsts), max(max(firsts), min(lasts)), all(exacts))
        if isinstance(condition, Not) or condition.name.path.lower() != "systemmodstamp":
            return everything
        stamp = condition.values[0].value
        if condition.operator not in ("=", *_ORDERINGS) or not isinstance(stamp, str):
            return everything
        first_at, first_after = self._table.first_at(stamp), self._table.first_after(stamp)
        first = {"=": first_at, ">=": first_at, ">": first_after}.get(condition.operator, 0)
        last = {"=": first_after, "<=": first_after, "<": first_at}.get(condition.operator, len(self._table))
        return _Span(first, last, True)

    def _predicate(self, condition: Condition) -> Predicate:
        if isinstance(condition, Not):
            part = self._predicate(condition.part)
            return lambda record: not part(record)
        if isinstance(condition, Group):
            parts = [self._predicate(part) for part in condition.parts]
            together = all if condition.operator == "and" else any
            return lambda record: together(part(record) for part in parts)
        return self._comparison(condition)

    def _comparison(self, comparison: Comparison) -> Predicate:
        found = self._filterable(comparison.name)
        read, text = found.read, _is_text(found)
        values = [self._operand(found, comparison, literal) for literal in comparison.values]
        if comparison.operator in ("=", "in"):
            return lambda record: _folded(read(record), text) in values
        if comparison.operator in ("!=", "not in"):
            return lambda record: _folded(read(record), text) not in values
        if comparison.operator == "like":
            matches = _like_pattern(values[0]).fullmatch
            return lambda record: (value := _folded(read(record), text)) is not None and bool(matches(value))
        holds, operand = _ORDERINGS[comparison.operator], values[0]
        return lambda record: (
            operand is not None and (value := _folded(read(record), text)) is not None and holds(value, operand)
        )

    def _filterable(self, name: Name) -> Found:
        found = self._access.resolve(name, self._query.statement)
        if not found.field.filterable:
            message = f"field '{found.field.name}' can not be filtered in a query call"
            raise QueryError("INVALID_FIELD", message, self._query.statement, name.column)
        return found

    def _operand(self, found: Found, comparison: Comparison, literal: Literal) -> Any:
        """Return the value to compare with; raises `QueryError` when it cannot be compared with such a field."""
        field = found.field
        expected = _LITERAL_KINDS.get(field.type, "string")
        if comparison.operator == "like" and (literal.kind != "string" or not _is_text(found)):
            raise self._bad_filter("INVALID_QUERY_FILTER_OPERATOR", f"invalid operator on {field.type} field", literal)
        if literal.kind == "null" and field.type != "boolean":
            return None
        if literal.kind != expected:
            wanted = {"datetime": "dateTime", "number": "double"}.get(expected, expected)
            enclosed = "should be" if expected == "string" else "should not be"
            raise self._bad_filter(
                "INVALID_FIELD",
                f"value of filter criterion for field '{field.name}' must be of type {wanted} "
                f"and {enclosed} enclosed in quotes",
                literal,
            )
        if field.type in ("id", "reference"):
            if not _ID.fullmatch(str(literal.value)):
                message = f"invalid ID field: {literal.value}"
                raise self._bad_filter("INVALID_QUERY_FILTER_OPERATOR", message, literal)
            return with_check_characters(str(literal.value)[:15])
        return _folded(literal.value, _is_text(found))

    def _bad_filter(self, code: str, message: str, literal: Literal) -> QueryError:
        return QueryError(code, message, self._query.statement, literal.column)


def _is_sync_order(keys: list[tuple[Found, Order]]) -> bool:
    """Tell whether ORDER BY asks for the order that the table has."""
    plain = [found.field.name for found, order in keys if not found.parents and not order.descending]
    return len(plain) == len(keys) and plain in (["SystemModstamp"], ["SystemModstamp", "Id"])


def _sort_key(found: Found, order: Order) -> Callable[[Any], tuple[bool, Any]]:
    read, text = found.read, _is_text(found)
    null_is_large = order.descending != order.nulls_last

    def key(record: Any) -> tuple[bool, Any]:
        value = read(record)
        return (value is None) == null_is_large, "" if value is None else _folded(value, text)

    return key


def _is_text(found: Found) -> bool:
    return found.field.type not in _LITERAL_KINDS and found.field.type not in ("id", "reference")


def _folded(value: Any, text: bool) -> Any:
    return value.lower() if text and value is not None else value


def _like_pattern(text: str) -> re.Pattern[str]:
    """Translate `%` and `_`, which a backslash makes ordinary."""
    parts = []
    for match in re.finditer(r"\\(.)|(.)", text, re.DOTALL):
        escaped, plain = match.groups()
        parts.append({"%": ".*", "_": "."}.get(plain) or re.escape(escaped or plain))
    return re.compile("".join(parts), re.DOTALL)
