"""A multiset of records in 8 bytes each, since a fixture may be larger than memory."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

_PARTS = 256
"""Number of partitions, compared one at a time to bound the memory of a comparison."""


class Digests:
    """A multiset of records, stored as their digests.

    The order of a record's keys is ignored.
    """

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, records: Iterable[Any]) -> None:
        """Add one occurrence of each record."""
        for record in records:
            digest = digest_of(record)
            self._parts[digest >> 56].append(digest)

    def extend(self, other: Digests) -> None:
        """Add all occurrences of another multiset."""
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine.extend(theirs)

    def beyond(self, other: Digests) -> int:
        """Number of occurrences that exceed those in ``other``."""
        parts = zip(self._parts, other._parts, strict=True)
        return sum((Counter(mine) - Counter(theirs)).total() for mine, theirs in parts)

    def absent_from(self, other: Digests) -> set[int]:
        """Digests that do not occur in ``other``."""
        parts = zip(self._parts, other._parts, strict=True)
        return set().union(*(set(mine).difference(theirs) for mine, theirs in parts))


def digest_of(record: Any) -> int:
    """64-bit digest of a record."""
    encoded = msgspec.json.encode(record, order="deterministic")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest())
