"""Bodies that unpack to much more than their size."""

import gzip
import random

import brotli
import pytest

from edgesim.errors import PlatformError
from edgesim.model import Stream, iterate, read_all
from edgesim.packing import PIECE_BYTES, unpacked

pytestmark = pytest.mark.anyio
PACK = {"gzip": gzip.compress, "br": brotli.compress}


async def slices(data: bytes, size: int):
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("encoding", PACK)
async def test_a_small_body_unpacks_in_pieces(encoding):
    """However much a body unpacks to, little of it is in memory at a time."""
    length, longest = 0, 0
    async for piece in iterate(unpacked(PACK[encoding](bytes(50_000_000)), encoding)):
        length, longest = length + len(piece), max(longest, len(piece))
    assert length == 50_000_000
    assert longest <= 2 * PIECE_BYTES


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
async def test_content_is_the_same_however_it_is_cut(encoding, size):
    """Random bytes beside repeated ones, in chunks of any size."""
    chance = random.Random(7)
    plain = chance.randbytes(3000) + bytes(1_000_000) + chance.randbytes(5000)
    body = Stream(slices(PACK[encoding](plain), size))
    assert await read_all(unpacked(body, encoding)) == plain


@pytest.mark.parametrize("encoding", PACK)
async def test_a_body_that_is_cut_or_invalid_is_an_error(encoding):
    """A body that ends early, or is not in that form, raises where it is read."""
    packed = PACK[encoding](bytes(1_000_000))
    for body in (packed[:-3], b"not packed at all"):
        with pytest.raises(PlatformError, match="decompression failed"):
            await read_all(unpacked(body, encoding))
