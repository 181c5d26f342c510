"""The SOQL that the simulator understands: from text to a syntax tree.

What belongs here: SELECT of fields and dotted parents or COUNT(), FROM, WHERE, ORDER BY, LIMIT and OFFSET.
What does not: whether a field exists and what a query finds (`evaluator.py`). Everything else that SOQL knows is
`MALFORMED_QUERY`, above all the clauses with side effects (FOR VIEW, FOR UPDATE, UPDATE TRACKING).
As in Salesforce, AND, OR and NOT are not mixed without parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import NoReturn

from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, QueryError

LONGEST_STATEMENT, LONGEST_STRING = 100_000, 4_000

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
    | (?P<date>\d{4}-\d\d-\d\d)
    | (?P<number>[+-]?\d+(?:\.\d+)?)
    | (?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
    | (?P<symbol><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_RESERVED = frozenset(
    {"and", "or", "not", "in", "like", "from", "where", "order", "limit", "offset", "null", "true", "false"}
)


@dataclass(frozen=True, slots=True)
class Name:
    """A field, perhaps of a parent (`Manager.Name`), and its column in the statement (from 1)."""

    path: str
    column: int


@dataclass(frozen=True, slots=True)
class Literal:
    r"""A value as it was written. `kind` is string, datetime, date, number, boolean or null.

    Moments are in wire form; a string of LIKE still has its `\_` and `\%`.
    """

    kind: str
    value: str | float | bool | None
    column: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of `= != < <= > >= like in`, and `not in`; only the last two have more than one value."""

    name: Name
    operator: str
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions of which all (`and`) or any (`or`) must hold."""

    operator: str
    parts: tuple[Condition, ...]


Condition = Comparison | Not | Group


@dataclass(frozen=True, slots=True)
class Order:
    """One key of ORDER BY; null comes first unless the query says otherwise."""

    name: Name
    descending: bool = False
    nulls_last: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed statement. `fields` is empty for `SELECT COUNT()`."""

    statement: str
    fields: tuple[Name, ...]
    object_name: Name
    where: Condition | None
    order: tuple[Order, ...]
    limit: int | None
    offset: int


def parse(statement: str) -> Query:
    """Read a SOQL statement; raises `ApiError` as Salesforce answers it."""
    if len(statement) > LONGEST_STATEMENT:
        raise ApiError(400, "MALFORMED_QUERY", f"SOQL statements cannot be longer than {LONGEST_STATEMENT} characters.")
    return _Parser(statement).query()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._tokens = self._tokenize()
        self._at = 0

    def query(self) -> Query:
        self._expect("select")
        fields = self._select_list()
        self._expect("from")
        object_name = self._name()
        where = self._condition() if self._accept("where") else None
        order = self._order() if self._accept("order") else ()
        limit = self._count() if self._accept("limit") else None
        offset = self._count() if self._accept("offset") else 0
        if self._peek().kind != "end":
            self._refuse()
        return Query(self._statement, fields, object_name, where, order, limit, offset)

    def _select_list(self) -> tuple[Name, ...]:
        if self._peek().text.lower() == "count" and self._tokens[self._at + 1].text == "(":
            for expected in ("count", "(", ")"):
                self._expect(expected)
            return ()
        names = [self._name()]
        while self._accept(","):
            names.append(self._name())
        seen: set[str] = set()
        for name in names:
            if name.path.lower() in seen:
                raise QueryError(
                    "MALFORMED_QUERY", f"duplicate field selected: {name.path}", self._statement, name.column
                )
            seen.add(name.path.lower())
        return tuple(names)

    def _condition(self) -> Condition:
        if self._accept("not"):
            return Not(self._simple_condition())
        parts = [self._simple_condition()]
        operator = self._peek().text.lower()
        if operator not in ("and", "or"):
            return parts[0]
        while self._accept(operator):
            parts.append(self._simple_condition())
        return Group(operator, tuple(parts))

    def _simple_condition(self) -> Condition:
        if self._accept("("):
            condition = self._condition()
            self._expect(")")
            return condition
        name = self._name()
        operator = self._operator()
        if operator in ("in", "not in"):
            return Comparison(name, operator, self._list())
        return Comparison(name, operator, (self._literal(in_like=operator == "like"),))

    def _operator(self) -> str:
        token = self._next()
        text = token.text.lower()
        if text == "not":
            self._expect("in")
            return "not in"
        if text not in ("=", "!=", "<>", "<", "<=", ">", ">=", "like", "in"):
            self._refuse(token)
        return "!=" if text == "<>" else text

    def _list(self) -> tuple[Literal, ...]:
        self._expect("(")
        values = [self._literal()]
        while self._accept(","):
            values.append(self._literal())
        self._expect(")")
        return tuple(values)

    def _literal(self, *, in_like: bool = False) -> Literal:
        token = self._next()
        read = _LITERALS.get(token.text.lower() if token.kind == "name" else token.kind)
        if read is None:
            self._refuse(token)
        try:
            kind, value = read(token.text)
            if kind == "string":
                value = _unescape(token.text[1:-1], in_like=in_like)
        except (ValueError, OverflowError) as error:
            raise QueryError("MALFORMED_QUERY", str(error), self._statement, token.column) from None
        return Literal(kind, value, token.column)

    def _order(self) -> tuple[Order, ...]:
        self._expect("by")
        keys = [self._order_key()]
        while self._accept(","):
            keys.append(self._order_key())
        return tuple(keys)

    def _order_key(self) -> Order:
        name = self._name()
        descending = self._accept("desc")
        if not descending:
            self._accept("asc")
        nulls_last = False
        if self._accept("nulls"):
            nulls_last = self._accept("last")
            if not nulls_last:
                self._expect("first")
        return Order(name, descending, nulls_last)

    def _count(self) -> int:
        token = self._next()
        if not token.text.isdigit():
            self._refuse(token)
        return int(token.text)

    def _name(self) -> Name:
        token = self._next()
        if token.kind != "name" or token.text.lower() in _RESERVED:
            self._refuse(token)
        return Name(token.text, token.column)

    def _accept(self, text: str) -> bool:
        if self._peek().text.lower() != text:
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            self._refuse()

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._peek()
        if token.kind != "end":
            self._at += 1
        return token

    def _refuse(self, token: _Token | None = None) -> NoReturn:
        token = token or self._peek()
        text = f"unexpected token: '{token.text or '<EOF>'}'"
        raise QueryError("MALFORMED_QUERY", text, self._statement, token.column)

    def _tokenize(self) -> list[_Token]:
        tokens, at, text = [], 0, self._statement.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise QueryError("MALFORMED_QUERY", f"unexpected character '{text[at]}'", self._statement, at + 1)
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
            at = match.end()
        return [*tokens, _Token("end", "", len(text) + 1)]


def _unescape(text: str, *, in_like: bool) -> str:
    if len(text) > LONGEST_STRING:
        raise ValueError(f"string literals cannot be longer than {LONGEST_STRING} characters")

    def replace(match: re.Match[str]) -> str:
        escaped = match[1]
        if escaped in ("_", "%"):
            return match[0] if in_like else escaped
        if in_like and escaped == "\\":
            return match[0]
        if len(escaped) == 5:
            return chr(int(escaped[1:], 16))
        if escaped not in _ESCAPED:
            raise ValueError(f"Illegal string literal: invalid escape sequence \\{escaped}")
        return _ESCAPED[escaped]

    return _ESCAPE.sub(replace, text)


# How each kind of literal is read; raises for a day that no calendar has.
_LITERALS: dict[str, Callable[[str], tuple[str, str | float | bool | None]]] = {
    "string": lambda text: ("string", text),
    "datetime": lambda text: ("datetime", wire_time(datetime.fromisoformat(text))),
    "date": lambda text: ("date", date.fromisoformat(text).isoformat()),
    "number": lambda text: ("number", float(text)),
    "true": lambda _: ("boolean", True),
    "false": lambda _: ("boolean", False),
    "null": lambda _: ("null", None),
}
