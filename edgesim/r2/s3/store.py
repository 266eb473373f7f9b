"""S3 calls for R2.  Failures are raised as one-line RunErrors.

Some calls use private methods of the client: its public ones support no preconditions, and split a
large body into parts, so that its ETag is no longer its MD5.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any, cast

import aiohttp
import msgspec
import structlog
from miniopy_async.api import Minio
from miniopy_async.datatypes import Part as S3Part
from miniopy_async.deleteobjects import DeleteObject
from miniopy_async.error import S3Error

from edgesim.errors import RunError
from edgesim.r2.driver import Part
from edgesim.r2.s3.answers import explained
from edgesim.r2.s3.session import Session
from edgesim.r2.s3.url import Settings

_MISSING = frozenset({"NoSuchKey", "NoSuchBucket"})
_NO_UPLOAD = frozenset({"NoSuchUpload", "NoSuchKey", "NoSuchBucket"})
_HAVE_BUCKET = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou"})
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})

_log = structlog.get_logger("edgesim.r2")


class Listed(msgspec.Struct, frozen=True):
    """An object in a listing."""

    name: str
    size: int
    etag: str
    modified_seconds: int


class S3Store:
    """One server, by an S3 client.  Names are the server's, not R2's keys."""

    def __init__(self, client: Minio) -> None:
        self._client = client
        self._buckets: set[str] = set()
        self._compares = True

    async def check(self) -> None:
        """Raise RunError if the server is unreachable or rejects the credentials."""
        with explained("the account"):
            try:
                await self._client.list_buckets()
            except S3Error as error:
                if error.code != "AccessDenied":  # keys limited to some buckets may not list all
                    raise

    async def buckets(self) -> list[str]:
        """The names of all buckets."""
        with explained("the account"):
            return [bucket.name for bucket in await self._client.list_buckets()]

    async def has(self, bucket: str) -> bool:
        """True if it exists, or if the keys may not check that: the next call fails then."""
        with explained(bucket):
            try:
                return await self._client.bucket_exists(bucket)
            except S3Error as error:
                if error.code != "AccessDenied":
                    raise
                return True

    async def drop(self, bucket: str) -> None:
        """Remove an empty bucket, if it exists."""
        self._buckets.discard(bucket)
        with explained(bucket):
            try:
                await self._client.remove_bucket(bucket)
            except S3Error as error:
                if error.code != "NoSuchBucket":
                    raise

    async def make(self, bucket: str) -> None:
        """Create a bucket that does not exist yet."""
        if bucket in self._buckets:
            return
        with explained(bucket):
            try:
                if not await self.has(bucket):
                    await self._client.make_bucket(bucket)
            except S3Error as error:
                if error.code not in _HAVE_BUCKET:
                    raise
        self._buckets.add(bucket)

    # --- objects ---

    async def put(
        self,
        bucket: str,
        name: str,
        content: bytes | IO[bytes],
        headers: Mapping[str, str],
        condition: Mapping[str, str],
    ) -> bool:
        """Store an object in one request; False if the condition, passed as headers, does not hold.

        If the server does not implement conditions, later requests omit them.
        """
        with explained(f"{bucket}/{name}"):
            try:
                conditional = {**headers, **(condition if self._compares else {})}
                await self._put(bucket, name, content, conditional)
            except S3Error as error:
                if error.code in _CHANGED:
                    return False
                if error.code != "NotImplemented" or not condition or not self._compares:
                    raise
                _log.warning("the S3 server has no conditional writes", error=error.message)
                self._compares = False
                await self._put(bucket, name, content, headers)
        return True

    async def _put(
        self,
        bucket: str,
        name: str,
        content: bytes | IO[bytes],
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> str:
        """Send one PUT; returns the ETag."""
        result = await self._client._put_object(  # noqa: SLF001 - see the top
            bucket, name, cast("bytes", content), dict(headers), cast("Any", query)
        )
        return result.etag or ""

    async def head(self, bucket: str, name: str) -> Mapping[str, str] | None:
        """An object's headers; None if there is no such object."""
        with explained(f"{bucket}/{name}"):
            try:
                found = await self._client.stat_object(bucket, name)
            except S3Error as error:
                if error.code in _MISSING:
                    return None
                raise
        return cast("Mapping[str, str]", found.metadata)

    async def get(
        self, bucket: str, name: str, offset: int, length: int
    ) -> aiohttp.ClientResponse | None:
        """The response with the bytes from ``offset`` on (``length`` 0: all).

        None if there is no such object, or if it has no byte at ``offset``.
        """
        with explained(f"{bucket}/{name}"):
            try:
                return await self._client.get_object(bucket, name, offset, length)
            except S3Error as error:
                if error.code in _MISSING or error.code == "InvalidRange":
                    return None
                raise

    async def remove(self, bucket: str, names: Sequence[str]) -> None:
        """Remove objects; RunError if one could not be removed."""
        with explained(bucket):
            failures = await self._client.remove_objects(
                bucket, [DeleteObject(name) for name in names]
            )
            if failures:
                raise RunError(
                    f"r2 store {bucket}: {len(failures)} of {len(names)} objects are still there: "
                    f"{failures[0].message}"
                )

    async def listed(
        self, bucket: str, prefix: str, start_after: str, page: int = 1000
    ) -> AsyncGenerator[Listed, None]:
        """Objects with names after ``start_after``, in order, ``page`` in each request."""
        found = self._client._list_objects(  # noqa: SLF001 - the public one has no page size
            bucket,
            prefix=prefix,
            start_after=start_after or None,
            encoding_type="url",
            max_keys=page,
        )
        with explained(bucket):
            try:
                async for item in found:
                    modified = item.last_modified
                    yield Listed(
                        str(item.object_name),
                        item.size or 0,
                        (item.etag or "").strip('"'),
                        0 if modified is None else int(modified.timestamp()),
                    )
            except S3Error as error:
                if error.code not in _MISSING:
                    raise

    # --- multipart uploads ---

    async def create_upload(self, bucket: str, name: str, headers: Mapping[str, str]) -> str:
        """Begin an upload; returns the server's id."""
        with explained(f"{bucket}/{name}"):
            return await self._client._create_multipart_upload(bucket, name, dict(headers))  # noqa: SLF001

    async def put_part(
        self,
        bucket: str,
        name: str,
        upload: str,
        number: int,
        content: bytes | IO[bytes],
        headers: Mapping[str, str],
    ) -> str | None:
        """Store a part; returns the server's etag, None if there is no such upload."""
        with explained(f"{bucket}/{name}"):
            try:
                query = {"partNumber": str(number), "uploadId": upload}
                return await self._put(bucket, name, content, headers, query)
            except S3Error as error:
                if error.code in _NO_UPLOAD:
                    return None
                raise

    async def parts(self, bucket: str, name: str, upload: str) -> list[Part] | None:
        """The uploaded parts; None if there is no such upload."""
        found: list[Part] = []
        after: int | None = None
        with explained(f"{bucket}/{name}"):
            try:
                while True:
                    page = await self._client._list_parts(  # noqa: SLF001 - there is no public one
                        bucket, name, upload, part_number_marker=str(after) if after else None
                    )
                    found += [_part(part) for part in page.parts]
                    after = page.next_part_number_marker
                    if not page.is_truncated or not after:
                        return found
            except S3Error as error:
                if error.code in _NO_UPLOAD:
                    return None
                raise

    async def complete_upload(
        self, bucket: str, name: str, upload: str, parts: Sequence[Part]
    ) -> bool:
        """Join the parts; False if there is no such upload."""
        with explained(f"{bucket}/{name}"):
            try:
                chosen = [S3Part(part.number, part.etag) for part in parts]
                done = await self._client._complete_multipart_upload(bucket, name, upload, chosen)  # noqa: SLF001
            except S3Error as error:
                if error.code in _NO_UPLOAD:
                    return False
                raise
            if not done.etag:  # the server may send 200 before it fails
                raise RunError(f"r2 store {bucket}/{name}: the server could not join the parts")
        return True

    async def abort_upload(self, bucket: str, name: str, upload: str) -> None:
        """Drop an upload, if it exists."""
        with explained(f"{bucket}/{name}"):
            try:
                await self._client._abort_multipart_upload(bucket, name, upload)  # noqa: SLF001
            except S3Error as error:
                if error.code not in _NO_UPLOAD:
                    raise

    async def uploads(self, bucket: str, prefix: str) -> list[tuple[str, str, float]]:
        """The first 1,000 uploads in progress: name, id, and start time in Unix milliseconds."""
        with explained(bucket):
            try:
                page = await self._client._list_multipart_uploads(bucket, prefix=prefix)  # noqa: SLF001
            except S3Error as error:
                if error.code in _MISSING:
                    return []
                raise
        return [
            (str(one.object_name), str(one.upload_id), one.initiated_time.timestamp() * 1000)
            for one in page.uploads
            if one.initiated_time is not None
        ]


def _part(part: S3Part) -> Part:
    return Part(part.part_number, part.size or 0, part.etag.strip('"'))


@asynccontextmanager
async def open_store(
    host: str, settings: Settings, access_key: str, secret_key: str
) -> AsyncIterator[S3Store]:
    """A client of the server; no request is sent yet."""
    async with Minio(
        host,
        access_key,
        secret_key,
        secure=settings.secure,
        region=settings.region,
        session=cast("aiohttp.ClientSession", Session(settings.timeout)),
    ) as client:
        if settings.style == "virtual":
            client.enable_virtual_style_endpoint()
        yield S3Store(client)
