"""Messages of an isolate as they arrive: room for large ones is taken before they are read."""

from __future__ import annotations

from edgesim.isolates.host import weight
from edgesim.isolates.host.budget import MemoryHolder
from edgesim.isolates.protocol.wire import (
    LENGTH_BYTES,
    MESSAGE_BYTES_MAX,
    Call,
    FrameBatch,
    decoded_batch,
    length_of,
)

SMALL_BYTES = 32_768
"""Size up to which a message is read at once."""


class ReceivedBatch:
    """One received message.  Its ``bytes`` are occupied as long as something in it is kept.

    ``is_granted``: they have been occupied before it was read.
    """

    __slots__ = ("_holder", "_users", "bytes")

    def __init__(self, size: int, holder: MemoryHolder | None, *, is_granted: bool = False) -> None:
        self.bytes = size
        self._holder = holder
        self._users = int(is_granted)

    def keep(self) -> None:
        """Note one more user of something in the message."""
        if not self._users and self._holder is not None:
            self._holder.add(self.bytes)
        self._users += 1

    def release(self) -> None:
        """Note one user less."""
        self._users -= 1
        if not self._users and self._holder is not None:
            self._holder.drop(self.bytes)


class Intake:
    """Decoder of a peer's byte stream into messages.

    If ``wanted`` is not 0 after ``take``, so many bytes of memory are needed to go on: call
    ``grant``, then ``take`` again.  The caller occupies them.
    """

    def __init__(self, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.wanted = 0
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._length: int | None = None
        """Length of the message whose beginning has arrived."""
        self._granted = 0
        self._weight = weight.MsgpackWeight()
        self._weighed = 0
        """Bytes of the message that have been weighed."""

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def clear(self) -> None:
        """Drop what has arrived."""
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        """Bytes that have arrived and are not taken."""
        return len(self._buffer)

    @property
    def is_large(self) -> bool:
        """True while a large message arrives."""
        if self._length is not None:
            return self._length > SMALL_BYTES
        has_length = len(self._buffer) >= LENGTH_BYTES
        return has_length and length_of(self._buffer) > SMALL_BYTES

    def grant(self) -> None:
        """Go on: ``wanted`` bytes have been occupied."""
        self._granted += self.wanted
        self.wanted = 0

    def take(self) -> tuple[FrameBatch, int, bool] | None:
        """Return the next message, its size in memory, and True if that has been granted.

        None if more bytes or a grant are needed first; ValueError for bytes that are not a message,
        and for one that takes too much memory (a broken or hostile peer).
        """
        if self._length is None:
            if len(self._buffer) < LENGTH_BYTES:
                return None
            self._length = length_of(self._buffer)
            if self._length > self._bytes_max:
                raise ValueError(f"a message of {self._length} bytes")
        length, end = self._length, LENGTH_BYTES + self._length
        if length > SMALL_BYTES and not self._has_room(length):
            return None
        if len(self._buffer) < end:
            return None
        granted = self._granted
        with memoryview(self._buffer)[LENGTH_BYTES:end] as payload:
            if granted:
                with weight.uncollected():
                    batch = decoded_batch(payload)
                size = granted
            else:
                batch = decoded_batch(payload)
                calls = any(type(frame) is Call for _, frame in batch.frames)
                size = length + (weight.of_msgpack(payload) if calls else 0)
        del self._buffer[:end]
        self._granted, self._length = 0, None
        return batch, size, granted > 0

    def _has_room(self, length: int) -> bool:
        """Weigh what has arrived of a large message; False if it needs a grant first."""
        if not self._granted:
            self._weight, self._weighed = weight.MsgpackWeight(), 0
            self.wanted = length
            return False
        arrived = min(len(self._buffer) - LENGTH_BYTES, length)
        if arrived > self._weighed:
            with memoryview(self._buffer) as buffer:
                begin = LENGTH_BYTES + self._weighed
                self._weight.feed(buffer[begin : LENGTH_BYTES + arrived])
            self._weighed = arrived
        if length + self._weight.bytes > self._bytes_max:
            raise ValueError(f"a message whose values take more than {self._bytes_max} bytes")
        if arrived == length and self._granted < length + self._weight.bytes:
            self.wanted = length + self._weight.bytes - self._granted
            return False
        return True
