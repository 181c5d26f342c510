"""What a refusal or a failure of a Supabase project means to a person.

What belongs here: from HTTP status and error code to an error of ours. What does not: sending requests
(`supabase_client.py`). The server's own words are only searched for names of the schema and never repeated,
because they may hold addresses of people.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError, UserSyncError
from user_sync_pipeline.core.profiles.directory import RowsRefusedError, is_about_rows
from user_sync_pipeline.core.profiles.supabase_keys import SETTING, ServiceKey, explain_refused_key

if TYPE_CHECKING:
    from postgrest.exceptions import APIError

_CONSTRAINT = re.compile(r'constraint "([^"]+)"')
_COLUMN = re.compile(r'column "([^"]+)"')


class PageBrokenError(Exception):
    """The server cannot answer with this page, most likely because of one of the users on it."""


class UnknownColumnError(ConfigurationError):
    """The table of profiles does not have a column that was asked for."""


def explain(error: APIError, what: str, status: int, service_key: ServiceKey) -> Exception:
    """Say what an error of the Data API means, with the HTTP status that the error itself does not carry."""
    code = error.code
    # The second as long as the server has not noticed that the function is gone.
    if code in ("PGRST202", "42883"):
        return LookupError(code)
    if code in ("42703", "PGRST204"):
        return UnknownColumnError(
            "public.user_profiles of the project at SUPABASE_URL has other columns than the migrations give it; "
            "apply the migrations to its database."
        )
    if code is not None and is_about_rows(code) and 400 <= status < 500:
        constraint, column = _CONSTRAINT.search(error.message or ""), _COLUMN.search(error.message or "")
        return RowsRefusedError(
            code,
            constraint=constraint.group(1) if constraint else None,
            column=column.group(1) if column else None,
        )
    return refusal(what, status, code, service_key)


def refusal(what: str, status: int, code: str | None, service_key: ServiceKey) -> UserSyncError:
    """Say what an HTTP status, with the code of the answer where it has one, means for a request for `what`."""
    if code == "PGRST205":
        return ConfigurationError(
            "The project at SUPABASE_URL has no public.user_profiles; apply the migrations to its database, "
            "or wait a minute if that was just done."
        )
    if code == "42501":
        return ConfigurationError(f"{SETTING} may not use {what}; apply the migrations to the database, they grant it.")
    if status in (401, 403):
        return ConfigurationError(explain_refused_key(service_key))
    if status in (404, 406):
        return not_supabase(what)
    detail = f"HTTP {status}, code {code}" if code else f"HTTP {status}"
    return UnreachableError(f"SUPABASE_URL answers with an error, asked for {what} ({detail}); run again later.")


def not_supabase(what: str) -> ConfigurationError:
    """Return the error for an answer that no Supabase project gives."""
    return ConfigurationError(
        f"SUPABASE_URL does not answer as a Supabase project does, asked for {what}; correct the address."
    )
