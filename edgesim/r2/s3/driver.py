"""``s3://HOST:PORT``: objects on an S3 server, one S3 bucket for each R2 bucket.

The options of the URL are in url, object names on the server in names, metadata in metadata.  A
body is spooled to disk first, because the metadata, with the MD5, precedes the bytes.  Every object
is one PUT, or has the server's parts one to one, so that etags are the same on both sides and the
server can compare and swap by them.

S3 cannot commit together with an outbox.  So an intent is recorded locally before each change; if
a crash or a lost reply leaves it in doubt, a check of the object resolves it: see doubts.  S3 lists
without metadata, so a listing requests the metadata of each object once and caches it: see known.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path

import anyio

from edgesim import durable
from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.errors import RunError, UsageError
from edgesim.model import R2Object, iterate
from edgesim.r2.driver import ANYTHING, Anything, Expected, Finished, OutboxEntry, R2Driver
from edgesim.r2.outbox import SCHEMA, Intent, Outbox
from edgesim.r2.s3.answers import Reader
from edgesim.r2.s3.doubts import Doubts
from edgesim.r2.s3.known import KnownObjects
from edgesim.r2.s3.metadata import Naming
from edgesim.r2.s3.spool import Spool, md5_header
from edgesim.r2.s3.store import Listed, S3Store, open_store
from edgesim.r2.s3.uploads import S3Uploads
from edgesim.r2.s3.url import Settings, read_url

DETERMINISTIC = False
EMBEDDED = False
SHARED = True
DURABLE = True
CREDENTIALS = {"access_key": "EDGESIM_S3_ACCESS_KEY", "secret_key": "EDGESIM_S3_SECRET_KEY"}

_STATS_AT_ONCE = 16
_COUNTED_AT_ONCE = 1000

Objects = list[R2Object]

_CURE = "move the file away and send the notifications of recent objects again: edgesim r2 requeue"


class S3R2:
    """An R2 driver over an S3 server and a local outbox."""

    def __init__(self, store: S3Store, settings: Settings, database: Database, state: Path) -> None:
        self._store = store
        self._naming = Naming(settings)
        self._outbox = Outbox(database)
        self._known = KnownObjects()
        self._state = state
        self._doubts = Doubts(self._outbox, self._is_there)
        self._usage: dict[str, tuple[float, tuple[int, int]]] = {}
        self.uploads = S3Uploads(store, self._naming, self._outbox, self._known, state)

    async def check(self) -> None:
        """Raise RunError if the server is unreachable or rejects the credentials."""
        await self._store.check()
        await self._doubts.look()

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        with Spool(self._state) as spool:
            await spool.fill(body)
            finished = finish()
            stored, name = finished.object, self._naming.name(key)
            headers = self._naming.headers(stored) | md5_header(stored.etag)
            await self._store.make(bucket)
            intent = Intent(bucket, key, stored.version)
            async with self._outbox.announced([(intent, finished.outbox)]) as decision:
                self._known.forget(bucket, name)
                done = await self._store.put(
                    bucket, name, spool.content(), headers, _condition(expected)
                )
                # A retried PUT fails its precondition on its own object after a lost first reply.
                decision.happened = done or await self._is_there(intent)
        return decision.happened

    async def head(self, bucket: str, key: str) -> R2Object | None:
        return await self._stat(bucket, self._naming.name(key))

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        name = self._naming.name(key)
        response = None
        if length != 0:
            response = await self._store.get(bucket, name, offset, length or 0)
        if response is None:
            found = await self.head(bucket, key)
            return None if found is None else (found, iterate(b""))
        reader = Reader(response, f"{bucket}/{key}")
        try:
            found = self._naming.read(name, response.headers)
            if found is not None:
                await self._doubts.seen(bucket, found)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await reader.aclose()
            raise
        if found is None:
            await reader.aclose()
            return None
        return found, reader

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[OutboxEntry]]
    ) -> None:
        gone = await self._stat_all(bucket, [self._naming.name(key) for key in keys])
        if not gone:
            return
        changes = [
            (Intent(bucket, one.key, one.version, deletes=True), outbox(one)) for one in gone
        ]
        names = [self._naming.name(one.key) for one in gone]
        async with self._outbox.announced(changes):
            for name in names:
                self._known.forget(bucket, name)
            await self._store.remove(bucket, names)

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        found: Objects = []
        async with aclosing(self._batches(bucket, prefix, after, limit)) as batches:
            async for batch in batches:
                wanted = [
                    stored
                    for stored in await self._read(bucket, batch)
                    if stored.key.startswith(prefix) and stored.key > after
                ]
                found += sorted(wanted, key=lambda stored: stored.key)
                if len(found) >= limit:
                    break
        return found[:limit]

    async def usage(self, bucket: str) -> tuple[int, int]:
        """Exact for up to 1,000 objects; else a cached count, for at most one request a second."""
        measured, counted = self._usage.get(bucket, (0.0, (0, 0)))
        pages = counted[0] // _COUNTED_AT_ONCE
        if anyio.current_time() < measured + pages:
            return counted
        objects = size = 0
        async with aclosing(self._listed(bucket, "", "")) as listed:
            async for item in listed:
                objects += 1
                size += item.size
        self._usage[bucket] = (anyio.current_time(), (objects, size))
        return objects, size

    async def buckets(self) -> Sequence[str]:
        return [name for name in await self._store.buckets() if await self._holds(name)]

    async def has(self, bucket: str) -> bool:
        return await self._store.has(bucket)

    async def drop(self, bucket: str) -> None:
        await self._store.drop(bucket)

    async def outbox(self, limit: int) -> Sequence[OutboxEntry]:
        await self._doubts.look()
        ready = self._outbox.oldest(limit)
        if not ready and (fresh := self._doubts.fresh()):
            keys = ", ".join(repr(intent.key) for intent in fresh)
            raise RunError(f"r2 store: the last change of {keys} is in doubt")
        return ready

    @property
    def in_doubt(self) -> bool:
        return len(self._doubts) > 0

    async def settle(self, ids: Sequence[str]) -> None:
        await self._outbox.settle(ids)

    # --- object metadata ---

    async def _stat(self, bucket: str, name: str) -> R2Object | None:
        headers = await self._store.head(bucket, name)
        if headers is None:
            return None
        found = self._naming.read(name, headers)
        self._known.learn(bucket, name, headers, found)
        if found is not None:
            await self._doubts.seen(bucket, found)
        return found

    async def _stat_all(self, bucket: str, names: Sequence[str]) -> Objects:
        """The existing objects, in the order of the names."""
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

    async def _read(self, bucket: str, batch: Sequence[Listed]) -> Objects:
        """The objects of a listing, from the cache if they have not changed."""
        found: Objects = []
        unknown: list[str] = []
        for item in batch:
            seen = self._known.recall(bucket, item)
            if seen is None:
                unknown.append(item.name)
            elif seen.object is not None:
                found.append(seen.object)
        return found + await self._stat_all(bucket, unknown)

    # --- listing ---

    async def _batches(
        self, bucket: str, prefix: str, after: str, size: int
    ) -> AsyncGenerator[Sequence[Listed], None]:
        """Objects in batches of at least ``size``; keys are in order from batch to batch."""
        head = self._naming.head_characters
        batch: list[Listed] = []
        async with aclosing(self._listed(bucket, prefix, after)) as listed:
            async for item in listed:
                if len(batch) >= size and item.name[:head] != batch[-1].name[:head]:
                    yield batch
                    batch = []
                batch.append(item)
        if batch:
            yield batch

    def _listed(self, bucket: str, prefix: str, after: str) -> AsyncGenerator[Listed, None]:
        """The server's listing, starting no later than the first wanted name."""
        head = self._naming.head_characters
        start_after = self._naming.name(after)[:head] if after else ""
        return self._store.listed(bucket, self._naming.name(prefix)[:head], start_after)

    async def _holds(self, bucket: str) -> bool:
        async with aclosing(self._store.listed(bucket, self._naming.name(""), "", 1)) as listed:
            async for _ in listed:
                return True
        return False

    # --- in-doubt writes ---

    async def _is_there(self, intent: Intent) -> bool:
        found = await self.head(intent.bucket, intent.key)
        return found is not None and found.version == intent.version


def _condition(expected: Expected) -> dict[str, str]:
    if isinstance(expected, Anything):
        return {}
    return {"If-None-Match": "*"} if expected is None else {"If-Match": f'"{expected.etag}"'}


@asynccontextmanager
async def open_r2(
    url: str,
    clock: Clock,
    state: Path,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> AsyncIterator[S3R2]:
    """Connect to the server in ``url``; ``state`` holds the outbox and spooled uploads.

    Raises ConfigError for a wrong URL, UsageError without keys, RunError if the server cannot be
    used.
    """
    host, settings = read_url(url)
    if not access_key or not secret_key:
        raise UsageError(
            f"{url} needs an access key and a secret key",
            "set EDGESIM_S3_ACCESS_KEY and EDGESIM_S3_SECRET_KEY",
        )
    try:
        durable.make_folder(state)
    except OSError as error:
        raise RunError(f"r2 store {state}: {error.strerror}") from error
    with closing(Database(state / "outbox.db", SCHEMA, _CURE)) as database:
        async with open_store(host, settings, access_key, secret_key) as store:
            driver = S3R2(store, settings, database, state)
            await driver.check()
            yield driver


_: type[R2Driver] = S3R2
