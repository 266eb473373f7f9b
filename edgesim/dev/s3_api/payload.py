"""The body of a request: decoded as it arrives, and verified at its end.

The checks raise where the bytes end, before the store is told that they did: a body that is not
what its sender signed or summed up changes nothing.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.types import Receive

from edgesim.dev.s3_api import checksums
from edgesim.dev.s3_api.authorisation import Caller
from edgesim.dev.s3_api.aws_chunked import AwsChunked
from edgesim.dev.s3_api.checksums import Running
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    incomplete_body,
    invalid_argument,
    invalid_request,
)
from edgesim.dev.s3_api.request import S3Request
from edgesim.dev.s3_api.signature import CONTENT_HASH, UNSIGNED
from edgesim.model import Stream

DECODED_LENGTH = "x-amz-decoded-content-length"
_BLOCK_BYTES = 1 << 18
"""Bytes that are hashed and passed on at once."""
_HASH = re.compile("[0-9a-f]{64}")
_LENGTH = re.compile("[0-9]{1,18}")
_SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_STREAMING = {
    _SIGNED_CHUNKS,
    f"{_SIGNED_CHUNKS}-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
}


class Payload:
    """The body; ``length`` is its decoded length in bytes, None if the client does not say it."""

    def __init__(self, request: S3Request, caller: Caller, *, is_object: bool) -> None:
        """``is_object`` False: the headers' checksums are not of this body, but for its MD5."""
        claim = caller.claim
        self._receive = request.receive
        self._signer = caller.signer
        self._mode = _mode(request, caller)
        if self._mode in _STREAMING:
            length, given = DECODED_LENGTH, request.header(DECODED_LENGTH)
        else:
            length, given = "content-length", request.header("content-length")
        if given is not None and not _LENGTH.fullmatch(given):
            raise invalid_argument(f"{length} is not a number")
        self.length = None if given is None else int(given)
        self.expected = checksums.in_headers(request)
        if not is_object:
            md5 = checksums.CONTENT_MD5
            self.expected = {md5: self.expected[md5]} if md5 in self.expected else {}
        self._trailer = checksums.announced(request) if self._mode in _STREAMING else None
        self._hash = ""
        if claim is not None and _HASH.fullmatch(claim.payload):
            self._hash = claim.payload

    def needs_length(self) -> None:
        """Refuse a body without a length, as R2 does for objects and parts."""
        if self.length is None:
            text = "You must provide the Content-Length HTTP header."
            raise S3ApiError(411, "MissingContentLength", text)

    def stream(self) -> Stream:
        """The decoded body; reading its end raises S3ApiError if it is not as announced."""
        return Stream(self._verified(), self.length)

    async def _verified(self) -> AsyncGenerator[bytes, None]:
        running: dict[str, Running] = {
            name: each.algorithm.begin() for name, each in self.expected.items()
        }
        if self._trailer is not None:
            running[self._trailer] = checksums.algorithm_of(self._trailer).begin()
        if self._hash:
            running[CONTENT_HASH] = checksums.SHA256.begin()
        source: AsyncIterator[bytes] = _received(self._receive)
        decoder = None
        if self._mode in _STREAMING:
            signer = self._signer if self._mode.startswith(_SIGNED_CHUNKS) else None
            signed = self._mode.endswith("-TRAILER")
            decoder = AwsChunked(source, signer, signed_trailers=signed)
            source = decoder.chunks()
        size = 0
        async for block in _blocks(source):
            size += len(block)
            for each in running.values():
                each.update(block)
            yield block
        if self.length is not None and size != self.length:
            raise incomplete_body()
        self._check(running, decoder.trailers if decoder else {})

    def _check(self, running: dict[str, Running], trailers: dict[str, str]) -> None:
        if self._hash:
            actual = running[CONTENT_HASH].digest().hex()
            if not hmac.compare_digest(actual, self._hash):
                raise S3ApiError(
                    400,
                    "XAmzContentSHA256Mismatch",
                    f"The provided '{CONTENT_HASH}' header does not match what was computed.",
                )
        for name, expected in self.expected.items():
            expected.check(running[name].digest())
        if self._trailer is None:
            return
        if self._trailer not in trailers:
            text = f"The trailer {self._trailer} is announced, but not there."
            raise S3ApiError(400, "MalformedTrailerError", text)
        found = checksums.expected(self._trailer, trailers[self._trailer])
        found.check(running[self._trailer].digest())
        self.expected[self._trailer] = found

    def shown(self) -> dict[str, str]:
        """The checksums of the verified body, as headers of the response."""
        return {
            name: each.encoded()
            for name, each in self.expected.items()
            if name.startswith(checksums.PREFIX)
        }

    def stored(self) -> dict[str, bytes]:
        """The checksum that the object keeps, by R2's name for it."""
        for name in (checksums.PREFIX + "sha256", checksums.PREFIX + "sha1"):
            if name in self.expected:
                digest = self.expected[name].digest
                return {name.removeprefix(checksums.PREFIX): digest}
        return {}


def _mode(request: S3Request, caller: Caller) -> str:
    """The way in which the body is signed and encoded."""
    claim = caller.claim
    given = request.header(CONTENT_HASH) or UNSIGNED
    mode = given if claim is None or claim.presigned else claim.payload
    if mode == UNSIGNED or _HASH.fullmatch(mode):
        return UNSIGNED
    if mode not in _STREAMING:
        raise invalid_request(f"{CONTENT_HASH} must be a SHA-256 in hex, {UNSIGNED} or STREAMING-")
    if (claim is None or claim.presigned) and mode.startswith(_SIGNED_CHUNKS):
        raise invalid_request("Signed chunks need a signature in the Authorization header.")
    return mode


async def _received(receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield the body's bytes; ConnectionResetError if the client disconnects before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away before the end of its body")
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return


async def _blocks(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the bytes in blocks of _BLOCK_BYTES, the last one shorter."""
    buffer = bytearray()
    async for chunk in source:
        buffer += chunk
        while len(buffer) >= _BLOCK_BYTES:
            yield bytes(buffer[:_BLOCK_BYTES])
            del buffer[:_BLOCK_BYTES]
    if buffer:
        yield bytes(buffer)
