"""Small files with a checksum, so that a damaged one is not taken for another content."""

from __future__ import annotations

import zlib

_DIGITS = 8


def with_checksum(text: bytes) -> bytes:
    """The content of a file for this text."""
    return b"%08x %b" % (zlib.crc32(text), text)


def without_checksum(content: bytes) -> bytes | None:
    """The text of a file; None if it is damaged."""
    checksum, text = content[:_DIGITS], content[_DIGITS + 1 :]
    return text if checksum == b"%08x" % zlib.crc32(text) else None
