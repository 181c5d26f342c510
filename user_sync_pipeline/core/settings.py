"""Environment variables as typed settings, each checked when it is read.

What belongs here: every variable that the pipeline understands, its default and its refusal.
What does not: connections. This is the only module that reads `os.environ`, and it does so when
a function is called, never on import. Secrets are kept out of every `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.login_flows import SIGN_IN_VARIABLES, LoginFlow, read_login_flow

DATABASE = "USER_SYNC_DATABASE_URL"
DEFAULT_HORIZON = date(2026, 1, 1)
SMALLEST_PAGE, LARGEST_PAGE = 200, 2000
DEFAULT_RESERVE_PERCENT = 10
# The same month of last year can still be compared.
DEFAULT_RUN_RETENTION_DAYS, MOST_DAYS = 400, 36_500
DEFAULT_PARALLEL_REQUESTS, MOST_PARALLEL_REQUESTS = 4, 16
DEFAULT_OWNERS = ("team:data",)
DEFAULT_DAGSTER_URL = "http://127.0.0.1:3000"

Environment = Mapping[str, str]
Transport = Literal["auto", "rest", "bulk"]

_OWNER = re.compile(r"team:[^\s:,]+|[^\s:@,]+@[^\s:@,]+\.[^\s:@,.]+")
_API_VERSION = re.compile(r"[1-9][0-9]\.0")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_FIELDS_OF_WHOEVER_ASKS = frozenset({"lastvieweddate", "lastreferenceddate"})


@dataclass(frozen=True, slots=True)
class SalesforceSettings:
    """How to sign in to Salesforce, and how to read from it.

    `page_size` is records per request, None for a choice by the size of the window; large windows are read by
    `parallel_requests` at once. `transport` chooses between REST and Bulk 2.0; auto does by the number of users.
    `api_budget_per_run` is in requests, None for no bound; `api_reserve_percent` of the
    organisation's daily requests are left to others.
    """

    login_url: str
    login: LoginFlow
    api_version: str = "66.0"
    ca_bundle: str | None = None
    proxy: str | None = field(default=None, repr=False)
    page_size: int | None = None
    parallel_requests: int = DEFAULT_PARALLEL_REQUESTS
    transport: Transport = "auto"
    extra_fields: tuple[str, ...] = ()
    api_budget_per_run: int | None = None
    api_reserve_percent: int = DEFAULT_RESERVE_PERCENT

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> SalesforceSettings:
        """Read the `SALESFORCE_*` variables; raises `ConfigurationError` naming the first wrong one."""
        read = _Reader(environment)
        login_url = read.url("SALESFORCE_LOGIN_URL") or "https://login.salesforce.com"
        reserve = read.number("SALESFORCE_API_RESERVE_PERCENT", 0, 99)
        parallel = read.number("SALESFORCE_PARALLEL_REQUESTS", 1, MOST_PARALLEL_REQUESTS)
        return cls(
            login_url=login_url,
            login=read_login_flow(read, login_url),
            api_version=_api_version(read.text("SALESFORCE_API_VERSION") or "66.0"),
            ca_bundle=read.file("SALESFORCE_CA_BUNDLE"),
            proxy=read.text("SALESFORCE_PROXY"),
            page_size=_page_size(read.text("SALESFORCE_PAGE_SIZE") or "auto"),
            parallel_requests=DEFAULT_PARALLEL_REQUESTS if parallel is None else parallel,
            transport=_transport(read.text("SALESFORCE_TRANSPORT") or "auto"),
            extra_fields=_extra_fields(read.text("SALESFORCE_EXTRA_FIELDS") or ""),
            api_budget_per_run=read.number("SALESFORCE_API_BUDGET_PER_RUN", 1, 10**9),
            api_reserve_percent=DEFAULT_RESERVE_PERCENT if reserve is None else reserve,
        )


@dataclass(frozen=True, slots=True)
class SupabaseSettings:
    """Where auth users and profiles are: by SQL (`database_url`), by HTTP (`url` and `service_role_key`), or both."""

    url: str | None = None
    service_role_key: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> SupabaseSettings:
        """Read the `SUPABASE_*` variables; `database_url` falls back to `USER_SYNC_DATABASE_URL`."""
        read = _Reader(environment)
        url = read.url("SUPABASE_URL")
        key = read.text("SUPABASE_SERVICE_ROLE_KEY")
        if url and not key:
            raise ConfigurationError(
                "SUPABASE_SERVICE_ROLE_KEY is not set; SUPABASE_URL needs it. Put the project's secret key there."
            )
        if key and not url:
            raise ConfigurationError(
                "SUPABASE_URL is not set; SUPABASE_SERVICE_ROLE_KEY needs it, for example https://example.supabase.co."
            )
        return cls(
            url=url,
            service_role_key=key,
            database_url=read.text("SUPABASE_DB_URL") or read.text("USER_SYNC_DATABASE_URL"),
            ca_bundle=read.file("SUPABASE_CA_BUNDLE"),
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days landed rows, and runs with their certificates and rejects, are kept; None is for ever."""

    raw_days: int | None = None
    run_days: int | None = DEFAULT_RUN_RETENTION_DAYS


def retention(environment: Environment | None = None) -> Retention:
    """Return how long things are kept: `USER_SYNC_RAW_RETENTION_DAYS`, `USER_SYNC_RUN_RETENTION_DAYS`, 0 for ever.

    Landed rows are kept unless a number says otherwise: there are only as many as users and changes of theirs.
    """
    read = _Reader(environment)
    raw = read.number("USER_SYNC_RAW_RETENTION_DAYS", 0, MOST_DAYS)
    run = read.number("USER_SYNC_RUN_RETENTION_DAYS", 0, MOST_DAYS)
    return Retention(raw or None, DEFAULT_RUN_RETENTION_DAYS if run is None else run or None)


@dataclass(frozen=True, slots=True)
class DagsterSettings:
    """Where Dagster keeps its settings and its history, and where its webserver is; None for what is not set."""

    home: str | None = None
    postgres_url: str | None = field(default=None, repr=False)
    webserver_url: str | None = None

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> DagsterSettings:
        """Read `DAGSTER_HOME` and `DAGSTER_POSTGRES_URL`, which Dagster reads itself, and `USER_SYNC_DAGSTER_URL`."""
        read = _Reader(environment)
        webserver_url = dagster_url(environment) if read.text("USER_SYNC_DAGSTER_URL") else None
        return cls(read.text("DAGSTER_HOME"), read.text("DAGSTER_POSTGRES_URL"), webserver_url)


def is_salesforce_configured(environment: Environment | None = None) -> bool:
    """Tell whether any setting asks for a sign-in to Salesforce, maybe an incomplete one."""
    read = _Reader(environment)
    return any(read.text(name) for name in SIGN_IN_VARIABLES)


def database_url_if_set(environment: Environment | None = None) -> str | None:
    """Return `USER_SYNC_DATABASE_URL`, None when it is not set."""
    return _Reader(environment).text(DATABASE)


def database_url(environment: Environment | None = None) -> str:
    """Return `USER_SYNC_DATABASE_URL`; raises `ConfigurationError` when it is not set."""
    url = database_url_if_set(environment)
    if not url:
        raise ConfigurationError(
            "USER_SYNC_DATABASE_URL is not set; put the address of your Postgres database there, "
            "for example postgresql://user:password@host:5432/postgres."
        )
    return url


def horizon(environment: Environment | None = None) -> date:
    """Return the first day of the partition axis, `USER_SYNC_HORIZON`; that partition is open to the past."""
    text = _Reader(environment).text("USER_SYNC_HORIZON")
    if not text:
        return DEFAULT_HORIZON
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"USER_SYNC_HORIZON is {text!r}, which is not a day; write it as 2026-01-01."
        ) from None
    if day > datetime.now(UTC).date():
        raise ConfigurationError(f"USER_SYNC_HORIZON is {day}, which lies in the future; give a day in the past.")
    return day


def environment_name(environment: Environment | None = None) -> str:
    """Return `USER_SYNC_ENVIRONMENT` in lower case, `development` when it is not set."""
    return (_Reader(environment).text("USER_SYNC_ENVIRONMENT") or "development").lower()


def failure_webhook_url(environment: Environment | None = None) -> str | None:
    """Return `USER_SYNC_FAILURE_WEBHOOK_URL`, None when it is not set; the whole address is a secret."""
    name = "USER_SYNC_FAILURE_WEBHOOK_URL"
    read = _Reader(environment)
    whole = read.text(name)
    if whole is None:
        return None
    address, mark, query = whole.partition("?")
    return f"{_Reader({name: address}).url(name, with_path=True)}{mark}{query}"


def owners(environment: Environment | None = None) -> tuple[str, ...]:
    """Return whom Dagster's catalogue names as owners, `USER_SYNC_OWNERS`: e-mail addresses and `team:name`."""
    text = _Reader(environment).text("USER_SYNC_OWNERS") or ""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not _OWNER.fullmatch(name):
            raise ConfigurationError(
                f"USER_SYNC_OWNERS holds {name!r}, which is no owner; write it as team:data,somebody@example.com."
            )
    return names or DEFAULT_OWNERS


def source_url(environment: Environment | None = None) -> str | None:
    """Return `USER_SYNC_SOURCE_URL`, where the repository can be seen at a branch or commit; None when not set."""
    return _Reader(environment).url("USER_SYNC_SOURCE_URL", with_path=True)


def admin_token(environment: Environment | None = None) -> str | None:
    """Return `USER_SYNC_ADMIN_TOKEN`, which `user-sync serve` asks for before it tells of users; None when not set."""
    token = _Reader(environment).text("USER_SYNC_ADMIN_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(
            "USER_SYNC_ADMIN_TOKEN holds a space or a letter that no header can carry; give letters, digits and signs."
        )
    return token


def dagster_url(environment: Environment | None = None) -> str:
    """Return `USER_SYNC_DAGSTER_URL`, where Dagster's webserver answers, without a trailing slash.

    No secret goes there, so it may be http, as within a cluster; and a path, where the webserver has a prefix.
    """
    value = _Reader(environment).text("USER_SYNC_DAGSTER_URL") or DEFAULT_DAGSTER_URL
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("USER_SYNC_DAGSTER_URL holds more than scheme, host and path; leave the rest out.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"USER_SYNC_DAGSTER_URL is no address; give one such as {DEFAULT_DAGSTER_URL}.")
    return value.rstrip("/")


class _Reader:
    """Reads variables; one that is empty or blank counts as not set."""

    def __init__(self, environment: Environment | None) -> None:
        self._environment: Environment = os.environ if environment is None else environment

    def text(self, name: str) -> str | None:
        return self._environment.get(name, "").strip() or None

    def url(self, name: str, *, with_path: bool = False) -> str | None:
        """Return an https address without trailing slash; http only on this machine itself."""
        value = self.text(name)
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.username or parts.password:
            raise ConfigurationError(f"{name} holds a user name or password; give the bare address.")
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
            raise ConfigurationError(f"{name} is not an https:// address; give one such as https://example.com.")
        path = parts.path.rstrip("/")
        if (path and not with_path) or parts.query or parts.fragment:
            raise ConfigurationError(f"{name} has a path behind the host; give only scheme and host.")
        return f"{parts.scheme}://{parts.netloc}{path}"

    def number(self, name: str, smallest: int, largest: int) -> int | None:
        """Return a whole number between two bounds."""
        value = self.text(name)
        if value is None:
            return None
        if (
            value.isascii()
            and value.isdigit()
            and len(value) <= len(str(largest))
            and smallest <= int(value) <= largest
        ):
            return int(value)
        raise ConfigurationError(f"{name} is {value!r}; give a whole number from {smallest} to {largest}.")

    def file(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not Path(value).is_file():
            raise ConfigurationError(f"{name} names a file that does not exist; give the path of a PEM file.")
        return value


def _api_version(text: str) -> str:
    if not _API_VERSION.fullmatch(text):
        raise ConfigurationError(f"SALESFORCE_API_VERSION is {text!r}; write it as 66.0.")
    return text


def _page_size(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and SMALLEST_PAGE <= int(text) <= LARGEST_PAGE:
        return int(text)
    raise ConfigurationError(
        f"SALESFORCE_PAGE_SIZE is {text!r}; give auto or a number from {SMALLEST_PAGE} to {LARGEST_PAGE}."
    )


def _transport(text: str) -> Transport:
    if text not in get_args(Transport):
        raise ConfigurationError(f"SALESFORCE_TRANSPORT is {text!r}; give auto, rest or bulk.")
    return cast(Transport, text)


def _extra_fields(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not _FIELD_NAME.fullmatch(name):
            raise ConfigurationError(
                f"SALESFORCE_EXTRA_FIELDS holds {name!r}, which is not a field name; write it as Region__c,Team__c."
            )
        if name.lower() in _FIELDS_OF_WHOEVER_ASKS:
            raise ConfigurationError(
                f"SALESFORCE_EXTRA_FIELDS holds {name}, which tells of the integration user and not of those who are "
                "read; leave it out."
            )
    return names
