"""The content encoding ``aws-chunked``: chunks with signatures, then trailers.

<size in hex>[;chunk-signature=<signature>] CR LF <bytes> CR LF ... 0[;...] CR LF
[<name>:<value> CR LF ...] [x-amz-trailer-signature:<signature> CR LF] CR LF
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncGenerator, AsyncIterator

from edgesim.dev.s3_api.refusals import S3ApiError, incomplete_body, invalid_request
from edgesim.dev.s3_api.signature import ChunkSigner, signature_does_not_match

_LINE_BYTES_MAX = 512
_TRAILER_BYTES_MAX = 16_384
_HEAD = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER_SIGNATURE = b"x-amz-trailer-signature"


class AwsChunked:
    """Decodes a body as it arrives; ``trailers`` is filled at its end.

    With a ``signer`` every chunk needs its signature, and ``signed_trailers`` too.  Errors are
    raised at the end of the chunk that they are in, so a user of the bytes must not keep them
    before the end.
    """

    def __init__(
        self, source: AsyncIterator[bytes], signer: ChunkSigner | None, *, signed_trailers: bool
    ) -> None:
        self.trailers: dict[str, str] = {}
        self._source = source
        self._signer = signer
        self._signed_trailers = signed_trailers
        self._buffer = bytearray()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes."""
        while True:
            size, signature = await self._head()
            digest = hashlib.sha256()
            left = size
            while left:
                piece = await self._some(left)
                left -= len(piece)
                if self._signer is not None:
                    digest.update(piece)
                yield piece
            if self._signer is not None:
                _compare(self._signer.chunk(digest.hexdigest()), signature)
            if size == 0:
                await self._read_trailers()
                return
            if await self._line() != b"":
                raise _malformed()

    async def _head(self) -> tuple[int, bytes]:
        match = _HEAD.fullmatch(await self._line())
        if match is None:
            raise _malformed()
        return int(match[1], 16), match[2] or b""

    async def _read_trailers(self) -> None:
        lines: list[bytes] = []
        total = 0
        while line := await self._line(last=True):
            total += len(line)
            if total > _TRAILER_BYTES_MAX:
                raise _malformed_trailer()
            lines.append(line)
        if self._buffer or await self._fill():
            raise _malformed()
        signature = b""
        signed = b""
        for line in lines:
            name, colon, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip()
            if not colon or not name:
                raise _malformed_trailer()
            if name == _TRAILER_SIGNATURE:
                signature = value
                continue
            signed += name + b":" + value + b"\n"
            self.trailers[name.decode("latin-1")] = value.decode("latin-1")
        if self._signer is not None and self._signed_trailers:
            _compare(self._signer.trailer(hashlib.sha256(signed).hexdigest()), signature)

    async def _line(self, *, last: bool = False) -> bytes:
        """The bytes up to the next CR LF; ``last``: or to the end of the body."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LINE_BYTES_MAX:
                raise _malformed()
            if not await self._fill():
                if last and not self._buffer:
                    return b""
                raise incomplete_body()
        if end > _LINE_BYTES_MAX:
            raise _malformed()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _some(self, most: int) -> bytes:
        if not self._buffer and not await self._fill():
            raise incomplete_body()
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    async def _fill(self) -> bool:
        async for piece in self._source:
            if piece:
                self._buffer += piece
                return True
        return False


def _compare(computed: str, given: bytes) -> None:
    if not hmac.compare_digest(computed.encode(), given):
        raise signature_does_not_match()


def _malformed() -> S3ApiError:
    return invalid_request("The aws-chunked encoding of the body is malformed.")


def _malformed_trailer() -> S3ApiError:
    text = "The request contained trailing data that was not well-formed."
    return S3ApiError(400, "MalformedTrailerError", text)
