"""Checksums that clients send with a body: in headers, or in the trailers behind it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from edgesim.dev.s3_api.crc import CRC32C, CRC64NVME, Crc
from edgesim.dev.s3_api.refusals import S3ApiError, invalid_request
from edgesim.dev.s3_api.request import S3Request

PREFIX = "x-amz-checksum-"
CONTENT_MD5 = "content-md5"
TRAILER = "x-amz-trailer"


class Running(Protocol):
    """A checksum in the making."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """The checksum of the bytes so far."""


class _Crc32:
    """CRC-32 by zlib."""

    def __init__(self) -> None:
        self._state = 0

    def update(self, data: bytes, /) -> None:
        self._state = zlib.crc32(data, self._state)

    def digest(self) -> bytes:
        return self._state.to_bytes(4)


class Algorithm(msgspec.Struct, frozen=True):
    """A checksum algorithm: its name in texts, its size in bytes, and its start."""

    name: str
    size: int
    begin: Callable[[], Running]


MD5 = Algorithm("MD5", 16, lambda: hashlib.md5(usedforsecurity=False))
SHA256 = Algorithm("SHA-256", 32, hashlib.sha256)
ALGORITHMS = {
    "crc32": Algorithm("CRC-32", 4, _Crc32),
    "crc32c": Algorithm("CRC-32C", 4, lambda: Crc(CRC32C)),
    "crc64nvme": Algorithm("CRC-64/NVME", 8, lambda: Crc(CRC64NVME)),
    "sha1": Algorithm("SHA-1", 20, lambda: hashlib.sha1(usedforsecurity=False)),
    "sha256": SHA256,
}
"""By the end of the header's name."""
_NOT_VALUES = {"algorithm", "mode", "type"}


class Expected(msgspec.Struct, frozen=True):
    """A checksum that the body must have."""

    algorithm: Algorithm
    digest: bytes

    def encoded(self) -> str:
        """The value of its header."""
        return base64.b64encode(self.digest).decode()

    def check(self, actual: bytes) -> None:
        """Raise BadDigest if the body's checksum is another."""
        if actual == self.digest:
            return
        name = self.algorithm.name
        text = (
            f"The {name} checksum you specified did not match what we received.\n"
            f"You provided a {name} checksum with value: {self.digest.hex()}\n"
            f"Actual {name} was: {actual.hex()}"
        )
        raise S3ApiError(400, "BadDigest", text)


def in_headers(request: S3Request) -> dict[str, Expected]:
    """The checksums in the request's headers, by header name."""
    found = {
        name: expected(name, value)
        for name, value in request.headers()
        if name == CONTENT_MD5
        or (name.startswith(PREFIX) and name.removeprefix(PREFIX) not in _NOT_VALUES)
    }
    if len([name for name in found if name != CONTENT_MD5]) > 1:
        raise invalid_request("Expecting a single x-amz-checksum- header.")
    return found


def announced(request: S3Request) -> str | None:
    """Name of the checksum that follows the body as a trailer; None if there is none."""
    names = (request.header(TRAILER) or "").lower().split(",")
    found = [name.strip() for name in names if name.strip().startswith(PREFIX)]
    if len(found) > 1:
        raise invalid_request("Expecting a single x-amz-checksum- trailer.")
    if found:
        algorithm_of(found[0])
    return found[0] if found else None


def algorithm_of(name: str) -> Algorithm:
    """The algorithm of a header or trailer."""
    if name == CONTENT_MD5:
        return MD5
    algorithm = ALGORITHMS.get(name.removeprefix(PREFIX))
    if algorithm is None:
        raise invalid_request(f"The checksum algorithm of {name} is not supported.")
    return algorithm


def expected(name: str, value: str) -> Expected:
    """The checksum in a header or trailer; InvalidDigest if it is not one."""
    algorithm = algorithm_of(name)
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != algorithm.size:
        text = (
            "The checksum or Content-MD5 you specified is not valid."
            if name == CONTENT_MD5
            else f"Value for {name} header is invalid."
        )
        raise S3ApiError(400, "InvalidDigest" if name == CONTENT_MD5 else "InvalidRequest", text)
    return Expected(algorithm, digest)


def shown(stored: Mapping[str, str]) -> dict[str, str]:
    """The headers for an object's stored checksums, hex by name."""
    return {
        PREFIX + name: base64.b64encode(bytes.fromhex(digest)).decode()
        for name, digest in stored.items()
        if name in ALGORITHMS
    }
