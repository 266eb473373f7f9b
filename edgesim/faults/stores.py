"""Stores with injected faults; without rules they behave like the stores themselves.

Every call of a killed platform run is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar, cast

import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement
from edgesim.clock import Clock
from edgesim.faults.injector import Injector, Life
from edgesim.faults.stale import STALE_SECONDS, EarlierEntries, Key, listed
from edgesim.faults.uploads import UPLOAD_METHODS, FaultyUploads
from edgesim.kv.driver import KvDriver, KvEntry, KvKey
from edgesim.model import Message, R2Object
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.r2.driver import ANYTHING, Expected, Finished, OutboxEntry, R2Driver, Uploads

HOLD_BACK_SECONDS = 30.0
"""Maximum delay of a reordered message, during which others overtake it."""
R2_METHODS = (
    *("put", "head", "get", "delete", "list", "usage", "outbox", "settle"),
    *UPLOAD_METHODS,
)
QUEUE_METHODS = (
    *("send", "lease", "ack", "release", "move", "redrive", "peek", "depth", "purge", "expire"),
)
KV_METHODS = ("get", "put", "delete", "list")

_Result = TypeVar("_Result")


class FaultyR2:
    """See R2Driver."""

    def __init__(self, inner: R2Driver, injector: Injector, life: Life) -> None:
        self._inner = inner
        self._injector = injector
        self._life = life

    @property
    def uploads(self) -> Uploads:
        """Multipart uploads with injected faults."""
        return cast("Uploads", FaultyUploads(self._inner.uploads, self._call))

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        return await self._call(
            "put", bucket, key, lambda: self._inner.put(bucket, key, body, finish, expected)
        )

    async def head(self, bucket: str, key: str) -> R2Object | None:
        return await self._call("head", bucket, key, lambda: self._inner.head(bucket, key))

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        return await self._call(
            "get", bucket, key, lambda: self._inner.get(bucket, key, offset, length)
        )

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[OutboxEntry]]
    ) -> None:
        await self._call(
            "delete", bucket, f"{len(keys)} keys", lambda: self._inner.delete(bucket, keys, outbox)
        )

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        return await self._call(
            "list", bucket, prefix, lambda: self._inner.list(bucket, prefix, after, limit)
        )

    async def usage(self, bucket: str) -> tuple[int, int]:
        return await self._call("usage", bucket, "", lambda: self._inner.usage(bucket))

    async def buckets(self) -> Sequence[str]:
        self._life.check()
        return await self._inner.buckets()

    async def has(self, bucket: str) -> bool:
        self._life.check()
        return await self._inner.has(bucket)

    async def drop(self, bucket: str) -> None:
        self._life.check()
        await self._inner.drop(bucket)

    @property
    def in_doubt(self) -> bool:
        return self._inner.in_doubt

    async def outbox(self, limit: int) -> Sequence[OutboxEntry]:
        return await self._call("outbox", "", "", lambda: self._inner.outbox(limit))

    async def settle(self, ids: Sequence[str]) -> None:
        await self._call("settle", "", f"{len(ids)} ids", lambda: self._inner.settle(ids))

    async def _call(
        self, method: str, bucket: str, detail: str, act: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        targets = ("r2", f"r2.{method}", f"r2.{bucket}")
        where = f"r2.{method} {bucket}/{detail}" if bucket else f"r2.{method} {detail}".rstrip()
        return await self._injector.around(self._life, targets, where, act)


class FaultyKv:
    """See KvDriver; stale reads return an earlier state, as other locations may see it."""

    def __init__(self, inner: KvDriver, injector: Injector, life: Life, clock: Clock) -> None:
        self._inner = inner
        self._injector = injector
        self._life = life
        self._clock = clock
        self._history = EarlierEntries()

    async def get(self, namespace: str, key: str, now: float) -> KvEntry | None:
        return await self._call("get", key, lambda: self._get(namespace, key, now))

    async def _get(self, namespace: str, key: str, now: float) -> KvEntry | None:
        moment = self._stale("get", key)
        if moment is not None:
            held = self._history.at(Key(namespace, key), moment)
            if held is not None:
                return held[0] if held[0] is not None and _is_valid(held[0], now) else None
        return await self._inner.get(namespace, key, now)

    async def put(self, namespace: str, key: str, entry: KvEntry, now: float) -> None:
        await self._call(
            "put",
            key,
            lambda: self._write(
                Key(namespace, key), lambda: self._inner.put(namespace, key, entry, now)
            ),
        )

    async def delete(self, namespace: str, key: str) -> None:
        await self._call(
            "delete",
            key,
            lambda: self._write(Key(namespace, key), lambda: self._inner.delete(namespace, key)),
        )

    async def _write(self, key: Key, act: Callable[[], Awaitable[None]]) -> None:
        """Write, and keep the replaced entry while a rule makes reads stale."""
        if not any(rule.kind == "stale" for rule in self._injector.rules):
            await act()
            return
        before = await self._inner.get(key.namespace, key.name, self._clock.now())
        await act()
        self._history.record(key, before, self._clock.now())

    async def list(
        self, namespace: str, prefix: str, after: str, limit: int, now: float
    ) -> Sequence[KvKey]:
        return await self._call(
            "list", prefix, lambda: self._list(namespace, prefix, after, limit, now)
        )

    async def _list(
        self, namespace: str, prefix: str, after: str, limit: int, now: float
    ) -> Sequence[KvKey]:
        moment = self._stale("list", prefix)
        if moment is None:
            return await self._inner.list(namespace, prefix, after, limit, now)
        earlier = {}
        for key in self._history.names(namespace, prefix, after):
            if (held := self._history.at(key, moment)) is not None:
                entry = held[0]
                earlier[key.name] = entry if entry is not None and _is_valid(entry, now) else None
        more = limit + len(earlier)  # some of those found vanish
        found = await self._inner.list(namespace, prefix, after, more, now)
        return listed(found, earlier)[:limit]

    def _stale(self, method: str, detail: str) -> float | None:
        """The moment whose state a read returns; None for the present."""
        targets, where = ("kv", f"kv.{method}"), f"kv.{method} {detail}".rstrip()
        struck = self._injector.strikes("stale", targets, where)
        if struck is None:
            return None
        return self._clock.now() - struck[1].uniform(0, STALE_SECONDS)

    async def _call(
        self, method: str, detail: str, act: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        where = f"kv.{method} {detail}".rstrip()
        return await self._injector.around(self._life, ("kv", f"kv.{method}"), where, act)


def _is_valid(entry: KvEntry, now: float) -> bool:
    return entry.expiration is None or entry.expiration > now


class FaultyQueues:
    """See QueueDriver; duplicates and reorders messages, as at-least-once queues may."""

    def __init__(self, inner: QueueDriver, injector: Injector, life: Life, clock: Clock) -> None:
        self._inner = inner
        self._injector = injector
        self._life = life
        self._clock = clock

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        held_back = [self._hold_back(queue, message) for message in messages]
        await self._call("send", queue, messages, lambda: self._inner.send(queue, held_back))

    def _hold_back(self, queue: str, message: NewMessage) -> NewMessage:
        targets = ("queues", f"queues.{queue}")
        struck = self._injector.strikes("reorder", targets, f"queues.send {queue} {message.id}")
        if struck is None:
            return message
        later = message.visible_at + struck[1].uniform(0, HOLD_BACK_SECONDS)
        return msgspec.structs.replace(message, visible_at=later)

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        return await self._call(
            "lease", queue, (), lambda: self._inner.lease(queue, limit, now, until, leased_max)
        )

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        return await self._call("ack", queue, lease_ids, lambda: self._ack(queue, lease_ids))

    async def _ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        targets = ("queues", f"queues.{queue}")
        again = [
            each
            for each in lease_ids
            if self._injector.strikes("duplicate", targets, f"queues.ack {queue}")
        ]
        if again:
            await self._inner.release(queue, again, self._clock.now())
        rest = [each for each in lease_ids if each not in again]
        return len(again) + await self._inner.ack(queue, rest)

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        return await self._call(
            "release",
            queue,
            lease_ids,
            lambda: self._inner.release(queue, lease_ids, visible_at, counts),
        )

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        return await self._call(
            "move", queue, lease_ids, lambda: self._inner.move(queue, lease_ids, to, now)
        )

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        return await self._call(
            "redrive", queue, (), lambda: self._inner.redrive(queue, to, limit, now)
        )

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        return await self._call("peek", queue, (), lambda: self._inner.peek(queue, limit))

    async def depth(self, queue: str) -> Depth:
        return await self._call("depth", queue, (), lambda: self._inner.depth(queue))

    async def purge(self, queue: str) -> int:
        return await self._call("purge", queue, (), lambda: self._inner.purge(queue))

    async def drop(self, queue: str) -> None:
        self._life.check()
        await self._inner.drop(queue)

    async def expire(self, queue: str, before_ms: int) -> int:
        return await self._call("expire", queue, (), lambda: self._inner.expire(queue, before_ms))

    async def names(self) -> Sequence[str]:
        self._life.check()
        return await self._inner.names()

    async def claim(self, name: str) -> bool:
        self._life.check()
        return await self._inner.claim(name)

    async def changed_elsewhere(self) -> str:
        self._life.check()
        return await self._inner.changed_elsewhere()

    async def _call(
        self,
        method: str,
        queue: str,
        messages: Sequence[object],
        act: Callable[[], Awaitable[_Result]],
    ) -> _Result:
        targets = ("queues", f"queues.{method}", f"queues.{queue}")
        count = f" x{len(messages)}" if messages else ""
        where = f"queues.{method} {queue}{count}"
        return await self._injector.around(self._life, targets, where, act)


class FaultyClickHouse:
    """See ClickHouseDriver."""

    def __init__(self, inner: ClickHouseDriver, injector: Injector, life: Life) -> None:
        self._inner = inner
        self._injector = injector
        self._life = life

    async def execute(self, statement: Statement) -> QueryResult:
        kind = "insert" if statements.as_insert(statement.sql) is not None else "query"
        targets = ("clickhouse", f"clickhouse.{kind}")
        where = f"clickhouse.{kind} {' '.join(statement.sql.split())[:60]}"
        answer = await self._injector.around(
            self._life, targets, where, lambda: self._inner.execute(statement)
        )
        if kind == "insert":
            self._injector.step(where)
        return answer


_r2: type[R2Driver] = FaultyR2
_queues: type[QueueDriver] = FaultyQueues
_clickhouse: type[ClickHouseDriver] = FaultyClickHouse
