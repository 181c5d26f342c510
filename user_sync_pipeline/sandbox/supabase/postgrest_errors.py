"""The errors of PostgREST: one exception, and which HTTP status a SQLSTATE becomes.

What belongs here: codes, statuses and the shape of the body. What does not: deciding when one is raised.
"""

from __future__ import annotations

import psycopg
from starlette.responses import JSONResponse

_NOT_ALLOWED = "42501"
# The longest prefix that fits decides; what fits none is the fault of the request (400).
_STATUS_OF_SQLSTATE = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "21000": 500, "23503": 409, "23505": 409, "25": 500, "25006": 405,
    "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500, "42883": 404, "42P01": 404, "42P17": 500,
    "53": 503, "53400": 500, "54": 500, "55": 500, "57": 500, "57P01": 503, "58": 500, "F0": 500, "HV": 500,
    "P0": 500, "P0001": 400, "XX": 500,
}  # fmt: skip


class PostgrestError(Exception):
    """An answer that is no success; `code` is a SQLSTATE or one of PostgREST's own."""

    def __init__(
        self, status: int, code: str, message: str, *, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        self.headers: dict[str, str] = {}

    @classmethod
    def from_database(cls, error: psycopg.Error, *, is_anonymous: bool) -> PostgrestError:
        """Translate what Postgres, or its absence, said to a request."""
        if isinstance(error, psycopg.DataError) and error.sqlstate is None:
            return cls(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')
        if error.sqlstate is None:
            return cls(503, "PGRST000", "Database connection error. Retrying the connection.")
        code, said = error.sqlstate, error.diag
        message = said.message_primary or ""
        if code == _NOT_ALLOWED:
            status = 401 if is_anonymous else 403
        elif code == "21000" and message.endswith("requires a WHERE clause"):
            status = 400
        elif code == "22023" and message.startswith("role") and message.endswith("does not exist"):
            status = 401
        elif code.startswith("PT") and code[2:].isdigit():
            status = int(code[2:])
        else:
            prefixes = (code[:length] for length in (5, 2))
            status = next((_STATUS_OF_SQLSTATE[prefix] for prefix in prefixes if prefix in _STATUS_OF_SQLSTATE), 400)
        return cls(status, code, message, details=said.message_detail, hint=said.message_hint)

    def response(self) -> JSONResponse:
        """Return the answer; the code also goes into a header, since an answer to HEAD has no body."""
        body = {"code": self.code, "details": self.details, "hint": self.hint, "message": self.message}
        headers = {"Proxy-Status": f"PostgREST; error={self.code}", **self.headers}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body, self.status, headers=headers, media_type="application/json; charset=utf-8")


def not_implemented(feature: str) -> PostgrestError:
    """Refuse what PostgREST can do and this part of it cannot, rather than answer something else."""
    return PostgrestError(400, "PGRST127", "Feature not implemented", details=f"The sandbox has no {feature}.")
