"""From an error answer of Salesforce to what the program does about it.

What belongs here: reading an error answer, and the one table from answer to decision. What does not: the sentence
for a person (`errors.py`, `sign_in_errors.py`), and acting on a decision: the session tries again and renews the
token (`transport.py`), all else is for whoever asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import msgspec

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer: HTTP status, error code, and a message that is for decisions only."""

    status: int
    code: str | None = None
    message: str = field(default="", repr=False)


def read_refusal(status: int, body: bytes) -> Refusal:
    """Read an error answer of REST (a list) or of the token endpoint (an object); other bodies give no code."""
    try:
        answer = msgspec.json.decode(body)
    except ValueError:
        return Refusal(status)
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return Refusal(status)
    code = answer.get("errorCode", answer.get("error"))
    message = answer.get("message", answer.get("error_description"))
    return Refusal(
        status,
        code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        message if isinstance(message, str) else "",
    )


class Decision(Enum):
    """What to do after an error answer, or after none."""

    RETRY = auto()
    BACK_OFF = auto()  # try again as well, but leave Salesforce alone for longer
    NEW_TOKEN = auto()  # try again once with a new access token
    PAUSE = auto()  # keep what is stored, and end the run for today
    HALVE = auto()  # ask for half the window
    KEYSET = auto()  # ask anew for what follows the last record that was read
    REDESCRIBE = auto()  # look once which fields there are by now
    STOP = auto()  # somebody must change something first


class _Rule(NamedTuple):
    """A rule applies when status, code and message (in lower case) fit; None and "" fit all."""

    decision: Decision
    status: Collection[int] | None = None
    code: str | None = None
    said: str = ""


# The first rule that applies is taken; an error answer that none applies to stops the run.
DECISIONS = (
    _Rule(Decision.NEW_TOKEN, status=(401,)),
    _Rule(Decision.BACK_OFF, code="REQUEST_LIMIT_EXCEEDED", said="concurrent"),
    _Rule(Decision.PAUSE, code="REQUEST_LIMIT_EXCEEDED"),
    _Rule(Decision.BACK_OFF, code="UNABLE_TO_LOCK_ROW"),
    _Rule(Decision.BACK_OFF, code="rate_limit_exceeded"),
    _Rule(Decision.HALVE, code="QUERY_TIMEOUT"),
    _Rule(Decision.HALVE, code="EXCEEDED_ID_LIMIT"),
    _Rule(Decision.HALVE, code="QUERY_TOO_COMPLICATED"),
    _Rule(Decision.HALVE, code="OPERATION_TOO_LARGE"),
    _Rule(Decision.KEYSET, code="INVALID_QUERY_LOCATOR"),
    _Rule(Decision.REDESCRIBE, code="INVALID_FIELD"),
    _Rule(Decision.STOP, code="MALFORMED_QUERY"),
    _Rule(Decision.STOP, code="INVALID_TYPE"),
    _Rule(Decision.RETRY, status=(406, 420, 429)),
    _Rule(Decision.RETRY, status=range(500, 600)),
    _Rule(Decision.STOP, status=range(300, 400)),
    _Rule(Decision.STOP, status=(403, 404, 405, 410, 414, 431)),
)


def decide(refusal: Refusal) -> Decision:
    """Return the decision of the first rule that applies to an error answer."""
    message = refusal.message.lower()
    for rule in DECISIONS:
        if (
            (rule.status is None or refusal.status in rule.status)
            and rule.code in (None, refusal.code)
            and rule.said in message
        ):
            return rule.decision
    return Decision.STOP
