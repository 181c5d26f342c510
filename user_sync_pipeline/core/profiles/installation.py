"""Whether the profiles side of a database is as the migration made it, and what mends it where it is not.

What belongs here: judging what the catalogue holds, by reading only. What does not: what it should hold
(`installation_plan.py`, which takes it from the migration itself), and mending.

A broken installation shows nowhere else: sign-ups go on, and silently without their profiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from user_sync_pipeline.core.files import named_query
from user_sync_pipeline.core.profiles import installation_plan as plan

APPLY = "user-sync migrate apply"

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TriggerState:
    """The trigger that creates a profile at sign-up; profiles are created as planned when all three are true."""

    present: bool
    enabled: bool
    unchanged: bool


@dataclass(frozen=True, slots=True)
class Deviation:
    """An object that is not as the migration made it; `mend` is one command, of a shell or of SQL (ends with `;`)."""

    name: str
    problem: str
    mend: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is wrong, and what else touches sign-ups or deletions of users without being ours."""

    deviations: tuple[Deviation, ...]
    remarks: tuple[str, ...] = ()


def read_trigger_state(connection: Connection) -> TriggerState:
    """Return the state of trigger `on_auth_user_created` and of its function, by one query of the catalogue."""
    catalogue = _Catalogue(connection)
    trigger = catalogue.trigger
    return TriggerState(
        present=trigger is not None,
        enabled=trigger is not None and trigger["enabled"],
        unchanged=trigger is not None
        and plan.is_as_planned(trigger)
        and not any(_function_deviations(catalogue, plan.TRIGGER_FUNCTION)),
    )


def verify_installation(connection: Connection) -> tuple[Deviation, ...]:
    """Return everything that is missing, switched off or changed, nothing when all is well."""
    return inspect_installation(connection).deviations


def inspect_installation(connection: Connection) -> Inspection:
    """Return what `verify_installation` does, and remarks on what belongs to others."""
    catalogue = _Catalogue(connection)
    if not catalogue.every("sign-ups"):
        problem = "is not in this database, so nobody signs up here"
        return Inspection((Deviation("auth.users", problem, "export SUPABASE_DB_URL=…  (the Supabase database)"),))
    if catalogue.is_empty:
        return Inspection((Deviation("profiles side", "is not installed", APPLY),), tuple(_remarks(catalogue)))
    deviations = (
        *_trigger_deviations(catalogue),
        *(found for name in plan.functions() for found in _function_deviations(catalogue, name)),
        *(found for table in plan.TABLES for found in _table_deviations(catalogue, table)),
        *_deferred_deviations(catalogue),
        *_policy_deviations(catalogue),
        *_grant_deviations(catalogue),
    )
    return Inspection(deviations, tuple(_remarks(catalogue)))


class _Catalogue:
    """The rows of the query `profiles_installation`, by kind and name."""

    def __init__(self, connection: Connection) -> None:
        self._objects: dict[str, list[tuple[str, Facts]]] = {}
        query = text(named_query("profiles_installation"))
        for kind, name, facts in connection.execute(query, {"functions": list(plan.functions())}):
            self._objects.setdefault(kind, []).append((name, facts))

    def every(self, kind: str) -> list[tuple[str, Facts]]:
        return self._objects.get(kind, [])

    def one(self, kind: str, name: str) -> Facts | None:
        return next((facts for found, facts in self.every(kind) if found == name), None)

    @property
    def is_empty(self) -> bool:
        return not any(self.every(kind) for kind in ("table", "function", "schema"))

    @property
    def trigger(self) -> Facts | None:
        """The trigger of ours, whether or not it is as it should be."""
        return next(
            (facts for name, facts in self.every("trigger") if name == plan.TRIGGER and facts["table"] == "auth.users"),
            None,
        )

    @property
    def owner(self) -> str | None:
        """Who owns the table of profiles, and should own everything else."""
        table = self.one("table", plan.PROFILES) or self.one("schema", plan.SCHEMA)
        return table["owner"] if table else None


def _trigger_deviations(catalogue: _Catalogue) -> Iterator[Deviation]:
    name = f"trigger {plan.TRIGGER}"
    trigger = catalogue.trigger
    if trigger is None:
        yield Deviation(name, "is missing: sign-ups make no profile (restores and dumps lose it)", APPLY)
    elif not trigger["enabled"]:
        yield Deviation(name, "is switched off: sign-ups make no profile", APPLY)
    elif not plan.is_as_planned(trigger):
        yield Deviation(name, "was changed: it must run our function after each insert", APPLY)
    for other, facts in catalogue.every("trigger"):
        if facts["function"] == plan.TRIGGER_FUNCTION and other != plan.TRIGGER:
            again = f"user-sync migrate rollback --remove --yes && {APPLY}"
            yield Deviation(f"trigger {other}", f"runs the function of {plan.TRIGGER} a second time", again)
    dated = catalogue.one("trigger", plan.UPDATED_AT_TRIGGER)
    if dated is None or not dated["enabled"]:
        yield Deviation(f"trigger {plan.UPDATED_AT_TRIGGER}", "is missing or switched off", APPLY)


def _function_deviations(catalogue: _Catalogue, name: str) -> Iterator[Deviation]:
    planned, found = plan.functions()[name], catalogue.one("function", name)
    label = f"function {name}"
    if found is None:
        yield Deviation(label, "is missing", APPLY)
        return
    if found["body"].strip() == plan.switched_off_body().strip():
        yield Deviation(label, "is switched off by `user-sync migrate rollback`: sign-ups make no profile", APPLY)
    elif changed := planned.differences(found):
        yield Deviation(label, f"was changed: {', '.join(changed)}", APPLY)
    if found["owner"] != catalogue.owner and catalogue.owner is not None:
        owner = catalogue.owner
        statement = f'ALTER FUNCTION {name}({found["arguments"]}) OWNER TO "{owner}";'
        yield Deviation(label, f"belongs to {found['owner']} instead of {owner}", statement)
    elif not found["may_write"]:
        statement = f'GRANT ALL ON {", ".join(plan.TABLES)} TO "{found["owner"]}";'
        yield Deviation(label, f"belongs to {found['owner']}, who may not write the tables", statement)


def _table_deviations(catalogue: _Catalogue, table: str) -> Iterator[Deviation]:
    facts = catalogue.one("table", table)
    if facts is None:
        yield Deviation(f"table {table}", "is missing", APPLY)
        return
    if facts["owner"] != catalogue.owner:
        statement = f'ALTER TABLE {table} OWNER TO "{catalogue.owner}";'
        yield Deviation(f"table {table}", f"belongs to {facts['owner']} instead of {catalogue.owner}", statement)
    if table == plan.PROFILES and facts["comment"] != plan.MARK:
        statement = f"COMMENT ON TABLE {table} IS '{plan.MARK}';"
        yield Deviation(f"table {table}", "is not marked as one that the pipeline may use", statement)
    if table == plan.PROFILES and not facts["row_security"]:
        yield Deviation(f"table {table}", "has no row level security: every user can read all profiles", APPLY)
    yield from _column_deviations(catalogue, table)
    yield from _constraint_deviations(catalogue, table)


def _column_deviations(catalogue: _Catalogue, table: str) -> Iterator[Deviation]:
    planned = plan.columns(table)
    for column, definition in planned.items():
        label = f"column {table}.{column}"
        facts = catalogue.one("column", f"{table}.{column}")
        if facts is None:
            yield Deviation(label, "is missing", f"ALTER TABLE {table} ADD COLUMN {column} {definition};")
        elif facts["type"] != definition.type:
            statement = f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {definition.type};"
            yield Deviation(label, f"is of type {facts['type']} instead of {definition.type}", statement)
        elif facts["required"] and not definition.required:
            statement = f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL;"
            yield Deviation(label, "is required, which not every user can fulfil", statement)
        elif definition.default is not None and facts["default"] is None:
            statement = f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {definition.default};"
            yield Deviation(label, "has lost its default", statement)
    for name, facts in catalogue.every("column"):
        column = name.removeprefix(f"{table}.")
        if column == name or column in planned:
            continue
        if facts["required"] and facts["default"] is None and not facts["computed"]:
            statement = f'ALTER TABLE {table} ALTER COLUMN "{column}" DROP NOT NULL;'
            yield Deviation(f"column {name}", "is required and has no default, so no profile can be made", statement)


def _constraint_deviations(catalogue: _Catalogue, table: str) -> Iterator[Deviation]:
    key = plan.primary_key(table)
    if not any(
        facts["table"] == table and facts["primary"] and facts["columns"] == [key]
        for _, facts in catalogue.every("key")
    ):
        statement = f"ALTER TABLE {table} ADD PRIMARY KEY ({key});"
        yield Deviation(f"table {table}", f"has no primary key on {key}", statement)
    references = [
        (name.rsplit(".", 1)[1], facts)
        for name, facts in catalogue.every("reference")
        if facts["table"] == table and facts["columns"] == [key]
    ]
    new = f"ADD FOREIGN KEY ({key}) REFERENCES auth.users (id) ON DELETE CASCADE"
    if not references:
        yield Deviation(f"table {table}", f"has no foreign key from {key} to auth.users", f"ALTER TABLE {table} {new};")
    for name, facts in references:
        if facts["on_delete"] != "c":
            statement = f"ALTER TABLE {table} DROP CONSTRAINT {name}, {new};"
            problem = "does not cascade: users with a profile cannot be deleted"
            yield Deviation(f"foreign key {table}.{name}", problem, statement)
        elif not facts["validated"]:
            statement = f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};"
            yield Deviation(f"foreign key {table}.{name}", "was never checked against the rows", statement)
    for name, definition in plan.CHECKS.get(table, {}).items():
        found = catalogue.one("check", f"{table}.{name}")
        statement = f"ADD CONSTRAINT {name} {definition};"
        if found is None:
            yield Deviation(f"constraint {table}.{name}", "is missing", f"ALTER TABLE {table} {statement}")
        elif found["definition"] != definition:
            statement = f"ALTER TABLE {table} DROP CONSTRAINT {name}, {statement}"
            yield Deviation(f"constraint {table}.{name}", "was changed", statement)


def _deferred_deviations(catalogue: _Catalogue) -> Iterator[Deviation]:
    for name, facts in catalogue.every("deferred"):
        if facts["trigger"]:
            # Dropping one would lock every table of the sign-in service on a hosted project.
            mend = f"ALTER TABLE {plan.PROFILES} DISABLE TRIGGER {name};"
        elif facts["foreign_key"]:
            mend = f"ALTER TABLE {plan.PROFILES} ALTER CONSTRAINT {name} NOT DEFERRABLE;"
        else:
            mend = f"ALTER TABLE {plan.PROFILES} DROP CONSTRAINT {name};"
        yield Deviation(f"constraint {name}", "is checked at commit, where a failure stops the sign-up", mend)


def _policy_deviations(catalogue: _Catalogue) -> Iterator[Deviation]:
    for name, planned in plan.POLICIES.items():
        found = catalogue.one("policy", f"{plan.PROFILES}.{name}")
        if found is None:
            yield Deviation(f"policy {name}", "is missing", APPLY)
        elif found["command"] != planned["command"]:
            statement = f"DROP POLICY {name} ON {plan.PROFILES};"
            yield Deviation(f"policy {name}", f"is for another command; without it, {APPLY} makes it anew", statement)
        elif dict(found) != planned:
            check = f" WITH CHECK {planned['check']}" if planned["check"] else ""
            statement = f"ALTER POLICY {name} ON {plan.PROFILES} TO authenticated USING {planned['using']}{check};"
            yield Deviation(f"policy {name}", "was changed", statement)


def _grant_deviations(catalogue: _Catalogue) -> Iterator[Deviation]:
    found: dict[tuple[str, str], set[str]] = {}
    for name, facts in catalogue.every("grant"):
        found.setdefault((name, facts["to"]), set()).add(facts["right"])
    present = {name for kind in ("table", "function", "schema") for name, _ in catalogue.every(kind)}
    for name, role in sorted({*found, *plan.grants()}):
        if name not in present:
            continue
        planned, actual = plan.grants().get((name, role), frozenset()), found.get((name, role), set())
        for right in sorted(actual - planned):
            yield Deviation(name, f"is open to {role}: {right}", APPLY)
        for right in sorted(planned - actual):
            yield Deviation(name, f"is closed to {role}: {right}", APPLY)


def _remarks(catalogue: _Catalogue) -> Iterator[str]:
    for name, facts in catalogue.every("trigger"):
        if facts["table"] == "auth.users" and facts["function"] != plan.TRIGGER_FUNCTION:
            yield f"Trigger {name} on auth.users runs {facts['function']}, which is not ours and can stop a sign-up."
    for name, facts in catalogue.every("reference"):
        if facts["table"] not in plan.TABLES and not facts["table"].startswith("auth.") and facts["on_delete"] in "ar":
            yield f"Foreign key {name} has no ON DELETE: a user whom it points at cannot be deleted."
    for name, facts in catalogue.every("key"):
        if facts["table"] == plan.PROFILES and not facts["primary"]:
            columns = ", ".join(facts["columns"])
            yield f"Constraint {name} wants {columns} to be unique: users who share one get no profile."
