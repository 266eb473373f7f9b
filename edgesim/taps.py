"""Taps: places of a project at which readers may watch records pass.

A place that nobody watches costs one comparison for each send or batch. A watched one passes at
most ``rate`` records a second to each reader, encoded and cut; all others are counted as skipped.
Nothing ever waits for a reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import anyio
import msgspec

from edgesim.clock import Clock

RATE, RATE_MAX = 100, 1000
"""Records a second for one reader: the default and the maximum."""
UNREAD_MAX = 1000
"""Records that one reader may leave unread."""
RECORD_BYTES_MAX = 16_384
"""Longer records are cut."""
READERS_MAX = 16
"""Readers of all places together."""

_encoder = msgspec.json.Encoder(enc_hook=repr)


class TapReader:
    """Records for one reader; ``skipped`` counts those beyond its rate, or left unread."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._send, self.records = anyio.create_memory_object_stream[bytes](UNREAD_MAX)
        self.skipped = 0
        self._rate = rate
        self._clock = clock
        self._allowance = float(rate)
        self._seen = clock.elapsed()

    def room(self) -> int:
        """Number of records that it takes now."""
        now = self._clock.elapsed()
        self._allowance = min(self._rate, self._allowance + (now - self._seen) * self._rate)
        self._seen = now
        unread = self._send.statistics().current_buffer_used
        return min(int(self._allowance), UNREAD_MAX - unread)

    def take(self, records: Sequence[bytes], count: int) -> None:
        """Take the first ``records`` of ``count``, as far as there is room."""
        taken = records[: self.room()]
        for record in taken:
            self._send.send_nowait(record)
        self._allowance -= len(taken)
        self.skipped += count - len(taken)

    def end(self) -> None:
        """End the stream after the records that it holds."""
        self._send.close()


class Tap:
    """One place. ``readers`` is empty as long as nobody watches."""

    def __init__(self, place: str, clock: Clock) -> None:
        self.place = place
        self.readers: set[TapReader] = set()
        self._clock = clock

    def offer(self, count: int, records: Iterable[Any]) -> None:
        """Show up to ``count`` records that pass now; only those with room are read and encoded."""
        if not self.readers:
            return
        room = max(reader.room() for reader in self.readers)
        at = self._clock.datetime().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        taken = [self._line(at, each) for each in islice(records, room)]
        for reader in self.readers:
            reader.take(taken, count)

    def _line(self, at: str, record: Any) -> bytes:
        shown = {"at": at, "place": self.place, "record": msgspec.Raw(_encoded(record))}
        return _encoder.encode(shown)


class Taps:
    """All places of a project; they outlive its reloads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places: dict[str, Tap] = {}
        self._ended = False

    def at(self, place: str) -> Tap:
        """The tap of a place; it is created on first use."""
        if place not in self._places:
            self._places[place] = Tap(place, self._clock)
        return self._places[place]

    @property
    def reader_count(self) -> int:
        """Number of readers of all places."""
        return sum(len(tap.readers) for tap in self._places.values())

    @contextmanager
    def reading(self, place: str, rate: int = RATE) -> Iterator[TapReader]:
        """A reader of the records that pass from now on."""
        tap, reader = self.at(place), TapReader(rate, self._clock)
        tap.readers.add(reader)
        if self._ended:
            reader.end()
        try:
            yield reader
        finally:
            tap.readers.discard(reader)
            reader.end()
            reader.records.close()

    def end(self) -> None:
        """End all streams: the platform is shutting down."""
        self._ended = True
        for tap in self._places.values():
            for reader in tap.readers:
                reader.end()


def _encoded(record: Any) -> bytes:
    try:
        data = _encoder.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Not JSON, such as a large integer: a reader's record must not fail the sender.
        data = _encoder.encode({"text": repr(record)[:RECORD_BYTES_MAX]})
    if len(data) > RECORD_BYTES_MAX:
        start = data[:RECORD_BYTES_MAX].decode("utf-8", "ignore")
        data = _encoder.encode({"cut": start, "bytes": len(data)})
    return data
