"""Wrappers that record operations of stores and isolates, below all fault injection.

They record the real outcome: an operation may have succeeded although the caller received an
injected error or no reply.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from edgesim.clickhouse import statements
from edgesim.clickhouse.compression import Gunzip
from edgesim.clickhouse.driver import QueryResult, Statement
from edgesim.clock import Clock
from edgesim.faults.injector import KilledError, Life
from edgesim.isolates.host.driver import Host, Isolates, WrappedIsolates
from edgesim.isolates.protocol.wire import NOT_RUN, Call, Done, Invoke, Log, Respond
from edgesim.model import Body, Message, R2Object, Stream, iterate
from edgesim.queues.driver import NewMessage, QueueDriver
from edgesim.r2.driver import ANYTHING, Expected, Finished, R2Driver
from edgesim.replay.history import History
from edgesim.runtime.decisions import checked, decisions_of

_TOKEN = "insert_deduplication_token"  # noqa: S105 (name of a setting)
_PIPELINE_KEY = re.compile(r"event_date=[\d-]+/hr=\d\d/[0-9A-Z]{26}\.json(\.gz)?$")


class _Observer:
    """Base wrapper; methods that are not overridden are passed to ``inner``."""

    def __init__(self, inner: Any, history: History) -> None:
        self._inner = inner
        self._history = history

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ObservedUploads(_Observer):
    """Records objects that multipart uploads complete."""

    async def complete(
        self, bucket: str, key: str, upload: str, *joining: Any, **options: Any
    ) -> R2Object | None:
        self._history.putting(bucket, key)
        joined: R2Object | None = await self._inner.complete(
            bucket, key, upload, *joining, **options
        )
        if joined is not None:
            self._history.put(bucket)
        return joined


class ObservedR2(_Observer):
    """Records puts; ``pipelines`` maps each Pipeline to its bucket and key prefix."""

    def __init__(
        self, inner: R2Driver, history: History, pipelines: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__(inner, history)
        self._pipelines = pipelines

    @property
    def uploads(self) -> ObservedUploads:
        """Observed multipart uploads."""
        return ObservedUploads(self._inner.uploads, self._history)

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        pipeline = self._pipeline_of(bucket, key)
        if pipeline is not None and self._history.detail:
            await self._look(bucket, key)
        self._history.putting(bucket, key)
        counted = _Lines(body, gzip=key.endswith(".gz"))
        given = body if pipeline is None else aiter(counted)
        try:
            if not await self._inner.put(bucket, key, given, finish, expected):
                return False
        finally:
            if pipeline is not None and self._history.detail:
                self._history.rows_in[bucket, key] = counted.count
        self._history.put(bucket)
        if pipeline is not None:
            self._history.pipeline_object(pipeline, bucket, key, counted.count)
        return True

    def _pipeline_of(self, bucket: str, key: str) -> str | None:
        if (found := _PIPELINE_KEY.search(key)) is None:
            return None
        place = (bucket, key[: found.start()])
        return next((name for name, where in self._pipelines.items() if where == place), None)

    async def _look(self, bucket: str, key: str) -> None:
        """Record a Pipeline's write of an object that already exists."""
        if await self._inner.head(bucket, key) is not None:
            self._history.rewritten.append(f"{bucket}/{key}")


class _Lines:
    """A body that counts its lines while it is read; ``gzip``: it is compressed."""

    def __init__(self, body: AsyncIterator[bytes], *, gzip: bool) -> None:
        self.count = 0
        self._body = body
        self._unpack = zlib.decompressobj(wbits=31).decompress if gzip else bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self.count += self._unpack(chunk).count(b"\n")
            yield chunk


class ObservedQueues(_Observer):
    """Records messages, identified by their valid lease; a later lease replaces an earlier one."""

    def __init__(self, inner: QueueDriver, history: History) -> None:
        super().__init__(inner, history)
        self._leased: dict[str, str] = {}  # lease id -> message id
        self._leases: dict[str, str] = {}  # message id -> its latest lease id
        self._attempts: dict[str, int] = {}  # message id -> deliveries, while it is leased

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        def happened(message_id: str) -> None:
            message = sent[message_id]
            self._history.sent(queue, message_id, message.body, message.visible_at - ahead)

        ahead = self._history.ahead()
        sent = {message.id: message for message in messages}
        with self._doubtful(dict.fromkeys(sent, queue), happened):
            await self._inner.send(queue, messages)
        for message_id in sent:
            happened(message_id)

    @contextmanager
    def _doubtful(
        self, messages: dict[str, str], happened: Callable[[str], None]
    ) -> Iterator[None]:
        """Record the block's call as in doubt if a kill interrupts it; the next run resolves it."""
        try:
            yield
        except KilledError:
            self._history.doubt(messages, happened)
            raise

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        leased: Sequence[Message] = await self._inner.lease(queue, limit, now, until, leased_max)
        for message in leased:
            self._leased.pop(self._leases.get(message.id, ""), None)
            self._leased[message.lease_id] = message.id
            self._leases[message.id] = message.lease_id
            self._attempts[message.id] = message.attempts
        return leased

    def _ids(self, lease_ids: Sequence[str]) -> list[str]:
        return [self._leased[each] for each in lease_ids if each in self._leased]

    def _end(self, lease_ids: Sequence[str]) -> list[str]:
        """End the leases; return the messages of those that were still valid."""
        ids = [self._leased.pop(each) for each in lease_ids if each in self._leased]
        for each in ids:
            del self._leases[each]
            del self._attempts[each]
        return ids

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        gone = dict.fromkeys(self._ids(lease_ids), "")
        with self._doubtful(gone, lambda message_id: self._history.acked(queue, message_id)):
            count: int = await self._inner.ack(queue, lease_ids)
        for each in self._end(lease_ids):
            self._history.acked(queue, each)
        return count

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        try:
            count: int = await self._inner.release(queue, lease_ids, visible_at, counts)
        except KilledError:  # in doubt; the store itself reports what is due
            self._history.released(queue, self._ids(lease_ids), visible_at)
            raise
        # The lease stays valid until the message is leased again.
        self._history.released(queue, self._ids(lease_ids), visible_at)
        return count

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        attempts = {each: self._attempts[each] for each in self._ids(lease_ids)}

        def happened(message_id: str) -> None:
            self._history.died(queue, message_id, attempts[message_id], to)

        with self._doubtful(dict.fromkeys(attempts, to), happened):
            count: int = await self._inner.move(queue, lease_ids, to, now)
        for each in self._end(lease_ids):
            happened(each)
        return count

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        oldest = await self._inner.peek(queue, limit)
        count: int = await self._inner.redrive(queue, to, limit, now)
        for message in oldest[:count]:
            self._history.moved(queue, message.id, to)
        return count

    async def purge(self, queue: str) -> int:
        count: int = await self._inner.purge(queue)
        self._history.dropped(queue, count)
        return count

    async def expire(self, queue: str, before_ms: int) -> int:
        count: int = await self._inner.expire(queue, before_ms)
        self._history.dropped(queue, count)
        return count


class ObservedClickHouse(_Observer):
    """Records inserts, with row counts if the history keeps details."""

    async def execute(self, statement: Statement) -> QueryResult:
        insert = statements.as_insert(statement.sql)
        if insert is None:
            answer: QueryResult = await self._inner.execute(statement)
            return answer
        flow = self._history.clickhouse
        flow.entered += 1
        rows = _InsertedRows()
        if self._history.detail:
            statement.data = rows.counted(statement)
        try:
            answer = await self._inner.execute(statement)
        except Exception:
            flow.retried += 1
            raise
        flow.left += 1
        token = statement.settings.get(_TOKEN)
        self._history.inserted(statements.table_of(insert), token, rows.count)
        return answer


class _InsertedRows:
    """Counts the lines of an insert's data while it is sent to the database."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, statement: Statement) -> Stream:
        length = statement.data.length if isinstance(statement.data, Stream) else None
        return Stream(self._through(statement.data, statement.encoding == "gzip"), length)

    async def _through(self, data: Body, packed: bool) -> AsyncIterator[bytes]:
        member = Gunzip()
        async for chunk in iterate(data):
            for text in member.pieces(chunk) if packed else [chunk]:
                self.count += text.count(b"\n")
            yield chunk


class ObservedIsolates(WrappedIsolates):
    """Records invocations, records sent to Pipelines, and traces sent to Tail Workers.

    This is the outermost wrapper: it sees an outcome after fault injection, while the host that it
    passes inward is the one closest to the platform.
    """

    def __init__(
        self,
        worker: str,
        inner: Isolates,
        pipelines: Mapping[str, str],
        history: History,
        clock: Clock,
        life: Life,
    ) -> None:
        super().__init__(inner)
        self._worker = worker
        self._pipelines = pipelines
        self._history = history
        self._clock = clock
        self._life = life

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates."""
        begun = self._clock.now()
        done = await self._inner.invoke(invoke, _ObservedHost(host, self._pipelines, self._history))
        if self._life.killed:  # no caller receives the outcome
            return done
        if done.fault == NOT_RUN and self._inner.lost.is_set():
            return done  # the platform retries with the next zygote's isolates
        self._history.invoked(self._worker, done.outcome)
        if invoke.handler == "queue":
            self._history.taken |= _acknowledged(invoke, done)
        if invoke.handler == "tail" and done.fault != NOT_RUN:  # otherwise they are redelivered
            ages = [begun - item.event_timestamp / 1000 for item in invoke.event]
            self._history.traced(self._worker, ages, delivered=done.outcome == "ok")
        return done


def _acknowledged(invoke: Invoke, done: Done) -> set[str]:
    """Messages of a batch that its handler has acknowledged."""
    done = checked(done)
    decided = decisions_of(done)
    rest = decided.all or ("ack" if done.outcome == "ok" else "retry")
    ids = [message["id"] for message in invoke.event["messages"]]
    return {each for each in ids if decided.messages.get(each, (rest, None))[0] == "ack"}


class _ObservedHost(Host):
    def __init__(self, inner: Host, pipelines: Mapping[str, str], history: History) -> None:
        self.depth = inner.depth
        self._inner = inner
        self._pipelines = pipelines
        self._history = history

    async def call(self, call: Call) -> Any:
        pipeline = self._pipelines.get(call.binding)
        if pipeline is None or call.method != "send":
            return await self._inner.call(call)
        records: Any = call.args[0] if call.args else None
        self._history.sending(pipeline, records)
        value = await self._inner.call(call)
        self._history.accepted_by(pipeline, records)
        return value

    def log(self, log: Log) -> None:
        """See Host."""
        self._inner.log(log)

    def respond(self, response: Respond) -> None:
        """See Host."""
        self._inner.respond(response)

    def spent(self, cpu_ms: float) -> None:
        """See Host."""
        self._inner.spent(cpu_ms)
