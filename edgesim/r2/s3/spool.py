"""A body for an S3 server, kept locally until its checksum is known and it is sent."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Self

from edgesim.errors import RunError

_MEMORY_BYTES = 1024 * 1024


class Spool:
    """A small body in memory, a large one in an unnamed file of ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._head = bytearray()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    async def fill(self, body: AsyncIterator[bytes]) -> None:
        """Read the body to its end; RunError if the disk is full."""
        async for chunk in body:
            try:
                self._write(chunk)
            except OSError as error:
                raise RunError(f"r2 store {self._directory}: {error.strerror}") from error

    def _write(self, chunk: bytes) -> None:
        if self._file is None and len(self._head) + len(chunk) <= _MEMORY_BYTES:
            self._head += chunk
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - __exit__ closes it
                dir=self._directory, buffering=0
            )
            chunk, self._head = bytes(self._head) + chunk, bytearray()
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def content(self) -> bytes | IO[bytes]:
        """The whole body, to be read from its beginning."""
        return bytes(self._head) if self._file is None else self._file


def md5_header(md5: str) -> dict[str, str]:
    """The header with which the server checks the received bytes."""
    return {"Content-MD5": base64.b64encode(bytes.fromhex(md5)).decode()}
