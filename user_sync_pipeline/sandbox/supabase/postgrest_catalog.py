"""What PostgREST knows of a database: columns of a table, parameters and result of a function.

What belongs here: reading the catalogue, for every request anew, so that it is never stale.
What does not: rights; PostgREST finds what exists, and Postgres decides who may use it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from user_sync_pipeline.sandbox.supabase.postgrest_errors import PostgrestError

_COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid),
           coalesce(a.attnum = ANY (i.indkey), false)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ORDER BY a.attnum
"""
_FUNCTIONS = """
    SELECT ARRAY(
               SELECT coalesce(p.proargnames[n], '')
               FROM generate_series(1, cardinality(coalesce(p.proallargtypes, p.proargtypes::oid[]))) AS n
               WHERE p.proargmodes IS NULL OR p.proargmodes[n] IN ('i', 'b', 'v')
               ORDER BY n
           ),
           ARRAY(SELECT format_type(u.oid, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u (oid, n) ORDER BY n),
           p.pronargdefaults, p.provolatile = 'v', p.proretset, p.prorettype = 'void'::regtype,
           t.typtype = 'c' OR coalesce(p.proargmodes && '{t,b,o}', false)
    FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_type t ON t.oid = p.prorettype
    WHERE n.nspname = %s AND p.proname = %s AND p.prokind = 'f'
    ORDER BY p.oid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as SQL, its default as SQL if there is one, and whether it is of the primary key."""

    type: str
    default: str | None
    in_primary_key: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view with its columns in order."""

    schema: str
    name: str
    columns: dict[str, Column]

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The names of the columns of the primary key."""
        return tuple(name for name, column in self.columns.items() if column.in_primary_key)

    def require(self, names: Collection[str]) -> None:
        """Raise PGRST204 for the first name that is no column."""
        for name in names:
            if name not in self.columns:
                raise PostgrestError(
                    400, "PGRST204", f"Could not find the '{name}' column of '{self.name}' in the schema cache"
                )


@dataclass(frozen=True, slots=True)
class Function:
    """A function: the SQL type of each parameter, and what it gives back."""

    schema: str
    name: str
    parameters: dict[str, str]
    is_volatile: bool
    returns_set: bool
    returns_void: bool
    returns_rows: bool

    def __str__(self) -> str:
        listed = ", ".join(f"{name} => {type_}" for name, type_ in self.parameters.items())
        return f"{self.schema}.{self.name}({listed})"


async def find_table(connection: AsyncConnection[Any], schema: str, name: str) -> Table:
    """Return the table or view; raises PGRST205."""
    rows = await (await connection.execute(_COLUMNS, (schema, name))).fetchall()
    if not rows:
        raise PostgrestError(404, "PGRST205", f"Could not find the table '{schema}.{name}' in the schema cache")
    return Table(schema, name, {row[0]: Column(*row[1:]) for row in rows})


async def find_function(
    connection: AsyncConnection[Any], schema: str, name: str, arguments: Collection[str]
) -> Function:
    """Return the function that takes `arguments` by name; raises PGRST202, or PGRST203 when several do."""
    rows = await (await connection.execute(_FUNCTIONS, (schema, name))).fetchall()
    given = set(arguments)
    candidates = []
    for names, types, defaults, *traits in rows:
        required = names[: len(names) - defaults]
        if given.issuperset(required) and given.issubset(names):
            candidates.append(Function(schema, name, dict(zip(names, types, strict=True)), *traits))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = ", ".join(str(candidate) for candidate in candidates)
        message = f"Could not choose the best candidate function between: {listed}"
        hint = (
            "Try renaming the parameters or the function itself in the database so function overloading can be resolved"
        )
        raise PostgrestError(300, "PGRST203", message, hint=hint)
    listed = ", ".join(arguments)
    signature = f"({listed})" if listed else " without parameters"
    searched = f"with parameter{'s' if len(given) > 1 else ''} {listed}" if listed else "without parameters"
    raise PostgrestError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{signature} in the schema cache",
        details=f"Searched for the function {schema}.{name} {searched} or with a single unnamed json/jsonb "
        "parameter, but no matches were found in the schema cache.",
    )
