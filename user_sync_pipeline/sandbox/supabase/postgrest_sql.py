"""Turns a request that was read into one SQL statement, which answers with one row: counts, and the body as JSON.

What belongs here: statements. Names are quoted; values are bound without a type, so that each takes the type of
the column it meets; rows to write travel as one JSON value that Postgres takes apart by the types of the columns.
What does not: running them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from user_sync_pipeline.sandbox.supabase.postgrest_catalog import Function, Table
from user_sync_pipeline.sandbox.supabase.postgrest_errors import PostgrestError
from user_sync_pipeline.sandbox.supabase.postgrest_request import (
    COMPARISONS,
    DIRECTIONS,
    IS_VALUES,
    Filter,
    Query,
    Selected,
)

_ANSWER = sql.SQL("""
    WITH pgrst_source AS ({source})
    SELECT ({total})::bigint AS total, count(*) AS page, ({body})::text AS body,
           nullif(current_setting('pgrst.inserted', true), '')::int AS inserted
    FROM ({rows}) AS answer
""")
_NO_TOTAL = sql.SQL("NULL")
_ALL_OF_SOURCE = sql.SQL("SELECT * FROM pgrst_source")
_ARRAY = sql.SQL("coalesce(json_agg(answer), '[]')")
_OBJECT = sql.SQL("coalesce(json_agg(answer) -> 0, 'null')")
_SCALARS = sql.SQL("coalesce(json_agg(answer.pgrst_scalar), '[]')")
_SCALAR = sql.SQL("coalesce(json_agg(answer.pgrst_scalar) -> 0, 'null')")

# What a merge really inserted: every row offered adds one, and a conflict takes it away again. Only a setting can
# count that without a right to read the table. As a condition it is always true.
_COUNTED = sql.SQL("""
    set_config('pgrst.inserted',
               (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, 0) + {step})::text, true) <> ''
""")
_WITH_DEFAULTS = sql.SQL("""
    (SELECT json_agg(jsonb_build_object({defaults}) || element) FROM jsonb_array_elements({rows}) AS element)
""")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with named parameters."""

    text: sql.Composed
    parameters: dict[str, Any]


def read_table(table: Table, query: Query, *, limit: int, is_counted: bool) -> Statement:
    """Select rows; with `is_counted` also how many there would be without limit and offset."""
    builder = _Builder(_name(table.schema, table.name))
    total = builder.count(query) if is_counted else _NO_TOTAL
    return builder.answer(builder.select(query, limit), total=total)


def call_function(
    function: Function, query: Query, arguments: str | None, *, limit: int, is_counted: bool
) -> Statement:
    """Call with the arguments of a JSON object, or with those of the query string when there is no object."""
    builder = _Builder(_name("pgrst_source"))
    source = builder.call(function, query, arguments)
    if function.returns_rows:
        body = _ARRAY if function.returns_set else _OBJECT
    else:
        body = _SCALARS if function.returns_set else _SCALAR
    total = builder.count(query) if is_counted else _NO_TOTAL
    return builder.answer(source, rows=builder.select(query, limit), body=body, total=total)


def insert_rows(
    table: Table, query: Query, columns: Sequence[str], rows: str, *, resolution: str | None,
    uses_defaults: bool, is_returned: bool,
) -> Statement:  # fmt: skip
    """Insert the objects of a JSON array; `resolution` says what happens to those that exist."""
    builder = _Builder(_name(table.schema, table.name))
    target = query.on_conflict or table.primary_key
    merges = resolution == "merge-duplicates" and bool(target) and bool(columns)
    text = sql.SQL("INSERT INTO {}").format(builder.relation)
    if columns:
        names = _comma(_name(column) for column in columns)
        body = builder.rows(table, columns, rows, uses_defaults=uses_defaults)
        text += sql.SQL(" ({}) SELECT {} FROM {}").format(names, names, body)
    else:
        text += sql.SQL(" SELECT FROM json_array_elements({})").format(builder.bind(rows))
    if merges:
        text += sql.SQL(" WHERE ") + _COUNTED.format(step=sql.SQL("1"))
    if resolution is not None and target:
        text += sql.SQL(" ON CONFLICT ({}) DO ").format(_comma(_name(column) for column in target))
        if merges:
            changes = _comma(sql.SQL("{0} = EXCLUDED.{0}").format(_name(column)) for column in columns)
            text += sql.SQL("UPDATE SET {} WHERE ").format(changes) + _COUNTED.format(step=sql.SQL("-1"))
        else:
            text += sql.SQL("NOTHING")
    return builder.answer(text + builder.returning(query, is_returned=is_returned))


def update_rows(table: Table, query: Query, columns: Sequence[str], rows: str, *, is_returned: bool) -> Statement:
    """Change the rows that the filters choose to the values of the one object in a JSON array."""
    builder = _Builder(_name(table.schema, table.name))
    if not columns:
        nothing = sql.SQL("SELECT {} FROM {} WHERE false").format(builder.columns(query.select), builder.relation)
        return builder.answer(nothing)
    text = sql.SQL("UPDATE {} SET {} FROM {} WHERE {}").format(
        builder.relation,
        _comma(sql.SQL("{} = {}").format(_name(column), _name("pgrst_body", column)) for column in columns),
        builder.rows(table, columns, rows, uses_defaults=False),
        builder.required_conditions(query, "UPDATE"),
    )
    return builder.answer(text + builder.returning(query, is_returned=is_returned))


def delete_rows(table: Table, query: Query, *, is_returned: bool) -> Statement:
    """Delete the rows that the filters choose."""
    builder = _Builder(_name(table.schema, table.name))
    text = sql.SQL("DELETE FROM {} WHERE {}").format(builder.relation, builder.required_conditions(query, "DELETE"))
    return builder.answer(text + builder.returning(query, is_returned=is_returned))


@dataclass
class _Builder:
    """The parts of one statement over `relation`, and the values bound so far."""

    relation: sql.Identifier
    parameters: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: str | int | list[str]) -> sql.Placeholder:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return sql.Placeholder(name)

    def answer(
        self,
        source: sql.Composable,
        *,
        rows: sql.Composable = _ALL_OF_SOURCE,
        body: sql.Composable = _ARRAY,
        total: sql.Composable = _NO_TOTAL,
    ) -> Statement:
        return Statement(_ANSWER.format(source=source, rows=rows, body=body, total=total), self.parameters)

    def select(self, query: Query, limit: int) -> sql.Composed:
        text = sql.SQL("SELECT {} FROM {}").format(self.columns(query.select), self.relation)
        text += self.where(query.filters)
        if query.order:
            terms = (
                sql.SQL(" ").join([self.column(term.column), *(sql.SQL(DIRECTIONS[word]) for word in term.modifiers)])
                for term in query.order
            )
            text += sql.SQL(" ORDER BY ") + _comma(terms)
        return text + sql.SQL(" LIMIT {} OFFSET {}").format(self.bind(limit), self.bind(query.offset))

    def count(self, query: Query) -> sql.Composed:
        return sql.SQL("SELECT count(*) FROM {}").format(self.relation) + self.where(query.filters)

    def columns(self, selected: Iterable[Selected]) -> sql.Composed:
        return _comma(
            self.column(item.name) + (sql.SQL(" AS ") + _name(item.alias) if item.alias else sql.SQL(""))
            for item in selected
        )

    def column(self, name: str) -> sql.Composed:
        return sql.SQL("{}.{}").format(self.relation, sql.SQL("*") if name == "*" else _name(name))

    def returning(self, query: Query, *, is_returned: bool) -> sql.Composed:
        return sql.SQL(" RETURNING {}").format(self.columns(query.select) if is_returned else sql.SQL("1"))

    def where(self, filters: Sequence[Filter]) -> sql.Composed:
        return sql.SQL(" WHERE {}").format(self._conditions(filters)) if filters else sql.Composed([])

    def required_conditions(self, query: Query, command: str) -> sql.Composed:
        """Return the conditions of a command that a hosted project refuses without any."""
        if not query.filters:
            raise PostgrestError(400, "21000", f"{command} requires a WHERE clause")
        return self._conditions(query.filters)

    def rows(self, table: Table, columns: Sequence[str], rows: str, *, uses_defaults: bool) -> sql.Composed:
        source: sql.Composable = self.bind(rows)
        defaults = [(column, table.columns[column].default) for column in columns]
        if uses_defaults:
            source = _WITH_DEFAULTS.format(
                rows=source,
                defaults=_comma(
                    sql.SQL("{}::text, {}").format(self.bind(column), _catalogued(default))
                    for column, default in defaults
                    if default is not None
                ),
            )
        return sql.SQL("json_to_recordset({}) AS pgrst_body ({})").format(
            source, _typed((column, table.columns[column].type) for column in columns)
        )

    def call(self, function: Function, query: Query, arguments: str | None) -> sql.Composed:
        name = _name(function.schema, function.name)
        given = [key for key in function.parameters if key in query.arguments]
        values: dict[str, sql.Composable]
        if arguments is None:
            values = {
                key: sql.SQL("{}::{}").format(self.bind(query.arguments[key]), _catalogued(function.parameters[key]))
                for key in given
            }
        else:
            values = {key: _name("pgrst_arguments", key) for key in given}
        call = sql.SQL("{}({})").format(
            name, _comma(sql.SQL("{} => {}").format(_name(key), value) for key, value in values.items())
        )
        tables: list[sql.Composable] = []
        if arguments is not None and given:
            typed = _typed((key, function.parameters[key]) for key in given)
            tables.append(sql.SQL("json_to_record({}) AS pgrst_arguments ({})").format(self.bind(arguments), typed))
        if function.returns_rows:
            tables.append(call + sql.SQL(" AS pgrst_call"))
            selected: sql.Composable = sql.SQL("pgrst_call.*")
        else:
            selected = call + sql.SQL(" AS pgrst_scalar")
        clause = sql.SQL(" FROM ") + _comma(tables) if tables else sql.SQL("")
        return sql.SQL("SELECT ") + selected + clause

    def _conditions(self, filters: Iterable[Filter]) -> sql.Composed:
        return sql.SQL(" AND ").join(self._condition(condition) for condition in filters)

    def _condition(self, condition: Filter) -> sql.Composed:
        text = sql.SQL("NOT " if condition.negated else "") + self.column(condition.column)
        if condition.operator == "is":
            return text + sql.SQL(" IS ") + sql.SQL(IS_VALUES[condition.values[0]])
        if condition.operator == "in":
            return text + sql.SQL(" = ANY ({})").format(self.bind(list(condition.values)))
        return text + sql.SQL(f" {COMPARISONS[condition.operator]} ") + self.bind(condition.values[0])


def _name(*parts: str) -> sql.Identifier:
    # A percent sign in a name would be taken for a placeholder.
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))


def _catalogued(text: str) -> sql.SQL:
    """Take a type or default as the catalogue prints it, which is SQL already."""
    return sql.SQL(text.replace("%", "%%"))


def _typed(columns: Iterable[tuple[str, str]]) -> sql.Composed:
    return _comma(sql.SQL("{} {}").format(_name(name), _catalogued(type_)) for name, type_ in columns)


def _comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
