"""What was committed when, and what a copy that follows it by stamps may and must hold: the oracle of the model tests.

What belongs here: versions in the order of their commits, and the rules by which a copy is judged.
What does not: where the versions come from and how they are copied (`histories.py`). A key can be anything that is
changed in place or only added, a user or the tick of a sensor.

A version bears the stamp of the moment it was made, and is seen from the moment it was committed, maybe hours later.
Versions of one key are committed in the order of their stamps, because a writer holds the row until its commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Content = TypeVar("Content", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Version(Generic[Content]):
    """One state of a key."""

    stamp: datetime
    content: Content


class CommittedHistory(Generic[Key, Content]):
    """All that was ever committed; a copy is what each key holds there. Each rule returns its breaches as sentences."""

    def __init__(self) -> None:
        self._versions: dict[Key, list[Version[Content]]] = {}

    def commit(self, changes: Mapping[Key, Version[Content]]) -> None:
        """Let everybody see a version of each of these keys."""
        for key, version in changes.items():
            versions = self._versions.setdefault(key, [])
            assert not versions or versions[-1].stamp <= version.stamp, "a stamp lies before that of an earlier commit"
            versions.append(version)

    @property
    def current(self) -> dict[Key, Version[Content]]:
        """What everybody sees now."""
        return {key: versions[-1] for key, versions in self._versions.items()}

    def between(self, since: datetime | None, until: datetime) -> dict[Key, Version[Content]]:
        """What everybody sees now with a stamp in `[since, until)`."""
        return {
            key: version
            for key, version in self.current.items()
            if version.stamp < until and (since is None or version.stamp >= since)
        }

    def strangers(self, copy: Mapping[Key, Version[Content]]) -> list[str]:
        """Nothing is in the copy that was never committed."""
        return [
            f"{key} is copied as {version}, which was never committed"
            for key, version in copy.items()
            if version not in self._versions.get(key, ())
        ]

    def steps_back(self, earlier: Mapping[Key, Version[Content]], later: Mapping[Key, Version[Content]]) -> list[str]:
        """No key of a copy goes back to an older version, or away."""
        return [
            f"{key} went back from {version} to {later.get(key)}"
            for key, version in earlier.items()
            if self._age(key, later.get(key)) < self._age(key, version)
        ]

    def lost(self, copy: Mapping[Key, Version[Content]], before: datetime, since: datetime | None = None) -> list[str]:
        """All that was stamped in `[since, before)` is in the copy, or was replaced by something stamped later.

        A key whose present version is stamped at `before` or later is owed nothing yet: nobody can see its older
        versions any more, and the present one will be read by whoever reads on from `before`.
        """
        return [
            f"{key} lacks {version}, and holds {copy.get(key)}"
            for key, version in self.between(since, before).items()
            if copy.get(key) != version
        ]

    def _age(self, key: Key, version: Version[Content] | None) -> int:
        """Return how many commits have led to a version; nought for none and for a stranger."""
        versions = self._versions.get(key, [])
        return max((number for number, each in enumerate(versions, start=1) if each == version), default=0)


def digest(versions: Mapping[str, Version[Content]]) -> str:
    """Return the digest of a certificate: SHA-256 of `<key> <stamp>` a line, ordered by key."""
    lines: Iterable[str] = (
        f"{key} {version.stamp:%Y-%m-%dT%H:%M:%S}.{version.stamp.microsecond // 1000:03}Z"
        for key, version in sorted(versions.items())
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
