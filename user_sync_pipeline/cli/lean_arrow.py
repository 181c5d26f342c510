"""Arrow for a program that only passes pages on.

What belongs here: how Arrow behaves in a whole process, so only commands may ask for it, and nothing in core.
What does not: anything about the pages themselves.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# What glibc's <malloc.h> calls M_ARENA_MAX and M_MMAP_THRESHOLD.
_MOST_ARENAS, _GIVEN_BACK_FROM = -8, -3


class _WithoutPandas(MetaPathFinder):
    """Answers for pandas that it is not installed, which Arrow takes well."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this command.", name=fullname)
        return None


@contextmanager
def lean_arrow() -> Iterator[None]:
    """Keep a quarter of the start, and a third of the memory of a million users.

    Arrow imports pandas, where it is installed, as soon as it meets a list, only to know its missing values. And its
    own allocator keeps what one thread has allocated and another one freed, as pages are. That of glibc does so
    too, as long as it may give each thread an arena and learn from large pages to keep what is as large; to the end of
    the process it may not.
    """
    import pyarrow as pa

    finder, pool = _WithoutPandas(), pa.default_memory_pool()
    sys.meta_path.insert(0, finder)
    pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MOST_ARENAS, 2)
        mallopt(_GIVEN_BACK_FROM, 1 << 20)
    try:
        yield
    finally:
        pa.set_memory_pool(pool)
        sys.meta_path.remove(finder)
