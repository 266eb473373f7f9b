"""Object names on an S3 server.

R2 keys are any UTF-8 in a flat namespace, ordered by their bytes.  S3 servers differ: those that
keep objects in a file system (SeaweedFS, MinIO) fold ``a//b`` into ``a/b``, treat ``a/`` as ``a``,
list ``a/b`` before ``a-b`` and refuse names over 255 bytes between slashes, and clients refuse
``..``.  So a key is encoded in characters that are special to none of them and sort like the key:
``event_date=2026-11-23/hr=10/x.json.gz`` becomes ``event_date=2026-11-23.~hr=10.~x.json.gz``.

Percent-encoding was rejected because it does not keep the order, hexadecimal because it is not
readable, and unchanged keys because of the list above; for a server with a truly flat namespace,
``keys=plain`` in the URL selects the last.
"""

from __future__ import annotations

import hashlib

# Names are ordered like their keys up to this length; beyond it the order may differ.
HEAD_CHARACTERS = 176

_PLAIN = frozenset(b"-.0123456789=ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
# Other bytes are two hex digits after a mark that sorts like them among the plain ones.
_MARKS = {0x2C: "!", 0x3C: ":", 0x40: "@", 0x5E: "^", 0x60: "`", 0xFF: "}"}


def _code(byte: int) -> str:
    if byte in _PLAIN:
        return chr(byte)
    if byte == ord("/"):
        return ".~"  # sorts after "." with any other code, because "~" is above all marks
    return next(f"{mark}{byte:02x}" for last, mark in _MARKS.items() if byte <= last)


_CODES = [_code(byte) for byte in range(256)]


def encoded(key: str) -> str:
    """Encode the key in safe characters that sort like it; long names end in a digest.

    A prefix of the key becomes a prefix of the name, up to ``HEAD_CHARACTERS``.
    """
    name = "".join(_CODES[byte] for byte in key.encode())
    if key.startswith("."):
        name = f"-~{name[1:]}"  # sorts between "-" with any code and "/": "." and ".." are illegal
    if len(name) > HEAD_CHARACTERS:
        name = f"{name[:HEAD_CHARACTERS]}~{hashlib.sha256(key.encode()).hexdigest()}"
    return name


def plain(key: str) -> str:
    """The key unchanged."""
    return key
