"""``nats://host:4222/name?replicas=3``: entries in NATS JetStream, shared by any number of nodes.

All namespaces are in one key-value bucket of the server, ``<name>-kv``, so that ``nats kv`` reads
it.  In a key of the bucket every byte that NATS does not allow there is written as ``=XX``.

- ``e.<namespace>.<key>`` is an entry: the body is the value, a header has the rest of KvEntry.
- A value above INLINE_BYTES is stored in parts, ``v.<namespace>.<key>.<n>``, each below the
  server's maximum message size.  Parts and entry are one atomic batch: their sequences are
  consecutive, and a reader that misses a part was overtaken by a later write and starts again.
- A deletion is a marker in place of the entry.  Parts of replaced and deleted values are purged
  after the write; after a crash in between the next write of that key purges them.

The server removes an expired entry KEEP_SECONDS after its expiration, which allows for clocks that
differ; until then reads ignore it.  With ``replicas`` above 1 a listing may show the metadata that
a key had a moment ago; reads of a key come from the leader.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.jetstream.server import (
    SUBJECTS_MAX,
    JetStream,
    Publication,
    StreamConfig,
    StreamMessage,
    open_jetstream,
)
from edgesim.jetstream.url import Place, place_of
from edgesim.kv.driver import KvDriver, KvEntry, KvKey

DETERMINISTIC = False
EMBEDDED = False
SHARED = True
DURABLE = True
CREDENTIALS = {
    "user": "EDGESIM_NATS_USER",
    "password": "EDGESIM_NATS_PASSWORD",
    "token": "EDGESIM_NATS_TOKEN",
}

INLINE_BYTES = 8 << 10
"""Maximum size of a value in its entry: a listing reads entries, but no parts."""
PART_BYTES = 192 << 10
KEEP_SECONDS = 3_600
MARKER_SECONDS = 60
"""The server removes the marker of a deletion after this time."""
_DUPLICATE_SECONDS = 120
_HEADER = "Edgesim-Entry"
_OPERATION, _DELETED = "KV-Operation", "DEL"
_TTL = "Nats-TTL"
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")


@asynccontextmanager
async def open_kv(
    url: str,
    clock: Clock,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> AsyncIterator[KvDriver]:
    """Connect to the store in the URL; RunError if it cannot be reached."""
    place = place_of(url, "kv")
    given = {"user": user, "password": password, "token": token}
    credentials = {key: value for key, value in given.items() if value is not None}
    async with open_jetstream(place.servers, place.where, clock, **credentials) as server:
        yield await _open_bucket(server, place, clock)


class _Header(msgspec.Struct):
    """The fields of an entry beside its value; ``parts`` is 0 if the value is the body."""

    expiration: int | None = None
    metadata: str | None = None
    parts: int = 0


class NatsKv:
    """The entries of all namespaces in one bucket; see KvDriver for the contract."""

    def __init__(self, server: JetStream, bucket: str, clock: Clock) -> None:
        self._server = server
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._clock = clock

    async def get(self, namespace: str, key: str, now: float) -> KvEntry | None:
        """See KvDriver."""
        patience = None
        while True:
            found = await self._server.last(self._stream, self._entry(namespace, key))
            if found is None or (header := _header_of(found, now)) is None:
                return None
            value = await self._value(found, header, namespace, key)
            if value is not None:
                return KvEntry(value, header.expiration, header.metadata)
            # Overtaken by a write, or a replica lags behind: read again, for a limited time.
            patience = patience or self._server.patience()
            problem = f"{self._server.where}: a part of the value of KV key {key!r} is missing"
            await patience.wait(RunError(problem, "store the value again"))

    async def put(self, namespace: str, key: str, entry: KvEntry, now: float) -> None:
        """See KvDriver."""
        headers = {}
        if entry.expiration is not None:
            headers[_TTL] = str(max(1, int(entry.expiration - now)) + KEEP_SECONDS)
        parts = list(_parts(entry.value)) if len(entry.value) > INLINE_BYTES else []
        header = _Header(entry.expiration, entry.metadata, len(parts))
        described = {_HEADER: json.dumps(msgspec.to_builtins(header))}  # a header is ASCII
        subject = self._entry(namespace, key)
        await self._write(
            namespace,
            key,
            [
                *(
                    self._message(self._part(namespace, key, str(number)), part, headers)
                    for number, part in enumerate(parts)
                ),
                self._message(subject, b"" if parts else entry.value, described | headers),
            ],
        )

    async def delete(self, namespace: str, key: str) -> None:
        """See KvDriver."""
        headers = {_OPERATION: _DELETED, _TTL: str(MARKER_SECONDS)}
        marker = self._message(self._entry(namespace, key), b"", headers)
        await self._write(namespace, key, [marker])

    async def list(
        self, namespace: str, prefix: str, after: str, limit: int, now: float
    ) -> Sequence[KvKey]:
        """See KvDriver; reads the names of all keys of the namespace."""
        beginning, last = prefix.encode(), after.encode()
        subjects = {
            name: subject
            for subject in await self._server.subjects(
                self._stream, f"$KV.{self._bucket}.e.{_escaped(namespace)}.*"
            )
            if (name := _unescaped(subject.rpartition(".")[2])).startswith(beginning)
            and name > last
        }
        names = sorted(subjects)
        found: list[KvKey] = []
        for start in range(0, len(names), SUBJECTS_MAX):
            page = names[start : start + SUBJECTS_MAX]
            headers = await self._headers([subjects[name] for name in page], now)
            found += [
                KvKey(name.decode(), header.expiration, header.metadata)
                for name in page
                if (header := headers.get(subjects[name])) is not None
            ]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _headers(self, subjects: Sequence[str], now: float) -> Mapping[str, _Header]:
        """The headers of the entries that exist, by subject."""
        found = {
            each.subject: each for each in await self._server.last_of_each(self._stream, subjects)
        }
        for subject in subjects:
            # Not found: a replica lags behind, or the entry was removed meanwhile.
            if subject not in found and (entry := await self._server.last(self._stream, subject)):
                found[subject] = entry
        headers = {subject: _header_of(entry, now) for subject, entry in found.items()}
        return {subject: header for subject, header in headers.items() if header is not None}

    async def _value(
        self, entry: StreamMessage, header: _Header, namespace: str, key: str
    ) -> bytes | None:
        """The value of an entry; None if not all of its parts are there."""
        if not header.parts:
            return entry.body
        first = entry.seq - header.parts
        subject = self._part(namespace, key, "*")
        found, _ = await self._server.read(self._stream, subject, first - 1, header.parts)
        if [each.seq for each in found] != list(range(first, entry.seq)):
            return None
        return b"".join(each.body for each in found)

    async def _write(self, namespace: str, key: str, messages: Sequence[Publication]) -> None:
        """Store the messages together, then remove the parts of earlier values of the key."""
        last = await self._server.publish(messages)
        if last:
            before = last - len(messages) + 1
            await self._server.api(
                f"STREAM.PURGE.{self._stream}",
                filter=self._part(namespace, key, "*"),
                seq=before,
            )

    def _message(self, subject: str, body: bytes, headers: Mapping[str, str]) -> Publication:
        return Publication(subject, body, dict(headers), self._clock.hex_id())

    def _entry(self, namespace: str, key: str) -> str:
        return f"$KV.{self._bucket}.e.{_escaped(namespace)}.{_escaped(key)}"

    def _part(self, namespace: str, key: str, which: str) -> str:
        return f"$KV.{self._bucket}.v.{_escaped(namespace)}.{_escaped(key)}.{which}"


def _header_of(entry: StreamMessage, now: float) -> _Header | None:
    """The header of an entry; None for a deleted or expired one."""
    if entry.headers.get(_OPERATION) == _DELETED or _HEADER not in entry.headers:
        return None
    header = msgspec.json.decode(entry.headers[_HEADER], type=_Header)
    return header if header.expiration is None or header.expiration > now else None


def _parts(value: bytes) -> Iterable[bytes]:
    return (value[start : start + PART_BYTES] for start in range(0, len(value), PART_BYTES))


def _escaped(name: str) -> str:
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], name.encode()).decode()


def _unescaped(token: str) -> bytes:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), token.encode())


async def _open_bucket(server: JetStream, place: Place, clock: Clock) -> NatsKv:
    """Open the bucket; it is created if missing."""
    bucket = f"{place.name}-kv"
    stream = f"KV_{bucket}"
    wanted = StreamConfig(
        name=stream,
        subjects=[f"$KV.{bucket}.>"],
        retention="limits",
        storage="file",
        num_replicas=place.replicas,
        discard="new",
        duplicate_window=_DUPLICATE_SECONDS * 1_000_000_000,
        allow_direct=True,
        allow_atomic=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        max_msgs_per_subject=1,
    )
    config = msgspec.to_builtins(wanted)
    found = await server.find(f"STREAM.INFO.{stream}")
    if found is None:
        found = await server.api(f"STREAM.CREATE.{stream}", **config)
    has = msgspec.json.decode(found.config, type=StreamConfig)
    if has.num_replicas != wanted.num_replicas and has.subjects == wanted.subjects:
        found = await server.api(f"STREAM.UPDATE.{stream}", **config)
        has = msgspec.json.decode(found.config, type=StreamConfig)
    settings = (has.allow_atomic, has.allow_msg_ttl, has.max_msgs_per_subject, has.subjects)
    if settings != (True, True, 1, wanted.subjects):
        raise RunError(
            f"{place.where}: the stream {stream} is not one of edgesim's, "
            "or the server is older than 2.12",
            "use nats-server 2.12 or later, or another name in the URL",
        )
    return NatsKv(server, bucket, clock)


_: type[KvDriver] = NatsKv
