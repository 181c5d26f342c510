"""What an examination says: figures, and the one word for what is wrong.

What belongs here: the words, and the shape of an answer. What does not: how they are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Cause = Literal[
    "database_unreachable",
    "database_slow",
    "database_refused",
    "tables_missing",
    "profiles_not_configured",
    "profiles_unreachable",
    "profiles_slow",
    "profiles_refused",
    "profiles_missing",
    "trigger_missing",
    "trigger_disabled",
    "trigger_changed",
    "webserver_unreachable",
    "webserver_slow",
    "webserver_refused",
    "daemon_unhealthy",
    "code_location_unhealthy",
    "internal_error",
]


@dataclass(frozen=True, slots=True)
class Report:
    """`cause` is None when all is well; `figures` hold numbers, booleans and null, maybe in objects."""

    cause: Cause | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return self.cause is None

    def as_json(self) -> dict[str, Any]:
        """Return `status`, the `cause` when there is one, and the figures."""
        verdict = {"status": "healthy"} if self.cause is None else {"status": "unhealthy", "cause": self.cause}
        return {**verdict, **self.figures}
