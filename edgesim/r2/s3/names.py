"""What an object is called on an S3 server.

R2 keys are any UTF-8 in a flat space, ordered by their bytes.  S3 servers are less even: those that
keep objects in a file system (SeaweedFS, MinIO) fold ``a//b`` into ``a/b``, take ``a/`` for ``a``,
list ``a/b`` before ``a-b`` and refuse names over 255 bytes between slashes, and clients refuse
``..``.  So a key is written in letters that mean nothing to any of them and sort like the key:
``event_date=2026-11-23/hr=10/x.json.gz`` becomes ``event_date=2026-11-23.~hr=10.~x.json.gz``.

Percent-encoding was dropped because it does not keep the order, hexadecimal because nobody can read
it, and keys as they are because of the list above; where the server is a true flat store,
``keys=plain`` in the URL chooses the last.
"""

from __future__ import annotations

import hashlib

# Names that agree up to here need not be in the order of their keys.
HEAD_CHARACTERS = 176

_PLAIN = frozenset(b"-.0123456789=ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
# Other bytes are two hex digits after a mark that sorts where they do among the plain ones.
_MARKS = {0x2C: "!", 0x3C: ":", 0x40: "@", 0x5E: "^", 0x60: "`", 0xFF: "}"}


def _code(byte: int) -> str:
    if byte in _PLAIN:
        return chr(byte)
    if byte == ord("/"):
        return ".~"  # after "." with anything, as "~" is above all marks
    return next(f"{mark}{byte:02x}" for last, mark in _MARKS.items() if byte <= last)


_CODES = [_code(byte) for byte in range(256)]


def encoded(key: str) -> str:
    """In letters that every server keeps, ordered like the key; long names end in a digest.

    A prefix of the key gives a prefix of the name, as far as ``HEAD_CHARACTERS``.
    """
    name = "".join(_CODES[byte] for byte in key.encode())
    if key.startswith("."):
        name = f"-~{name[1:]}"  # between "-" with anything and "/": no name may be "." or ".."
    if len(name) > HEAD_CHARACTERS:
        name = f"{name[:HEAD_CHARACTERS]}~{hashlib.sha256(key.encode()).hexdigest()}"
    return name


def plain(key: str) -> str:
    """The key as it is."""
    return key
