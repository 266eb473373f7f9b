"""Estimates of the memory that encoded values take once they are decoded.

One byte of msgpack, or two of JSON, can encode a whole list or object, which takes 80 to 90 bytes.
Containers count for more than they take: they also cost time to create and to collect.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

VALUE_BYTES = 48
"""Bytes that each value counts in addition to its encoding."""
CONTAINER_BYTES = 256
"""The same for a list, an object or an extension."""

# Size of a msgpack value by its first byte; for those in _PREFIXES, the bytes of the length field.
_LENGTHS = [1] * 256
_LENGTHS[0xA0:0xC0] = range(1, 33)
_LENGTHS[0xCA:0xD9] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9, 3, 4, 6, 10, 18]
_LENGTHS[0xDC:0xE0] = [3, 5, 3, 5]
_PREFIXES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS = range(0xC7, 0xCA)
_WEIGHTS = [VALUE_BYTES] * 256
for _container in (*range(0x80, 0xA0), *_EXTENSIONS, *range(0xD4, 0xD9), *range(0xDC, 0xE0)):
    _WEIGHTS[_container] = CONTAINER_BYTES

_SURELY_LIGHT = 1 << 16
_SLICE_BYTES = 1 << 20
_BACKSLASH = ord("\\")


class MsgpackWeight:
    """Weight of a msgpack encoding that arrives in parts; ``bytes`` so far, without its length.

    It does not validate the encoding.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._skip = 0
        """Bytes of the last value that have not arrived."""
        self._head = b""
        """First byte and incomplete length field of a value."""

    def feed(self, part: bytes | memoryview) -> None:
        """Weigh the next part."""
        at, end = self._skip, len(part)
        if at >= end:
            self._skip -= end
            return
        if self._head:
            part = self._head + part
            end = len(part)
            self._head = b""
        weights, lengths, prefixes, total = _WEIGHTS, _LENGTHS, _PREFIXES, self.bytes
        while at < end:
            first = part[at]
            if first in prefixes:
                after = at + 1 + prefixes[first]
                if after > end:
                    self._head = bytes(part[at:])
                    break
                at = after + int.from_bytes(part[at + 1 : after], "big") + (first in _EXTENSIONS)
            else:
                at += lengths[first]
            total += weights[first]
        self._skip = max(0, at - end)
        self.bytes = total


def of_msgpack(payload: bytes | memoryview) -> int:
    """Weight of a whole msgpack encoding, without its length."""
    weight = MsgpackWeight()
    weight.feed(payload)
    return weight.bytes


def of_json(text: bytes) -> int:
    """Weight of JSON, without its length; exact where it matters.

    For text that is no JSON it is what a decoder may create before it notices.
    """
    weight = _marks(text)
    return weight if weight <= _SURELY_LIGHT else sum(map(_marks, _outside_strings(text)))


def _marks(text: bytes) -> int:
    containers = text.count(b"[") + text.count(b"{")
    values = text.count(b",") + text.count(b":") + 1
    return containers * CONTAINER_BYTES + values * VALUE_BYTES


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """Yield what is not inside of strings, slice by slice."""
    inside, at = 0, 0
    while at < len(text):
        end = backslashes = min(at + _SLICE_BYTES, len(text))
        while backslashes > at and text[backslashes - 1] == _BACKSLASH:
            backslashes -= 1
        end += (end - backslashes) % 2  # a slice does not end inside of an escape
        pieces = text[at:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(pieces[inside::2])
        inside ^= (len(pieces) - 1) % 2
        at = end


@contextmanager
def uncollected() -> Iterator[None]:
    """Decode without garbage collection, which would look at all new containers many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
