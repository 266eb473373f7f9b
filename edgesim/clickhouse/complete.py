"""A result that is complete before its first byte is sent, as ``wait_end_of_query`` wants it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO

from edgesim.errors import RunError
from edgesim.model import Body, Stream

MEMORY_BYTES = 1 << 20
"""Size up to which a result is kept in memory; a larger one is in an unnamed file, as there."""
_PART_BYTES = 1 << 18


async def completed(body: Stream) -> Body:
    """Read a result to its end and return it; RunError if the disk for temporary files is full."""
    head = bytearray()
    async for chunk in body:
        head += chunk
        if len(head) > MEMORY_BYTES:
            break
    else:
        return bytes(head)
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the Stream closes it
    except OSError as error:
        await body.aclose()
        raise _not_kept(error) from error
    try:
        size = _write(file, head)
        head.clear()
        async for chunk in body:
            size += _write(file, chunk)
        file.seek(0)
    except BaseException as error:
        file.close()
        await body.aclose()
        if isinstance(error, OSError):
            raise _not_kept(error) from error
        raise
    return Stream(_FileParts(file), size)


def _write(file: IO[bytes], data: bytes | bytearray) -> int:
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += file.write(rest[written:])
    return len(data)


def _not_kept(error: OSError) -> RunError:
    return RunError(f"cannot keep a result in {tempfile.gettempdir()}: {error.strerror}")


class _FileParts(AsyncIterator[bytes]):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def __anext__(self) -> bytes:
        part = b"" if self._file.closed else self._file.read(_PART_BYTES)
        if not part:
            self._file.close()
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()
