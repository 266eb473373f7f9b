"""Earlier values of KV keys, for reads that see a write late, as other locations may."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edgesim.kv.driver import KvEntry, KvKey

STALE_SECONDS = 60.0
"""Maximum age of what a stale read returns: a location keeps what it has read for this time."""
KEPT_BYTES_MAX = 32 << 20
"""Maximum size of all earlier values kept; the oldest are dropped first."""


class Key(NamedTuple):
    """A key in its namespace."""

    namespace: str
    name: str


class _Earlier(NamedTuple):
    until: float
    entry: KvEntry | None


class EarlierEntries:
    """The entries that writes of the last STALE_SECONDS have replaced; times in Unix seconds."""

    def __init__(self) -> None:
        # Oldest first, over all keys and within each.
        self._replaced: dict[Key, list[_Earlier]] = {}
        self._order: deque[Key] = deque()
        self._bytes = 0

    def record(self, key: Key, entry: KvEntry | None, now: float) -> None:
        """Remember that ``key`` held ``entry`` (None: nothing) until now."""
        self._replaced.setdefault(key, []).append(_Earlier(now, entry))
        self._order.append(key)
        self._bytes += _size(entry)
        while self._order and (self._is_old(now) or self._bytes > KEPT_BYTES_MAX):
            self._drop_oldest()

    def at(self, key: Key, moment: float) -> tuple[KvEntry | None] | None:
        """Return, in a tuple, the entry of ``key`` at a moment; None if it is the present one."""
        for each in self._replaced.get(key, ()):
            if each.until > moment:
                return (each.entry,)
        return None

    def names(self, namespace: str, prefix: str, after: str) -> Iterator[Key]:
        """The keys with earlier entries that a listing may have to change."""
        for key in self._replaced:
            beyond = key.name.encode() > after.encode()
            if key.namespace == namespace and key.name.startswith(prefix) and beyond:
                yield key

    def _is_old(self, now: float) -> bool:
        return self._replaced[self._order[0]][0].until <= now - STALE_SECONDS

    def _drop_oldest(self) -> None:
        key = self._order.popleft()
        earlier = self._replaced[key]
        self._bytes -= _size(earlier.pop(0).entry)
        if not earlier:
            del self._replaced[key]


def listed(found: Iterable[KvKey], earlier: dict[str, KvEntry | None]) -> list[KvKey]:
    """Apply earlier entries, by name, to a listing: keys appear, vanish and change."""
    keys = {each.name: each for each in found}
    for name, entry in earlier.items():
        if entry is None:
            keys.pop(name, None)
        else:
            keys[name] = KvKey(name, entry.expiration, entry.metadata)
    return [keys[name] for name in sorted(keys, key=str.encode)]


def _size(entry: KvEntry | None) -> int:
    return 0 if entry is None else len(entry.value) + len(entry.metadata or "")
