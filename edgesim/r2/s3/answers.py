"""What a server's answers are to R2: the bytes of a body, and failures in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
from miniopy_async.error import MinioException, S3Error

from edgesim.errors import RunError


class Reader:
    """The chunks of a response; lets go of the connection at the end or on ``aclose``."""

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
        """Let go of the connection."""
        self._response.close()


@contextmanager
def explained(place: object) -> Iterator[None]:
    """What the client raises, as a RunError of one line that names the place."""
    try:
        yield
    except (MinioException, aiohttp.ClientError, OSError, ValueError) as error:
        raise RunError(f"r2 store {place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    return " ".join(str(error).split()) or type(error).__name__
