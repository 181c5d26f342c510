"""SOQL: the few queries that are asked, and the grammar that every query passes before it is sent.

What belongs here: text of queries, and a parser that accepts SELECT on the allowed objects and nothing else.
What does not: sending. The grammar is an allow-list, not a search for words: clauses with side effects
(FOR VIEW, FOR REFERENCE, FOR UPDATE, UPDATE TRACKING, UPDATE VIEWSTAT) are refused because no rule produces them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.windows import SyncWindow

ALLOWED_OBJECTS = frozenset({"User", "Organization"})
SELECT_ORGANIZATION_ID = "SELECT Id FROM Organization LIMIT 1"
_MILLISECOND = timedelta(milliseconds=1)


class Cursor(NamedTuple):
    """The last record that was read, in the order of `select_users`: its moment (aware) and its Id."""

    system_modstamp: datetime
    salesforce_id: str


def select_users(
    names: Sequence[str],
    window: SyncWindow,
    *,
    limit: int | None = None,
    after: Cursor | None = None,
    ordered: bool = True,
) -> str:
    """Return the query for the fields `names` of the users changed in `window`, oldest change first if `ordered`.

    With `after` it goes on behind that record. Raises `UsageError` for a limit below one.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; give a number that is 1 or more.")
    conditions = _within(window) if after is None else [*_within(window), _behind(after)]
    return (
        f"SELECT {', '.join(names)} FROM User WHERE {' AND '.join(conditions)}"
        f"{' ORDER BY SystemModstamp, Id' if ordered else ''}{'' if limit is None else f' LIMIT {limit}'}"
    )


def count_users(window: SyncWindow | None = None, *, created_before: datetime | None = None) -> str:
    """Return the query for the number of users changed in `window` and created before a moment."""
    conditions = [] if window is None else _within(window)
    if created_before is not None:
        conditions.append(f"CreatedDate < {moment_literal(created_before)}")
    return "SELECT COUNT() FROM User" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def moment_literal(moment: datetime) -> str:
    """Return an aware moment as SOQL writes it: UTC with `Z` and milliseconds.

    Rounded up: Salesforce keeps whole milliseconds, so neither `>=` nor `<` changes its meaning by that.
    """
    utc = moment.astimezone(UTC)
    if rest := utc.microsecond % 1000:
        utc += _MILLISECOND - timedelta(microseconds=rest)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _within(window: SyncWindow) -> list[str]:
    since = [] if window.since is None else [f"SystemModstamp >= {moment_literal(window.since)}"]
    return [*since, f"SystemModstamp < {moment_literal(window.until)}"]


def _behind(cursor: Cursor) -> str:
    moment = moment_literal(cursor.system_modstamp)
    return f"((SystemModstamp = {moment} AND Id > '{cursor.salesforce_id}') OR SystemModstamp > {moment})"


def refuse_all_but_reading(soql: str) -> None:
    """Raise `NotReadOnlyError` unless `soql` is a plain SELECT on an allowed object.

    The grammar, with keywords in any case and single spaces or more between words:

        query      = SELECT ( "COUNT" "(" ")" | name { "," name } ) FROM object
                     [ WHERE condition ] [ ORDER BY key { "," key } ] [ LIMIT count ] [ OFFSET count ]
        condition  = [ NOT ] term { ( AND | OR ) [ NOT ] term }
        term       = "(" condition ")" | name operator literal | name IN "(" literal { "," literal } ")"
        operator   = "=" | "!=" | "<" | "<=" | ">" | ">="
        literal    = string | moment | number | TRUE | FALSE | NULL
        key        = name [ ASC | DESC ]
    """
    _Parser(soql).query()


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


_TOKENS = re.compile(
    r"(?P<space> +)"
    r"|(?P<moment>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z)"
    r"|(?P<number>-?\d+(?:\.\d+)?)"
    r"|(?P<word>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<string>'(?:[^'\\]|\\[nrtbf\"'\\])*')"
    r"|(?P<sign>[<>!]=|[<>=(),])",
    re.ASCII,
)
_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
# No field is called like one of these, so that no clause can pass for a name.
_KEYWORDS = frozenset(
    """
    all and asc by desc false find for from group having in like limit not null nulls offset or order
    reference select tracking true typeof update using view viewstat where with
    """.upper().split()
)
_DEEPEST = 20
_END = _Token("end", "", -1)


class _Parser:
    """Recursive descent over the tokens; one method a rule of the grammar."""

    def __init__(self, soql: str) -> None:
        # Line ends, zero-width, direction and other invisible characters have no place, not even in a string.
        if not soql.isprintable():
            raise _refusal("holds invisible characters")
        self._tokens: list[_Token] = []
        position = 0
        while position < len(soql):
            found = _TOKENS.match(soql, position)
            if found is None or found.lastgroup is None:
                raise _refusal(f"cannot be read at character {position + 1}")
            if found.lastgroup != "space":
                self._tokens.append(_Token(found.lastgroup, found[0], position))
            position = found.end()
        self._next = 0

    def query(self) -> None:
        self._keyword("SELECT")
        if self._follows("COUNT") and self._peek(1).text == "(":
            self._next += 1
            self._sign("(")
            self._sign(")")
        else:
            self._list(self._name)
        self._keyword("FROM")
        self._object()
        if self._skip("WHERE"):
            self._condition(_DEEPEST)
        if self._skip("ORDER"):
            self._keyword("BY")
            self._list(self._key)
        for clause in ("LIMIT", "OFFSET"):
            if self._skip(clause):
                self._count()
        if self._peek() is not _END:
            raise self._unexpected()

    def _condition(self, depth: int) -> None:
        if depth == 0:
            raise _refusal("is nested too deeply")
        while True:
            self._skip("NOT")
            if self._peek().text == "(":
                self._sign("(")
                self._condition(depth - 1)
                self._sign(")")
            else:
                self._name()
                self._comparison()
            if not (self._skip("AND") or self._skip("OR")):
                return

    def _list(self, item: Callable[[], None]) -> None:
        item()
        while self._peek().text == ",":
            self._sign(",")
            item()

    def _key(self) -> None:
        self._name()
        if not self._skip("ASC"):
            self._skip("DESC")

    def _name(self) -> None:
        token = self._take("word")
        if token.text.upper() in _KEYWORDS:
            raise self._unexpected(token)

    def _object(self) -> None:
        token = self._take("word")
        if token.text not in ALLOWED_OBJECTS:
            raise self._unexpected(token)

    def _comparison(self) -> None:
        if self._skip("IN"):
            self._sign("(")
            self._list(self._literal)
            self._sign(")")
            return
        token = self._take("sign")
        if token.text not in _OPERATORS:
            raise self._unexpected(token)
        self._literal()

    def _literal(self) -> None:
        token = self._peek()
        if token.kind not in ("string", "moment", "number") and token.text.upper() not in ("TRUE", "FALSE", "NULL"):
            raise self._unexpected()
        self._next += 1

    def _count(self) -> None:
        token = self._take("number")
        if not token.text.isdigit():
            raise self._unexpected(token)

    def _sign(self, sign: str) -> None:
        token = self._take("sign")
        if token.text != sign:
            raise self._unexpected(token)

    def _keyword(self, word: str) -> None:
        if not self._skip(word):
            raise self._unexpected()

    def _skip(self, word: str) -> bool:
        if not self._follows(word):
            return False
        self._next += 1
        return True

    def _follows(self, word: str) -> bool:
        token = self._peek()
        return token.kind == "word" and token.text.upper() == word

    def _take(self, kind: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise self._unexpected()
        self._next += 1
        return token

    def _peek(self, ahead: int = 0) -> _Token:
        index = self._next + ahead
        return self._tokens[index] if index < len(self._tokens) else _END

    def _unexpected(self, token: _Token | None = None) -> NotReadOnlyError:
        token = token or self._peek()
        if token is _END:
            return _refusal("ends too early")
        return _refusal(f"is more than a plain SELECT at character {token.position + 1}")


def _refusal(reason: str) -> NotReadOnlyError:
    return NotReadOnlyError(f"A query was not sent to Salesforce, because it {reason}; only users are read here.")
