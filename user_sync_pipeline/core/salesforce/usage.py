"""How many API requests were made, and how many of its quota the organisation has used.

What belongs here: counting, and reading the `Sforce-Limit-Info` header in each of its forms.
What does not: how many may be made (`budget.py`).
"""

from __future__ import annotations

import re
from threading import Lock

# `api-usage=18/5000`, alone or beside `per-app-api-usage=17/250(appName=…)` or `api-bursts=1/750`.
_API_USAGE = re.compile(r"(?<![\w-])api-usage=(\d+)/(\d+)")


class ApiUsage:
    """Requests against the quota: made by this object, and by the whole organisation within 24 hours."""

    def __init__(self) -> None:
        self.calls = 0
        self.used: int | None = None
        self.limit: int | None = None
        self._lock = Lock()

    @property
    def share(self) -> float | None:
        """Used part of the organisation's quota, 0 to 1 and beyond; None while Salesforce has not told it."""
        if self.used is None or not self.limit:
            return None
        return self.used / self.limit

    def as_json(self) -> dict[str, int | float | None]:
        """Return the organisation's figures: `used`, `limit` and `share`, each null while it is not known."""
        return {"used": self.used, "limit": self.limit, "share": self.share}

    def count_call(self, at_most: int | None = None) -> bool:
        """Count one request that is about to be sent; False, and nothing counted, when `at_most` were made already."""
        with self._lock:
            if at_most is not None and self.calls >= at_most:
                return False
            self.calls += 1
            return True

    def read_header(self, limit_info: str | None) -> None:
        """Take over the figures of a `Sforce-Limit-Info` header; one that is absent or odd changes nothing."""
        if found := _API_USAGE.search(limit_info or ""):
            with self._lock:
                self.used, self.limit = int(found[1]), int(found[2])
