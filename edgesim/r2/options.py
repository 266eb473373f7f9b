"""Options of bucket operations: ranges, conditions, checksums."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import R2Object
from edgesim.r2.limits import INVALID_RANGE, refusal

# Name in options -> name in messages, bytes of the digest.
ALGORITHMS = {
    "md5": ("MD5", 16),
    "sha1": ("SHA-1", 20),
    "sha256": ("SHA-256", 32),
    "sha384": ("SHA-384", 48),
    "sha512": ("SHA-512", 64),
}


class Range(msgspec.Struct, frozen=True):
    """Bytes of an object: ``offset`` and ``length``, either of them, or the last ``suffix``."""

    offset: int | None = None
    length: int | None = None
    suffix: int | None = None

    def resolve(self, size: int) -> tuple[int, int]:
        """Offset and length in an object of ``size`` bytes; PlatformError if none remain."""
        if self.suffix is not None:
            length = min(self.suffix, size)
            offset = size - length
        else:
            offset = self.offset or 0
            length = size - offset if self.length is None else min(self.length, size - offset)
        if offset < 0 or length <= 0:
            raise refusal("get", INVALID_RANGE)
        return offset, length


class Conditional(msgspec.Struct, frozen=True):
    """Precondition of a get or put.

    Etags are unquoted; any match is sufficient; ``"*"`` matches any existing object.  Times are
    Unix milliseconds.
    """

    etag_matches: tuple[str, ...] | None = None
    etag_does_not_match: tuple[str, ...] | None = None
    uploaded_before: float | None = None
    uploaded_after: float | None = None
    seconds_granularity: bool = False

    def holds(self, found: R2Object | None) -> bool:
        """True if the existing object (None: there is none) meets the conditions.

        As in RFC 9110 13.2.2, a met etag condition overrides the corresponding time condition.
        """
        if found is None:
            return self.etag_matches is None and self.uploaded_after is None
        matches = _names(self.etag_matches, found.etag)
        differs = not _names(self.etag_does_not_match, found.etag)
        uploaded = self._grain(found.uploaded)
        return (
            (self.etag_matches is None or matches)
            and differs
            and (
                self.uploaded_before is None
                or uploaded < self._grain(self.uploaded_before)
                or matches
            )
            and (
                self.uploaded_after is None
                or uploaded > self._grain(self.uploaded_after)
                or (self.etag_does_not_match is not None and differs)
            )
        )

    def _grain(self, time_ms: float) -> float:
        return time_ms // 1000 if self.seconds_granularity else time_ms


def _names(etags: tuple[str, ...] | None, etag: str) -> bool:
    return etags is not None and ("*" in etags or etag in etags)


def read_checksum(checksums: Mapping[str, str | bytes]) -> tuple[str, bytes] | None:
    """The single checksum of a put, as algorithm and digest; PlatformError if malformed."""
    if not checksums:
        return None
    if len(checksums) > 1:
        raise PlatformError("You cannot specify multiple hashing algorithms.", "TypeError")
    ((algorithm, value),) = checksums.items()
    return algorithm, _digest(algorithm, value)


def _digest(algorithm: str, value: str | bytes) -> bytes:
    name, size = ALGORITHMS[algorithm]
    if isinstance(value, bytes):
        if len(value) != size:
            raise PlatformError(f"{name} is {size} bytes, not {len(value)}", "TypeError")
        return value
    if len(value) != 2 * size:
        raise PlatformError(f"{name} is {2 * size} hex characters, not {len(value)}", "TypeError")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise PlatformError(f"Provided {name} wasn't a valid hex string", "TypeError") from None
