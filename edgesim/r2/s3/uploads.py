"""Multipart uploads on an S3 server: they map to the server's own, so they survive a restart.

The server joins the parts itself, so completing an upload is an intent like any other change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from edgesim.model import R2Object
from edgesim.r2.driver import Assembled, OutboxEntry, Part, UploadInProgress, Uploads
from edgesim.r2.outbox import Intent, Outbox
from edgesim.r2.s3.known import KnownObjects
from edgesim.r2.s3.metadata import Naming
from edgesim.r2.s3.spool import Spool, md5_header
from edgesim.r2.s3.store import S3Store

_VERSION_CHARACTERS = 32


class S3Uploads:
    """The multipart uploads of an S3 server; an id is the object's version and the server's id."""

    def __init__(
        self, store: S3Store, naming: Naming, outbox: Outbox, known: KnownObjects, state: Path
    ) -> None:
        self._store = store
        self._naming = naming
        self._outbox = outbox
        self._known = known
        self._state = state
        self._begun: dict[tuple[str, str], UploadInProgress] = {}
        """Uploads begun by this process, by bucket and id; the server lists no metadata."""

    async def create(self, bucket: str, planned: R2Object) -> str:
        await self._store.make(bucket)
        upload = await self._store.create_upload(
            bucket, self._naming.name(planned.key), self._naming.headers(planned)
        )
        begun = UploadInProgress(planned.version + upload, planned)
        self._begun[bucket, begun.upload] = begun
        return begun.upload

    async def in_progress(self, bucket: str, prefix: str) -> Sequence[UploadInProgress]:
        return [
            each
            for (place, _), each in self._begun.items()
            if place == bucket and each.planned.key.startswith(prefix)
        ]

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        with Spool(self._state) as spool:
            await spool.fill(body)
            part = finish()
            etag = await self._store.put_part(
                bucket,
                self._naming.name(key),
                _server_id(upload),
                part.number,
                spool.content(),
                md5_header(part.etag),
            )
        return None if etag is None else msgspec.structs.replace(part, etag=etag)

    async def parts(self, bucket: str, key: str, upload: str) -> Sequence[Part] | None:
        return await self._store.parts(bucket, self._naming.name(key), _server_id(upload))

    async def complete(
        self,
        bucket: str,
        key: str,
        upload: str,
        parts: Sequence[Part],
        assembled: Assembled,
        outbox: Callable[[R2Object], Sequence[OutboxEntry]],
    ) -> R2Object | None:
        name, version = self._naming.name(key), upload[:_VERSION_CHARACTERS]
        expected = R2Object(key=key, version=version, **msgspec.structs.asdict(assembled))
        intent = Intent(bucket, key, version)
        async with self._outbox.announced([(intent, outbox(expected))]) as decision:
            self._known.forget(bucket, name)
            done = await self._store.complete_upload(bucket, name, _server_id(upload), parts)
            self._begun.pop((bucket, upload), None)
            headers = await self._store.head(bucket, name)
            stored = None if headers is None else self._naming.read(name, headers)
            if stored is None or stored.version != version:
                # Overwritten already, or there was no such upload.
                decision.happened = done
                return expected if done else None
            if stored.etag != expected.etag:  # some servers assign another etag to these
                await self._outbox.replace(intent, outbox(stored))
        return stored

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        await self._store.abort_upload(bucket, self._naming.name(key), _server_id(upload))
        self._begun.pop((bucket, upload), None)

    async def drop(self, bucket: str, before_ms: float) -> None:
        for place, each in list(self._begun.items()):
            if place[0] == bucket and each.planned.uploaded < before_ms:
                del self._begun[place]
        for name, upload, begun_ms in await self._store.uploads(bucket, self._naming.name("")):
            if begun_ms < before_ms:
                await self._store.abort_upload(bucket, name, upload)


def _server_id(upload: str) -> str:
    return upload[_VERSION_CHARACTERS:]


_: type[Uploads] = S3Uploads
