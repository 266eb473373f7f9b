"""S3 responses for R2: streamed bodies, and failures as RunError in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

import aiohttp
from miniopy_async.error import InvalidResponseError, MinioException, S3Error

from edgesim.errors import RunError

_KEYS = "set EDGESIM_S3_ACCESS_KEY and EDGESIM_S3_SECRET_KEY to keys that it knows"
_CURES = {
    "AccessDenied": "let these keys list the bucket, and read, write and delete objects in it",
    "InvalidAccessKeyId": _KEYS,
    "NotSignedUp": _KEYS,
    "RequestTimeTooSkewed": "let both machines keep time by NTP",
    "SignatureDoesNotMatch": _KEYS,
}
_NO_TLS = "add secure=false to the URL where the server has no TLS; else see its certificate"
_NOT_S3 = "see the host and the port: an S3 server says other things"
_STRANGE = (ParseError, InvalidResponseError, aiohttp.ClientResponseError)
_SHOWN = 200


class Reader:
    """The chunks of a response; closes the connection at the end or on ``aclose``."""

    def __init__(self, response: aiohttp.ClientResponse, place: str) -> None:
        self._response = response
        self._place = place

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with explained(self._place):
                chunk = await self._response.content.readany()
        except BaseException:
            await self.aclose()
            raise
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Close the connection."""
        self._response.close()


@contextmanager
def explained(place: object) -> Iterator[None]:
    """Convert the client's exceptions to a one-line RunError that names the place."""
    try:
        yield
    except (MinioException, ParseError, aiohttp.ClientError, OSError, ValueError) as error:
        raise RunError(f"r2 store {place}: {_reason(error)}", _cure(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    if isinstance(error, _STRANGE):
        return "the answer is not S3's"
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__


def _cure(error: Exception) -> str:
    if isinstance(error, S3Error):
        return _CURES.get(error.code or "", "")
    if isinstance(error, aiohttp.ClientSSLError):
        return _NO_TLS
    if isinstance(error, _STRANGE):
        return _NOT_S3
    return ""
