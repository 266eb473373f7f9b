"""CRCs of the S3 API, which are computed by folding integers."""

import random
import zlib

import pytest

from edgesim.dev.s3_api.crc import CRC32C, CRC64NVME, Crc, CrcKind

IEEE = CrcKind(32, 0xEDB88320)
"""The polynomial of zlib, to compare with."""


@pytest.mark.parametrize(
    ("kind", "check"), [(IEEE, "cbf43926"), (CRC32C, "e3069283"), (CRC64NVME, "ae8b14860a799888")]
)
def test_check_values(kind, check):
    """The checksum of 123456789 is the published one, in one piece and in several."""
    for pieces in ([b"123456789"], [b"1234", b"", b"56789"]):
        crc = Crc(kind)
        for piece in pieces:
            crc.update(piece)
        assert crc.digest().hex() == check


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 4096, 65_535, 262_144, 262_145, 700_001])
def test_folding_is_exact(size):
    """Long data has zlib's checksum, whatever its length and the state before it."""
    data = random.Random(size).randbytes(size)
    crc = Crc(IEEE)
    crc.update(b"before")
    crc.update(data)
    assert crc.digest() == zlib.crc32(b"before" + data).to_bytes(4)


@pytest.mark.parametrize("kind", [CRC32C, CRC64NVME], ids=["crc32c", "crc64nvme"])
def test_pieces_do_not_matter(kind):
    """Folded and unfolded pieces lead to one checksum."""
    data = random.Random(7).randbytes(300_000)
    whole, short = Crc(kind), Crc(kind)
    whole.update(data)
    for start in range(0, len(data), 1_000):
        short.update(data[start : start + 1_000])
    assert whole.digest() == short.digest()
