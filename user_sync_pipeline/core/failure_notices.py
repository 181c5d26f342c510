"""What somebody is told about a run that failed, and how.

What belongs here: the notice, without anything that is secret or personal, and posting it to a webhook; any other
function that takes a notice will do. What does not: which failures are told (`sensors.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from user_sync_pipeline.core.errors import UnreachableError

# In seconds, to connect and for each part of the exchange: a sensor waits meanwhile.
TIMEOUT = 10.0
CONNECTION_RETRIES = 2
LONGEST_REASON = 500

# E-mail addresses, and database addresses with a password.
_ADDRESS = re.compile(r"\S+@\S+")


@dataclass(frozen=True, slots=True)
class FailureNotice:
    """A run that failed: its job, its id, the days it was to read if any, the step that failed if any, and why."""

    job: str
    run_id: str
    days: str | None
    step: str | None
    reason: str

    @property
    def text(self) -> str:
        """The notice as one line for people."""
        days = f" of {self.days}" if self.days else ""
        step = f" in {self.step}" if self.step else ""
        return f"The run {self.run_id} of {self.job}{days} failed{step}: {without_addresses(self.reason)}"


Notifier = Callable[[FailureNotice], None]


def without_addresses(text: str) -> str:
    """Return a text on one line, not too long, with nothing that looks like an e-mail or a database address."""
    line = _ADDRESS.sub("(an address)", " ".join(text.split()))
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def post(url: str, notice: FailureNotice) -> None:
    """Post `{"text": …}`, which chat programs understand; raises `UnreachableError` without the address, a secret."""
    import httpx

    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=CONNECTION_RETRIES), timeout=TIMEOUT) as client:
            answer = client.post(url, json={"text": notice.text})
    except httpx.HTTPError as error:
        how = "did not answer" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        raise UnreachableError(
            f"The webhook of USER_SYNC_FAILURE_WEBHOOK_URL {how}; the notice is in the log only."
        ) from None
    if not answer.is_success:
        raise UnreachableError(
            f"The webhook of USER_SYNC_FAILURE_WEBHOOK_URL answered with status {answer.status_code}; "
            "the notice is in the log only."
        )
