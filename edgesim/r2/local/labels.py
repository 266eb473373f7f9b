"""Labels of blobs: the metadata of their object, so that a lost index can be rebuilt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec

from edgesim.model import R2Object
from edgesim.r2.driver import OutboxEntry, Part


class PartOf(msgspec.Struct, frozen=True):
    """The upload that a part belongs to; times are Unix milliseconds."""

    upload: str
    begun_ms: int
    part: Part


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """The object that a blob holds, or the planned object of its part's upload."""

    bucket: str
    object: R2Object
    sums: bytes
    outbox: Sequence[OutboxEntry] = ()
    part_of: PartOf | None = None


def encode(label: Label) -> bytes:
    """The label as compressed bytes."""
    return zlib.compress(msgspec.json.encode(label), 1)


def decode(data: bytes | None) -> Label | None:
    """Decode a label; None for a blob without one."""
    return None if data is None else msgspec.json.decode(zlib.decompress(data), type=Label)
