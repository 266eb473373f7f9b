"""Results that wait_end_of_query collects are kept in a file once they are large."""

import errno
import tempfile
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from edgesim.clickhouse.complete import MEMORY_BYTES, completed
from edgesim.errors import RunError
from edgesim.model import Stream

pytestmark = pytest.mark.anyio
PART = bytes(range(256)) * 256


class Parts:
    """A result of ``count`` parts; ``is_closed`` once it has ended or was closed."""

    def __init__(self, count: int) -> None:
        self.is_closed = False
        self._count = count

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self._count):
                yield bytes(PART)
        finally:
            self.is_closed = True


async def test_a_small_result_is_in_memory():
    """Up to the limit it is bytes."""
    assert await completed(Stream(Parts(3).chunks())) == PART * 3


async def test_a_large_result_is_not_in_memory():
    """A result of 64 MB takes a few megabytes, has its length, and is the same."""
    count = 1000
    tracemalloc.start()
    try:
        body = await completed(Stream(Parts(count).chunks()))
        assert isinstance(body, Stream)
        assert body.length == count * len(PART)
        read = 0
        async for part in body:
            begin = read % len(PART)
            whole = PART * (len(part) // len(PART) + 2)
            assert part == whole[begin : begin + len(part)]
            read += len(part)
        assert read == body.length
        assert tracemalloc.get_traced_memory()[1] < 8 * MEMORY_BYTES
    finally:
        tracemalloc.stop()


async def test_a_closed_result_needs_no_disk():
    """Closing it closes its file; nothing is read after that."""
    body = await completed(Stream(Parts(100).chunks()))
    assert isinstance(body, Stream)
    await body.aclose()
    assert await body.read() == b""


class FullFile:
    """A file on a full disk."""

    closed = False

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.closed = True


async def test_a_full_disk_is_an_error(monkeypatch):
    """A full disk is a RunError that names the folder; file and result are closed."""
    file, parts = FullFile(), Parts(100)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: file)
    with pytest.raises(RunError, match="No space left"):
        await completed(Stream(parts.chunks()))
    assert (file.closed, parts.is_closed) == (True, True)
