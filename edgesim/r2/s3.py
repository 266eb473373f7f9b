"""``s3://HOST:PORT``: objects on an S3 server, one S3 bucket for each R2 bucket.

Options in the URL: ``secure`` (default true), ``region`` (default: ask the server), ``prefix`` (of
all object names) and ``keys`` (``encoded`` or ``plain``, see object_names).

All that R2 knows of an object travels in one metadata header, as base64 of JSON: S3 has no place
for most of it, allows only ASCII, and calls the ETag of a multipart upload something else.  A body
is spooled to disk first, because that header, with the MD5, goes before the bytes; what is spooled
is sent in parts where it is large.  S3 cannot commit together with an outbox, so an intent is
written down here before each change and decided by looking at the object if a crash or a lost
answer left it open.  ``list`` has to ask for each object's metadata by itself: S3 lists without.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import anyio
import msgspec
import structlog
from miniopy_async.api import Minio
from miniopy_async.datatypes import Object
from miniopy_async.deleteobjects import DeleteObject
from miniopy_async.error import MinioException, S3Error

from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.model import HttpMetadata, R2Object, iterate
from edgesim.r2 import object_names
from edgesim.r2.database import Database
from edgesim.r2.driver import Finished, Outgoing, R2Driver
from edgesim.r2.object_names import HEAD_CHARACTERS
from edgesim.r2.outbox import SCHEMA, Intent, Outbox
from edgesim.r2.s3_session import Session
from edgesim.urls import redact

DETERMINISTIC = False

_HEADER = "edgesim"
_PART_BYTES = 8 * 1024 * 1024
_STATS_AT_ONCE = 16
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket"})
_HAVE_BUCKET = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou"})

Listed = list[R2Object]

_log = structlog.get_logger("edgesim.r2")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of the URL."""

    secure: bool = True
    region: str | None = None
    prefix: str = ""
    keys: Literal["encoded", "plain"] = "encoded"


class S3R2:
    """An R2 driver over an S3 client and an outbox on this machine."""

    def __init__(self, client: Minio, settings: Settings, database: Database, state: Path) -> None:
        self._client = client
        self._settings = settings
        self._spell = object_names.plain if settings.keys == "plain" else object_names.encoded
        self._outbox = Outbox(database)
        self._state = state
        self._buckets: set[str] = set()

    async def check(self) -> None:
        """Fail now if the server is out of reach or does not know us."""
        with _explained("the account"):
            try:
                await self._client.list_buckets()
            except S3Error as error:
                if error.code != "AccessDenied":  # keys for some buckets only may not list all
                    raise
        await self._decide_intents()

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
    ) -> None:
        with tempfile.SpooledTemporaryFile(_PART_BYTES, dir=str(self._state)) as spool:
            async for chunk in body:
                with _explained(self._state):
                    spool.write(chunk)
            finished = finish()
            intent = Intent(bucket, key, finished.object.version)
            with _explained(f"{bucket}/{key}"):
                await self._make(bucket)
                with self._outbox.announced([(intent, finished.outbox)]):
                    await self._upload(bucket, finished.object, spool)

    async def head(self, bucket: str, key: str) -> R2Object | None:
        return await self._stat(bucket, self._name(key))

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        if length == 0:
            return await self._get_nothing(bucket, key)
        name = self._name(key)
        with _explained(f"{bucket}/{key}"):
            try:
                response = await self._client.get_object(bucket, name, offset, length or 0)
            except S3Error as error:
                if error.code in _MISSING:
                    return None
                if error.code == "InvalidRange":
                    return await self._get_nothing(bucket, key)
                raise
        reader = _Reader(response, f"{bucket}/{key}")
        try:
            found = self._read_headers(name, response.headers)
        except RunError:
            await reader.aclose()
            raise
        if found is None:
            await reader.aclose()
            return None
        return found, reader

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[Outgoing]]
    ) -> None:
        gone = await self._stat_all(bucket, [self._name(key) for key in keys])
        if not gone:
            return
        changes = [
            (Intent(bucket, one.key, one.version, deletes=True), outbox(one)) for one in gone
        ]
        names = [DeleteObject(self._name(one.key)) for one in gone]
        with _explained(bucket), self._outbox.announced(changes):
            failures = await self._client.remove_objects(bucket, names)
            if failures:
                raise RunError(
                    f"r2 store {bucket}: {len(failures)} of {len(names)} objects are still there: "
                    f"{failures[0].message}"
                )

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        found: Listed = []
        async with aclosing(self._batches(bucket, prefix, after, limit)) as batches:
            async for names in batches:
                wanted = [
                    stored
                    for stored in await self._stat_all(bucket, names)
                    if stored.key.startswith(prefix) and stored.key > after
                ]
                found += sorted(wanted, key=lambda stored: stored.key)
                if len(found) >= limit:
                    break
        return found[:limit]

    async def usage(self, bucket: str) -> tuple[int, int]:
        sizes = [item.size or 0 async for item in self._listed(bucket, "", "")]
        return len(sizes), sum(sizes)

    async def buckets(self) -> Sequence[str]:
        with _explained("the account"):
            names = [bucket.name for bucket in await self._client.list_buckets()]
        return [name for name in names if await self.list(name, "", "", 1)]

    async def outbox(self, limit: int) -> Sequence[Outgoing]:
        await self._decide_intents()
        return self._outbox.oldest(limit)

    async def settle(self, ids: Sequence[str]) -> None:
        self._outbox.settle(ids)

    def _name(self, key: str) -> str:
        return self._settings.prefix + self._spell(key)

    async def _make(self, bucket: str) -> None:
        if bucket in self._buckets:
            return
        if not await self._client.bucket_exists(bucket):
            try:
                await self._client.make_bucket(bucket)
            except S3Error as error:
                if error.code not in _HAVE_BUCKET:
                    raise
        self._buckets.add(bucket)

    async def _upload(self, bucket: str, stored: R2Object, spool: IO[bytes]) -> None:
        spool.seek(0)
        content_type = stored.http_metadata.content_type or ""
        await self._client.put_object(
            bucket,
            self._name(stored.key),
            cast("BinaryIO", spool),
            stored.size,
            content_type=content_type if _fits_header(content_type) else "",
            metadata={_HEADER: _encode(stored)},
            # An object of exactly one part would go by a way of the client that sends it only once.
            part_size=_PART_BYTES + (stored.size == _PART_BYTES),
            num_parallel_uploads=1,  # with more, the client holds the whole object in memory
        )

    async def _stat(self, bucket: str, name: str) -> R2Object | None:
        with _explained(f"{bucket}/{name}"):
            try:
                found = await self._client.stat_object(bucket, name)
            except S3Error as error:
                if error.code in _MISSING:
                    return None
                raise
        return self._read_headers(name, cast("Mapping[str, str]", found.metadata))

    async def _stat_all(self, bucket: str, names: Sequence[str]) -> Listed:
        """The objects that are there, in the order of the names."""
        found: dict[str, R2Object | None] = {}
        limiter = anyio.CapacityLimiter(_STATS_AT_ONCE)

        async def stat(name: str) -> None:
            async with limiter:
                found[name] = await self._stat(bucket, name)

        try:
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(stat, name)
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [stored for name in names if (stored := found[name]) is not None]

    async def _get_nothing(
        self, bucket: str, key: str
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        found = await self.head(bucket, key)
        return None if found is None else (found, iterate(b""))

    def _read_headers(self, name: str, headers: Mapping[str, str]) -> R2Object | None:
        """What R2 knows of an object; None for one of others' whose key cannot be known."""
        header = headers.get(f"x-amz-meta-{_HEADER}")
        ours = None if header is None else _decode(name, header)
        if ours is not None and self._name(ours.key) == name:  # else a copy, made by others
            return ours
        if self._settings.keys == "encoded":
            return None
        etag = headers["etag"].strip('"')
        return R2Object(
            key=name.removeprefix(self._settings.prefix),
            version=etag,
            size=_size(headers),
            etag=etag,
            uploaded=parsedate_to_datetime(headers["last-modified"]).timestamp() * 1000,
            http_metadata=HttpMetadata(content_type=headers.get("content-type")),
        )

    async def _batches(
        self, bucket: str, prefix: str, after: str, size: int
    ) -> AsyncGenerator[Sequence[str], None]:
        """Names in batches of at least ``size``, in the order of their keys from batch to batch."""
        head = len(self._settings.prefix) + HEAD_CHARACTERS
        batch: list[str] = []
        async with aclosing(self._listed(bucket, prefix, after)) as listed:
            async for item in listed:
                name = str(item.object_name)
                if len(batch) >= size and name[:head] != batch[-1][:head]:
                    yield batch
                    batch = []
                batch.append(name)
        if batch:
            yield batch

    async def _listed(self, bucket: str, prefix: str, after: str) -> AsyncGenerator[Object, None]:
        """What the server lists, from no later than the first name that is wanted."""
        head = len(self._settings.prefix) + HEAD_CHARACTERS
        listed = self._client.list_objects(
            bucket,
            prefix=self._name(prefix)[:head],
            start_after=self._name(after)[:head] if after else None,
            recursive=True,
        )
        with _explained(bucket):
            try:
                async for item in listed:
                    yield item
            except S3Error as error:
                if error.code not in _MISSING:
                    raise

    async def _decide_intents(self) -> None:
        """Settle what a crash or a lost answer left open: is the change there on the server?"""
        for intent in self._outbox.undecided():
            found = await self.head(intent.bucket, intent.key)
            is_there = found is not None and found.version == intent.version
            happened = is_there != intent.deletes
            self._outbox.decide([intent], happened=happened)
            _log.info("an interrupted change is decided", key=intent.key, happened=happened)


class _Reader:
    """The chunks of a response; lets go of the connection at the end or on ``aclose``."""

    def __init__(self, response: aiohttp.ClientResponse, place: str) -> None:
        self._response = response
        self._place = place

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        try:
            with _explained(self._place):
                chunk = await self._response.content.readany()
        except BaseException:
            await self.aclose()
            raise
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._response.close()


@contextmanager
def _explained(place: object) -> Iterator[None]:
    try:
        yield
    except (MinioException, aiohttp.ClientError, OSError, ValueError) as error:
        raise RunError(f"r2 store {place}: {error}") from error


def _encode(stored: R2Object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(stored)).decode()


def _decode(name: str, header: str) -> R2Object:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(header), type=R2Object)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RunError(f"r2 store {name}: its {_HEADER} header is damaged: {error}") from error


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _size(headers: Mapping[str, str]) -> int:
    """Of the whole object, where the response holds a part of it too."""
    return int(headers.get("content-range", headers["content-length"]).rpartition("/")[2])


def _settings(url: str) -> Settings:
    parts = urlsplit(url)
    try:
        if not parts.hostname or parts.path.strip("/") or parts.username or parts.password:
            raise ValueError("write s3://HOST:PORT?options; keys and paths do not belong there")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        return msgspec.convert(options, Settings, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError("backends", "r2", f"{redact(url)}: {error}") from None


@asynccontextmanager
async def open_r2(
    url: str,
    clock: Clock,
    state: Path,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> AsyncIterator[S3R2]:
    """The server that ``url`` names; ``state`` holds the outbox and what is being uploaded.

    Raises ConfigError for a wrong URL, UsageError without keys, RunError if the server cannot be
    used.
    """
    settings = _settings(url)
    if not access_key or not secret_key:
        raise UsageError(f"{url} needs an access key and a secret key for the S3 server")
    with _explained(state):
        state.mkdir(parents=True, exist_ok=True)
    with closing(Database(state / "outbox.db", SCHEMA)) as database:
        async with Minio(
            urlsplit(url).netloc,
            access_key,
            secret_key,
            secure=settings.secure,
            region=settings.region,
            session=cast("aiohttp.ClientSession", Session()),
        ) as client:
            store = S3R2(client, settings, database, state)
            await store.check()
            yield store


_: type[R2Driver] = S3R2
