"""What the profiles side consists of: read out of the migration where that can be, else said here once.

What belongs here: functions and columns as `sql/migrations/0002` defines them, rights, policies and checks.
What does not: what a database really holds (`installation.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from user_sync_pipeline.core.files import shipped_path

SCHEMA = "app_private"
PROFILES = "public.user_profiles"
FAILURES = "app_private.profile_failures"
TABLES = (PROFILES, FAILURES)
TRIGGER = "on_auth_user_created"
TRIGGER_FUNCTION = "app_private.handle_new_auth_user"
UPDATED_AT_TRIGGER = "user_profiles_set_updated_at"

# What the migration goes by to tell its own table from one of that name that somebody else made.
MARK = "One application profile per auth user; kept by user_sync_pipeline."

# For each row, after, insert; a statement-level, BEFORE or UPDATE trigger has another number.
_AFTER_INSERT_FOR_EACH_ROW = 1 | 4

# As Postgres 15 to 18 write them.
CHECKS: Mapping[str, Mapping[str, str]] = {
    PROFILES: {
        "user_profiles_full_name_length": "CHECK ((char_length(full_name) <= 200))",
        "user_profiles_avatar_url_length": "CHECK ((char_length(avatar_url) <= 2000))",
        "user_profiles_role_allowed": "CHECK ((role = ANY (ARRAY['user'::text, 'admin'::text])))",
        "user_profiles_source_known": ("CHECK ((source = ANY (ARRAY['trigger'::text, 'sync'::text, 'manual'::text])))"),
    }
}
_OWN_ROW = "(( SELECT auth.uid() AS uid) = id)"
POLICIES: Mapping[str, Mapping[str, str | None]] = {
    "user_profiles_select_own": {"command": "r", "roles": "{authenticated}", "using": _OWN_ROW, "check": None},
    "user_profiles_update_own": {"command": "w", "roles": "{authenticated}", "using": _OWN_ROW, "check": _OWN_ROW},
}
_GRANTS_ON_TABLES: Mapping[tuple[str, str], frozenset[str]] = {
    (PROFILES, "authenticated"): frozenset({"SELECT", "UPDATE (full_name)", "UPDATE (avatar_url)"}),
    (PROFILES, "service_role"): frozenset({"SELECT", "INSERT", "UPDATE"}),
}

_FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION (?P<name>[\w.]+)\s*\((?P<head>.*?)\nAS \$\$(?P<body>.*?)\$\$;",
    re.DOTALL | re.MULTILINE,
)
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (?P<name>[\w.]+) \((?P<columns>.*?)^\);", re.DOTALL | re.MULTILINE)
_COLUMN = re.compile(r"^    (?P<name>[a-z]\w*) +(?P<type>[a-z]+)\b(?P<rest>.*(?:\n     +.*)*)", re.MULTILINE)
_DEFAULT = re.compile(r"\bDEFAULT ('[^']*'|[\w.]+\(\))")
_GRANT = re.compile(r"^GRANT EXECUTE ON FUNCTION (?P<name>[\w.]+)\([^)]*\) TO (?P<role>\w+);", re.MULTILINE)
_VOLATILITY = {"IMMUTABLE": "i", "STABLE": "s"}
_TYPES = {"timestamptz": "timestamp with time zone"}


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the migration defines it."""

    body: str
    language: str
    volatility: str
    security_definer: bool
    settings: frozenset[str]

    def differences(self, found: Mapping[str, Any]) -> list[str]:
        """Return what is different about a function of the catalogue, in words."""
        return list(self._differences(found))

    def _differences(self, found: Mapping[str, Any]) -> Iterator[str]:
        if _normal(found["body"]) != _normal(self.body):
            yield "its text"
        if found["security_definer"] != self.security_definer:
            yield "whose rights it runs with"
        if frozenset(found["settings"]) != self.settings:
            yield "its settings"
        if (found["language"], found["volatility"]) != (self.language, self.volatility):
            yield "its kind"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the migration defines it."""

    type: str
    required: bool
    default: str | None

    def __str__(self) -> str:
        required, default = " NOT NULL" if self.required else "", f" DEFAULT {self.default}" if self.default else ""
        return f"{self.type}{required}{default}"


def is_as_planned(trigger: Mapping[str, Any]) -> bool:
    """Tell whether the trigger of sign-ups runs when and what it should."""
    return (
        trigger["function"] == TRIGGER_FUNCTION
        and trigger["kind"] == _AFTER_INSERT_FOR_EACH_ROW
        and not trigger["conditional"]
    )


@cache
def functions() -> Mapping[str, Function]:
    """Return the functions of the migration by their qualified names."""
    return {match["name"]: _function(match["head"], match["body"]) for match in _FUNCTION.finditer(_migration("up"))}


@cache
def columns(table: str) -> Mapping[str, Column]:
    """Return the columns of a table of the migration."""
    [body] = [match["columns"] for match in _TABLE.finditer(_migration("up")) if match["name"] == table]
    found = {}
    for match in _COLUMN.finditer(re.sub(r"--.*", "", body)):
        default = _DEFAULT.search(match["rest"])
        required = "NOT NULL" in match["rest"] or "PRIMARY KEY" in match["rest"]
        found[match["name"]] = Column(
            _TYPES.get(match["type"], match["type"]), required, default[1] if default else None
        )
    return found


@cache
def grants() -> Mapping[tuple[str, str], frozenset[str]]:
    """Return all that PUBLIC and the roles of the API may do, by object and role; what is not here, they may not."""
    on_functions = {
        (match["name"], match["role"]): frozenset({"EXECUTE"}) for match in _GRANT.finditer(_migration("up"))
    }
    return {**_GRANTS_ON_TABLES, **on_functions}


def primary_key(table: str) -> str:
    """Return the name of the one column, the first, by which a row is known."""
    return next(iter(columns(table)))


def switched_off_body() -> str:
    """Return the text of the trigger's function while sign-ups are to make no profile."""
    [match] = _FUNCTION.finditer(_migration("off"))
    return match["body"]


def _function(head: str, body: str) -> Function:
    language = re.search(r"^LANGUAGE (\w+)", head, re.MULTILINE)
    volatility = re.search(r"^(IMMUTABLE|STABLE)$", head, re.MULTILINE)
    settings = re.findall(r"^SET (\w+) = '([^']*)'$", head, re.MULTILINE)
    return Function(
        body=body,
        language=language[1] if language else "",
        volatility=_VOLATILITY[volatility[1]] if volatility else "v",
        security_definer="SECURITY DEFINER" in head,
        settings=frozenset('search_path=""' if not value else f"{name}={value}" for name, value in settings),
    )


def _normal(text: str) -> str:
    # A console in a browser may send other line ends.
    return text.replace("\r\n", "\n").strip()


def _migration(kind: str) -> str:
    path = shipped_path("sql/migrations") / f"0002_profiles_side.{kind}.sql"
    return path.read_text(encoding="utf-8")
