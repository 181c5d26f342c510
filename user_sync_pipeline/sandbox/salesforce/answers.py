"""What the simulator answers before it is put on the wire, and what the paths are.

What belongs here: the two data classes that handlers and routes share. What does not: handlers, and headers that
go with every answer (`api.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request

from user_sync_pipeline.sandbox.salesforce.faults import Kind


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, JSON unless `headers` say otherwise."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers each method that a path allows, and what fault scripts call it.

    An `open` path needs no token and counts against no quota. One without handlers does not exist.
    """

    kind: Kind
    handlers: Mapping[str, Handler]
    open: bool = False
