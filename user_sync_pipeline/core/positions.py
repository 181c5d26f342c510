"""A place in the order in which users are read, (SystemModstamp, Id): how far an extraction has come.

What belongs here: the place itself, and how it is told from a page. What does not: asking for what follows it
(`salesforce/soql.py`), and keeping it (`warehouse/landing.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa


class Position(NamedTuple):
    """The last record that was read: its SystemModstamp (aware) and its Id."""

    system_modstamp: datetime
    id: str


def rows_before(batch: pa.RecordBatch, moment: datetime) -> int:
    """Return how many rows of a page were changed before a moment: those that no reading on brings again."""
    import pyarrow.compute as pc

    return pc.sum(pc.less(batch.column("system_modstamp"), moment)).as_py() or 0


def last_position(batch: pa.RecordBatch, before: datetime) -> Position | None:
    """Return the place of the last row of a page that was changed before a moment; None when there is none.

    A page shows a record as it is now, at the place where the query found it. One that was changed meanwhile thus
    stands there with a moment that is far ahead of its neighbours, and reading on behind it would leave out what lies
    between. Such a moment is never earlier than the one up to which Salesforce vouched when the reading began.
    """
    import pyarrow.compute as pc

    rows = pc.indices_nonzero(pc.less(batch.column("system_modstamp"), before))
    if not len(rows):
        return None
    row = rows[-1].as_py()
    return Position(batch.column("system_modstamp")[row].as_py(), batch.column("id")[row].as_py())
