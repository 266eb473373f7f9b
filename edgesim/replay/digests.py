"""A multiset of records in 8 bytes each: a fixture may be larger than memory."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

_PARTS = 256
"""Compared one after the other, so that only so small a share is ever counted in objects."""


class Digests:
    """Records by their digests; two sets are compared record by record, as often as each is there.

    The order of a record's keys makes no difference.
    """

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, records: Iterable[Any]) -> None:
        """Each of them once more."""
        for record in records:
            digest = digest_of(record)
            self._parts[digest >> 56].append(digest)

    def beyond(self, other: Digests) -> int:
        """How many are here that are not there, or not as often."""
        parts = zip(self._parts, other._parts, strict=True)
        return sum((Counter(mine) - Counter(theirs)).total() for mine, theirs in parts)

    def absent_from(self, other: Digests) -> set[int]:
        """The digests that are here and not there."""
        parts = zip(self._parts, other._parts, strict=True)
        return set().union(*(set(mine).difference(theirs) for mine, theirs in parts))


def digest_of(record: Any) -> int:
    """64 bits of it."""
    encoded = msgspec.json.encode(record, order="deterministic")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest())
