"""Frames of a pipeline log: encoding, and their recovery from a damaged file.

Each frame starts with a magic number and has two checksums, one of its head and one of its payload,
so damage to a frame loses no other: reading resumes at the next magic number.  The magic number
contains a byte that no UTF-8 text has, so it cannot occur in records.  A head names the frame's
window and the place in the file where the frame belongs, which exposes blocks that a disk has
written twice or to the wrong place.  It also carries the window's object key and opening time, so
any surviving frame preserves the key.

The first version of the format, kinds and payloads without a magic number, is still read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from edgesim import durable

HEADER, RECORDS, SEAL = 1, 2, 3
KEY_BYTES_MAX = (1 << 16) - 1
MAGIC = b"\xffWL2"
_HEAD = struct.Struct(">4sBxHQQdIII")
"""Magic, kind, key bytes, window, place, opened at, rows before, payload bytes, payload CRC."""
_CHECKSUM = struct.Struct(">I")  # of the head and the key, which it follows
_OLD_HEAD = struct.Struct(">BII")  # kind, payload bytes, CRC-32 of kind and payload
_OLD_KINDS = re.compile(rb"[\x01-\x03]")
_GUESS_BYTES = 4096  # most frames need one read only
_SEARCH_BYTES = 1 << 18
_YIELD_BYTES = 1 << 20


class Window(msgspec.Struct, frozen=True):
    """Values common to all frames of a window; ``opened_at`` is Unix seconds."""

    id: int
    opened_at: float
    key: str


class Frame(msgspec.Struct, frozen=True):
    """A complete frame in a file.

    ``place`` is the byte where it belongs, ``start`` where it was found; ``end`` is the byte after
    it and ``length`` the bytes of its payload.  ``window`` is None in the first version of the
    format.  ``rows`` counts its records, and ``rows_before`` those of the window before it;
    ``text`` is the payload of a frame without records.
    """

    kind: int
    window: Window | None
    place: int
    start: int
    end: int
    rows: int
    rows_before: int
    length: int
    text: bytes


def encode(kind: int, window: Window, place: int, rows_before: int, payload: bytes) -> bytes:
    """Encode a frame for the byte ``place`` of the window's file."""
    key = window.key.encode()
    checksum = zlib.crc32(payload)
    numbers = (len(key), window.id, place, window.opened_at, rows_before, len(payload), checksum)
    head = _HEAD.pack(MAGIC, kind, *numbers) + key
    return head + _CHECKSUM.pack(zlib.crc32(head)) + payload


def frame_at(descriptor: int, start: int) -> tuple[Frame, bytes] | None:
    """The complete frame that starts at ``start``, with its payload; None if there is none."""
    found = _read(descriptor, start)
    if found is None:
        return None
    head, window, begin, payload = found
    _, kind, _, _, place, _, rows, length, _ = head
    return _frame(kind, window, place, start, begin + length, rows, payload), payload


def payload_at(descriptor: int, start: int) -> bytes | None:
    """The payload of the complete frame that starts at ``start``; None if there is none."""
    found = _read(descriptor, start)
    return None if found is None else found[3]


def _read(descriptor: int, start: int) -> tuple[Any, Window, int, bytes] | None:
    """The numbers of a frame's head, its window, where its payload begins, and the payload."""
    piece = durable.read_at(descriptor, _GUESS_BYTES, start)
    if len(piece) < _HEAD.size or not piece.startswith(MAGIC):
        return None
    head = _HEAD.unpack_from(piece)
    _, _, key_bytes, window, _, opened_at, _, length, checksum = head
    end = _HEAD.size + key_bytes
    begin = end + _CHECKSUM.size
    if len(piece) < begin:
        piece += durable.read_at(descriptor, begin - len(piece), start + len(piece))
    if piece[end:begin] != _CHECKSUM.pack(zlib.crc32(piece[:end])):
        return None
    if begin + length <= len(piece):
        payload = piece[begin : begin + length]
    else:
        payload = durable.read_at(descriptor, length, start + begin)
    if len(payload) != length or zlib.crc32(payload) != checksum:
        return None
    named = Window(window, opened_at, piece[_HEAD.size : end].decode())
    return head, named, start + begin, payload


def is_cut_short(descriptor: int, start: int, size: int) -> bool:
    """True if the file ends within the frame that starts at ``start``, as after a power cut."""
    piece = durable.read_at(descriptor, size - start, start)
    if len(piece) < _HEAD.size or not piece.strip(b"\0"):
        return True
    key_bytes, length = _HEAD.unpack_from(piece)[2], _HEAD.unpack_from(piece)[7]
    head: int = _HEAD.size + key_bytes
    is_whole = piece[head : head + _CHECKSUM.size] == _CHECKSUM.pack(zlib.crc32(piece[:head]))
    return bool(len(piece) < head + _CHECKSUM.size + (length if is_whole else 0))


def find(descriptor: int, size: int) -> Iterator[Frame | None]:
    """Yield every complete frame in file order; None after each piece of work."""
    start = worked = 0
    while start < size:
        found = frame_at(descriptor, start)
        if found is None:
            yield None
            start = yield from _next_magic(descriptor, start + 1, size)
            continue
        yield found[0]
        worked += found[0].end - start
        start = found[0].end
        if worked >= _YIELD_BYTES:
            worked = 0
            yield None


def _next_magic(descriptor: int, start: int, size: int) -> Generator[None, None, int]:
    """The position of the next magic number, or ``size``."""
    while start < size:
        piece = durable.read_at(descriptor, _SEARCH_BYTES, start)
        if (at := piece.find(MAGIC)) >= 0:
            return start + at
        start += max(len(piece) - len(MAGIC) + 1, 1)
        yield None
    return size


def old_frame_at(descriptor: int, start: int, size: int) -> tuple[Frame, bytes] | None:
    """The complete first-version frame that starts at ``start``, with its payload."""
    head = durable.read_at(descriptor, _OLD_HEAD.size, start)
    if len(head) < _OLD_HEAD.size:
        return None
    kind, length, checksum = _OLD_HEAD.unpack(head)
    end = start + len(head) + length
    if kind not in {HEADER, RECORDS, SEAL} or end > size:
        return None
    payload = durable.read_at(descriptor, length, start + len(head))
    if zlib.crc32(payload, kind) != checksum:
        return None
    return _frame(kind, None, start, start, end, 0, payload), payload


def _frame(
    kind: int, window: Window | None, place: int, start: int, end: int, before: int, payload: bytes
) -> Frame:
    rows, text = (payload.count(b"\n"), b"") if kind == RECORDS else (0, payload)
    return Frame(kind, window, place, start, end, rows, before, len(payload), text)


def find_old(descriptor: int, size: int) -> Iterator[Frame | None]:
    """Like ``find``, for the first version."""
    start = 0
    while start < size:
        found = old_frame_at(descriptor, start, size)
        if found is None:
            yield None
            start = yield from _next_old(descriptor, start + 1, size)
            continue
        yield found[0]
        yield None
        start = found[0].end


def _next_old(descriptor: int, start: int, size: int) -> Generator[None, None, int]:
    """The next byte that may be a frame's kind: JSON records have no control characters."""
    while start < size:
        piece = durable.read_at(descriptor, _SEARCH_BYTES, start)
        if candidate := _OLD_KINDS.search(piece):
            return start + candidate.start()
        start += len(piece)
        yield None
    return size
