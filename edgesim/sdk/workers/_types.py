"""Names that the SDK exports for type annotations."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPMethod
from typing import Any, Protocol, TypeAlias, TypedDict

JSBody: TypeAlias = "js.Blob | JsBuffer | js.FormData | js.ReadableStream"  # type: ignore[name-defined] # noqa: F821
Body: TypeAlias = "str | FormData | JSBody"  # type: ignore[name-defined] # noqa: F821
Headers: TypeAlias = "dict[str, str] | list[tuple[str, str]] | js.Headers"  # type: ignore[name-defined] # noqa: F821
BlobValue = "str | bytes | JsBuffer | js.Blob | Blob | File"
FormDataValue = "str | js.Blob | Blob"


class Context(Protocol):
    """Type of ``self.ctx``."""

    def waitUntil(self, other: Awaitable[Any]) -> None:
        """Continue ``other`` after the response."""


class RequestInitCfProperties(TypedDict, total=False):
    """The ``cf`` of an outgoing request.  Accepted and ignored: edgesim has no network edge."""

    apps: bool | None
    cacheEverything: bool | None
    cacheKey: str | None
    cacheTags: list[str] | None
    cacheTtl: int
    cacheTtlByStatus: dict[str, int]
    image: Any | None
    mirage: bool | None
    polish: str | None
    resolveOverride: str | None
    scrapeShield: bool | None
    webp: bool | None


class FetchKwargs(TypedDict, total=False):
    """Keywords of ``fetch`` and ``Request``."""

    headers: Any
    body: Any
    method: HTTPMethod | None
    redirect: str | None
    cf: RequestInitCfProperties | None
    fetcher: Any
