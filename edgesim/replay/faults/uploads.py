"""Multipart uploads that fail as the fault rules say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from edgesim.model import R2Object
from edgesim.r2.driver import Assembled, Outgoing, Part, Uploads

UPLOAD_METHODS = ("create", "put_part", "parts", "complete", "abort", "drop")


class Act(Protocol):
    """Do something in a bucket, or fail: the method's name, bucket, what it is about, the deed."""

    async def __call__(
        self, method: str, bucket: str, detail: str, act: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """Its result."""


class FaultyUploads:
    """See Uploads."""

    def __init__(self, inner: Uploads, act: Act) -> None:
        self._inner = inner
        self._act = act

    async def create(self, bucket: str, planned: R2Object) -> str:
        upload: str = await self._act(
            "create", bucket, planned.key, lambda: self._inner.create(bucket, planned)
        )
        return upload

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        part: Part | None = await self._act(
            "put_part",
            bucket,
            key,
            lambda: self._inner.put_part(bucket, key, upload, body, finish),
        )
        return part

    async def parts(self, bucket: str, key: str, upload: str) -> Sequence[Part] | None:
        found: Sequence[Part] | None = await self._act(
            "parts", bucket, key, lambda: self._inner.parts(bucket, key, upload)
        )
        return found

    async def complete(
        self,
        bucket: str,
        key: str,
        upload: str,
        parts: Sequence[Part],
        assembled: Assembled,
        outbox: Callable[[R2Object], Sequence[Outgoing]],
    ) -> R2Object | None:
        joined: R2Object | None = await self._act(
            "complete",
            bucket,
            key,
            lambda: self._inner.complete(bucket, key, upload, parts, assembled, outbox),
        )
        return joined

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        await self._act("abort", bucket, key, lambda: self._inner.abort(bucket, key, upload))

    async def drop(self, bucket: str, before_ms: float) -> None:
        await self._act("drop", bucket, "uploads", lambda: self._inner.drop(bucket, before_ms))


_: type[Uploads] = FaultyUploads
