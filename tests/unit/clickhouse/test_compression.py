"""Streaming gzip decompression."""

import gzip

import anyio
import pytest

from edgesim.clickhouse.compression import Gunzip, gunzip
from edgesim.errors import ClickHouseError

MEGABYTES = 64


def test_what_is_packed_well_is_not_unpacked_at_once():
    """64 MB of one letter, 64 kB packed, are decompressed in pieces of less than 5 MB."""
    packed = gzip.compress(b"a" * (MEGABYTES << 20))
    assert len(packed) < 1 << 17
    sizes = [len(piece) for piece in Gunzip().pieces(packed)]
    assert sum(sizes) == MEGABYTES << 20
    assert max(sizes) < 5 << 20


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_several_members_are_one_text(size):
    """Several gzip members are one text, for any chunk size."""
    packed = gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two")

    async def chunks():
        for at in range(0, len(packed), size):
            yield packed[at : at + size]

    async def unpack():
        return b"".join([piece async for piece in gunzip(chunks())])

    assert anyio.run(unpack) == b"one, two"


def test_a_text_cut_short_is_an_error():
    """A truncated gzip stream is an error."""
    member = Gunzip()
    assert list(member.pieces(gzip.compress(b"text")[:-1])) == [b"text"]
    with pytest.raises(ClickHouseError, match="ends early"):
        member.finish()
