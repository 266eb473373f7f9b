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
            encoded = msgspec.json.encode(record, order="deterministic")
            digest = hashlib.blake2b(encoded, digest_size=8).digest()
            self._parts[digest[0]].append(int.from_bytes(digest))

    def beyond(self, other: Digests) -> int:
        """How many are here that are not there, or not as often."""
        parts = zip(self._parts, other._parts, strict=True)
        return sum((Counter(mine) - Counter(theirs)).total() for mine, theirs in parts)
