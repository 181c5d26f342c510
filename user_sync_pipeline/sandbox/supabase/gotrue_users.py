"""How GoTrue shows a user and reads what an administrator asks for.

What belongs here: the JSON of a user, the attributes of a request, and their checks. What does not: endpoints and
SQL (`gotrue.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from starlette.responses import Response

# A NULL in one of these is more than GoTrue can read, and so is metadata that is no object.
_NEVER_NULL = (
    "aud", "role", "confirmation_token", "recovery_token", "email_change", "email_change_token_new",
    "email_change_token_current", "phone_change", "phone_change_token", "reauthentication_token", "created_at",
    "updated_at",
)  # fmt: skip
_API_VERSION = "2024-01-01"
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_PHONE = re.compile(r"[1-9][0-9]{1,14}")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class GoTrueError(Exception):
    """A refusal: HTTP status, GoTrue's code and its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def response(self, requested_version: str) -> Response:
        """Return the answer in the form that the client's version of the API expects."""
        if requested_version >= _API_VERSION:
            body: dict[str, Any] = {"code": self.code, "message": self.message}
            headers = {"X-Supabase-Api-Version": _API_VERSION}
        else:
            body, headers = {"code": self.status, "error_code": self.code, "msg": self.message}, {}
        headers["X-Sb-Error-Code"] = self.code
        return Response(msgspec.json.encode(body), self.status, headers, "application/json")


def invalid(message: str) -> GoTrueError:
    """Return the refusal of a value that cannot be meant."""
    return GoTrueError(400, "validation_failed", message)


def failure(message: str) -> GoTrueError:
    """Return what GoTrue says when the database did not do what it wanted."""
    return GoTrueError(500, "unexpected_failure", message)


class UserAttributes(msgspec.Struct):
    """What the body of a create or an update may hold."""

    id: str | None = None
    aud: str | None = None
    role: str | None = None
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    password_hash: str | None = None
    email_confirm: bool | None = None
    phone_confirm: bool | None = None
    user_metadata: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None
    ban_duration: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> UserAttributes:
        """Read a body, with e-mail, phone and ban checked; raises `GoTrueError`."""
        try:
            attributes = msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeError) as error:
            message = f"Could not parse request body as JSON: {error}"
            raise GoTrueError(400, "bad_json", message) from None
        if attributes.email:
            if len(attributes.email) > 255:
                raise invalid("An email address is too long")
            if not _EMAIL.fullmatch(attributes.email):
                raise invalid("Unable to validate email address: invalid format")
            attributes.email = attributes.email.lower()
        if attributes.phone:
            attributes.phone = attributes.phone.removeprefix("+").replace(" ", "")
            if not _PHONE.fullmatch(attributes.phone):
                raise invalid("Invalid phone number format (E.164 required)")
        attributes.banned_until()
        return attributes

    def banned_until(self) -> datetime | None:
        """Return when a ban that starts now ends, or None for no ban; durations are written as `24h` or `1h30m`."""
        if not self.ban_duration or self.ban_duration == "none":
            return None
        if not re.fullmatch(rf"(?:{_DURATION_PART.pattern})+", self.ban_duration):
            raise invalid(f'invalid format for ban duration: time: invalid duration "{self.ban_duration}"')
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(self.ban_duration))
        return datetime.now(UTC) + timedelta(seconds=seconds)


def parse_user_id(text: str) -> UUID:
    """Read the id in a path; raises `GoTrueError`."""
    try:
        return UUID(text)
    except ValueError:
        raise GoTrueError(404, "validation_failed", "user_id must be an UUID") from None


def merged(current: dict[str, Any] | None, updates: Mapping[str, Any]) -> dict[str, Any]:
    """Change metadata key by key; None takes a key away."""
    return {key: value for key, value in {**(current or {}), **updates}.items() if value is not None}


def user_json(row: Mapping[str, Any], identities: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return a user as GoTrue shows it; `identities` is None in a list, where they are not loaded.

    Raises `ValueError` for a row that GoTrue cannot read.
    """
    unreadable = [name for name in _NEVER_NULL if row[name] is None]
    if unreadable:
        raise ValueError(f"NULL in {unreadable[0]}")
    optional = {
        "email_confirmed_at": row["email_confirmed_at"],
        "invited_at": row["invited_at"],
        "phone_confirmed_at": row["phone_confirmed_at"],
        "confirmation_sent_at": row["confirmation_sent_at"],
        "confirmed_at": row["confirmed_at"],
        "recovery_sent_at": row["recovery_sent_at"],
        "new_email": row["email_change"],
        "email_change_sent_at": row["email_change_sent_at"],
        "new_phone": row["phone_change"],
        "phone_change_sent_at": row["phone_change_sent_at"],
        "reauthentication_sent_at": row["reauthentication_sent_at"],
        "last_sign_in_at": row["last_sign_in_at"],
        "banned_until": row["banned_until"],
        "deleted_at": row["deleted_at"],
    }
    return {
        "id": str(row["id"]),
        "aud": row["aud"],
        "role": row["role"],
        "email": row["email"] or "",
        "phone": row["phone"] or "",
        **_present(optional),
        "app_metadata": metadata(row["app_metadata"]),
        "user_metadata": metadata(row["user_metadata"]),
        "identities": None if identities is None else [_identity_json(identity) for identity in identities],
        "created_at": _moment(row["created_at"]),
        "updated_at": _moment(row["updated_at"]),
        "is_anonymous": row["is_anonymous"],
    }


def metadata(text: str | None) -> dict[str, Any] | None:
    """Read a metadata column: SQL's NULL is an empty object, but JSON's null stays null; raises `ValueError`."""
    value = msgspec.json.decode(text) if text is not None else {}
    if value is not None and not isinstance(value, dict):
        raise ValueError("metadata is no object")
    return value


def _identity_json(row: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: row[name] for name in ("last_sign_in_at", "created_at", "updated_at")}
    return {
        "identity_id": str(row["id"]),
        "id": row["provider_id"],
        "user_id": str(row["user_id"]),
        **_present({"identity_data": row["identity_data"], "provider": row["provider"], **times}),
        **_present({"email": row["email"]}),
    }


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, as GoTrue does."""
    return {name: _moment(value) if isinstance(value, datetime) else value for name, value in values.items() if value}


def _moment(value: datetime) -> str:
    """Format as GoTrue does: UTC with `Z`, and no more decimals than are needed."""
    text = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "Z"
