"""The body of a put or of a part, as it streams into the store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio.lowlevel

from edgesim.config.notifications import Action
from edgesim.errors import PlatformError
from edgesim.model import Body, R2Object, Stream, iterate
from edgesim.r2 import limits
from edgesim.r2.limits import refusal
from edgesim.r2.options import ALGORITHMS

_CHUNK_BYTES = 256 * 1024


class Upload:
    """Splits a body into chunks; counts and hashes them as they pass."""

    def __init__(self, action: str, body: Body) -> None:
        """``action`` is the method's name, for error messages."""
        self.size = 0
        self._action = action
        self._body = body
        self._length = len(body) if isinstance(body, bytes) else body.length
        self._checksum: tuple[str, bytes] | None = None
        self._hashes = {"md5": hashlib.md5(usedforsecurity=False)}
        self._chunks = self._read()

    def expect(self, algorithm: str, digest: bytes) -> None:
        """Set the checksum that the body must have; call it before the body is read."""
        self._checksum = (algorithm, digest)
        if algorithm != "md5":
            self._hashes[algorithm] = hashlib.new(algorithm, usedforsecurity=False)

    @property
    def md5(self) -> str:
        """MD5 of the bytes so far, in hex."""
        return self._hashes["md5"].hexdigest()

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's chunks; can be read once."""
        return self._chunks

    async def _read(self) -> AsyncGenerator[bytes, None]:
        self._check_size(self._length or 0)
        async for piece in iterate(self._body):
            for start in range(0, len(piece), _CHUNK_BYTES):
                if self.size:
                    await anyio.lowlevel.checkpoint()  # yield between the chunks
                chunk = piece[start : start + _CHUNK_BYTES]
                self.size += len(chunk)
                self._check_size(self.size)
                for one in self._hashes.values():
                    one.update(chunk)
                yield chunk

    def _check_size(self, size: int) -> None:
        if size > limits.PUT_BYTES_MAX:
            raise refusal(self._action, limits.ENTITY_TOO_LARGE)

    def check_length(self) -> None:
        """Refuse a stream that was longer or shorter than its declared length."""
        if self._length is not None and self.size != self._length:
            raise PlatformError(
                "FixedLengthStream did not see all expected bytes before close()."
                if self.size < self._length
                else "Attempt to write too many bytes through a FixedLengthStream.",
                "TypeError",
            )

    def checksums(self) -> dict[str, str]:
        """The checksums of the whole body; PlatformError if length or checksum do not match."""
        self.check_length()
        actual = {name: one.hexdigest() for name, one in self._hashes.items()}
        if self._checksum is not None:
            self._compare(*self._checksum, actual[self._checksum[0]])
        return actual

    def _compare(self, algorithm: str, expected: bytes, actual: str) -> None:
        if expected.hex() != actual:
            name = ALGORITHMS[algorithm][0]
            raise refusal(
                self._action,
                limits.BAD_DIGEST,
                f"The {name} checksum you specified did not match what we received.\n"
                f"You provided a {name} checksum with value: {expected.hex()}\n"
                f"Actual {name} was: {actual}",
            )

    async def aclose(self) -> None:
        """Close the body, whether it was read or not."""
        await self._chunks.aclose()
        if isinstance(self._body, Stream):
            await self._body.aclose()


def written(action: Action, stored: R2Object) -> dict[str, Any]:
    """An object that was written, as a tap shows it."""
    shown = {"key": stored.key, "size": stored.size, "etag": stored.etag}
    return {"action": action, **shown, "metadata": stored.custom_metadata}
