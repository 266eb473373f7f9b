"""``nats://host:4222/name?replicas=3``: messages in NATS JetStream, shared by any number of nodes.

Each queue is a stream with work-queue retention and file storage, and one durable pull consumer
that all nodes fetch from.  A message is on one of two subjects: ``ready``, which the consumer
delivers, or ``delayed``, whose subjects contain the due time; a node that leases from the queue
moves the messages that are due.

- A lease is a delivery of the consumer.  Its id is the reply subject of that delivery, valid from
  any node.  A node renews its leases (JetStream in-progress acks); if it fails, the server delivers
  the messages to another node after ``ack_wait`` seconds (30 unless the URL sets it).
- Attempts are the deliveries that the server counts, plus those from before the message was last
  moved, which it carries along.
- A message is moved (delayed, due, dead, redriven) by publishing its successor and then removing
  it.  The successor's message id is derived from the message's queue and sequence, so that the
  server keeps one successor if the move is repeated within two minutes.

Rejected alternatives: delays by nak and by the server's message schedules, which run on the
server's clock, so that no other node knows when the next message is due and virtual time does
not work; KV entries for leases, which cost one round trip for each message.

Differences from other stores: messages are ordered by arrival on ``ready``, released ones first;
``oldest_ms`` is that of the message that arrived first; ``peek`` does not show attempts that only
another node knows; an expired lease can still ack its message after another node has leased it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
import structlog

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.jetstream.server import (
    JetStream,
    KnownError,
    Publication,
    StreamConfig,
    StreamMessage,
    open_jetstream,
)
from edgesim.jetstream.url import NAME, Place, place_of
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.queues.nats.work_queue import (
    DUPLICATE_SECONDS,
    LEASED_MAX,
    WorkQueue,
    open_work_queue,
    stream_of,
)

DETERMINISTIC = False
EMBEDDED = False
SHARED = True
DURABLE = True
CREDENTIALS = {
    "user": "EDGESIM_NATS_USER",
    "password": "EDGESIM_NATS_PASSWORD",
    "token": "EDGESIM_NATS_TOKEN",
}

_DELAYED = b"delayed"

log = structlog.get_logger()


@asynccontextmanager
async def open_queues(
    url: str,
    clock: Clock,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> AsyncIterator[QueueDriver]:
    """Connect to the store in the URL; RunError if it cannot be reached."""
    place = place_of(url)
    given = {"user": user, "password": password, "token": token}
    credentials = {key: value for key, value in given.items() if value is not None}
    failure: Exception | None = None
    async with (
        open_jetstream(place.servers, place.where, clock, **credentials) as server,
        anyio.create_task_group() as tasks,
    ):
        driver = NatsQueue(server, place, clock)
        await driver.listen()
        tasks.start_soon(driver.keep_leases)
        try:
            yield driver
        except Exception as error:  # noqa: BLE001 (raised below, itself and not in a group)
            failure = error
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await driver.give_back()
    if failure is not None:
        raise failure


class NatsQueue:
    """Queues as streams of a JetStream server; see QueueDriver for the contract."""

    def __init__(self, server: JetStream, place: Place, clock: Clock) -> None:
        self._server = server
        self._place = place
        self._clock = clock
        self._queues: dict[str, WorkQueue] = {}
        self._opening = anyio.Lock()
        self._changed: set[str] = set()
        self._heard = anyio.Event()
        self._has_claims = False

    # --- the contract ---

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver; an id received within the last two minutes is refused."""
        now = self._clock.now()
        await (await self._queue(queue)).send(messages, now)
        await self._hint(queue, delayed=any(m.visible_at > now for m in messages))

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        known = await self._queue(queue)
        most = LEASED_MAX if leased_max is None else leased_max
        leased, promoted = await known.lease(limit, now, until, most)
        if promoted:
            await self._hint(queue, delayed=True)
        return leased

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases = known.held(lease_ids)
        await known.ack(leases)
        if known.leased_max != LEASED_MAX:
            await self._hint(queue)  # other nodes may wait for capacity under the limit
        return len(leases)

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases, now = known.held(lease_ids), self._clock.now()
        if visible_at <= now and counts:  # the server counts this delivery
            await known.give_back(leases, now)
        else:
            await known.delay(leases, visible_at, uncounted=not counts)
        await self._hint(queue, delayed=visible_at > now)
        return len(leases)

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases = known.held(lease_ids)
        found = await known.read_leased(leases)
        await self._take(known, found, to, now)
        await known.ack(leases)
        return len(found)

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        moved = 0
        async for page in self._server.pages(known.stream, limit):
            await self._take(known, page, to, now)
            await known.remove(page)
            moved += len(page)
        await self._hint(queue, delayed=True)
        return moved

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        return await (await self._queue(queue)).peek(limit)

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""
        return await (await self._queue(queue)).depth()

    async def purge(self, queue: str) -> int:
        """See QueueDriver."""
        purged = await (await self._queue(queue)).purge()
        await self._hint(queue, delayed=True)
        return purged

    async def drop(self, queue: str) -> None:
        """See QueueDriver."""
        self._queues.pop(queue, None)
        await self._server.find(f"STREAM.DELETE.{stream_of(self._place, queue)}")

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver; messages that another node may have leased are left to that node."""
        known = await self._queue(queue)
        old = await known.older(before_ms)
        if old:
            await known.remove(old)
        return len(old)

    async def names(self) -> Sequence[str]:
        """See QueueDriver."""
        prefix, found, offset = f"{self._place.name}.", [], 0
        while True:
            listed = await self._server.api("STREAM.LIST", subject=f"{prefix}>", offset=offset)
            for each in listed.streams:
                subjects = msgspec.json.decode(each.config, type=StreamConfig).subjects
                if each.state.messages:
                    found.append(subjects[0].removeprefix(prefix).removesuffix(".>"))
            offset += len(listed.streams)
            if not listed.streams or offset >= listed.total:
                return sorted(found)

    async def claim(self, name: str) -> bool:
        """See QueueDriver; the server refuses a message id that another node has published."""
        subject = f"{self._place.name}-claims"
        if not self._has_claims:
            window = DUPLICATE_SECONDS * 1_000_000_000
            wanted = StreamConfig(
                name=subject,
                subjects=[subject],
                retention="limits",
                storage="file",
                num_replicas=self._place.replicas,
                duplicate_window=window,
                max_age=window,
            )
            if await self._server.find(f"STREAM.INFO.{subject}") is None:
                await self._server.api(f"STREAM.CREATE.{subject}", **msgspec.to_builtins(wanted))
            self._has_claims = True
        try:
            await self._server.publish([Publication(subject, b"", {}, name)])
        except KnownError:
            return False
        return True

    async def changed_elsewhere(self) -> str:
        """See QueueDriver."""
        while not self._changed:
            self._heard = anyio.Event()
            await self._heard.wait()
        return self._changed.pop()

    # --- lifecycle ---

    async def listen(self) -> None:
        """Subscribe to change hints of other nodes."""

        def on_hint(subject: str, body: bytes) -> None:
            name = subject.rpartition(".")[2]
            if name in self._queues:
                if body == _DELAYED:
                    self._queues[name].forget()
                self._announce(name)

        await self._server.listen(f"{self._place.name}-changed.*", on_hint)

    async def keep_leases(self) -> None:
        """Renew this node's leases (in-progress acks) and detect leases left by dead nodes."""
        while True:
            await anyio.sleep(self._place.ack_wait / 3)
            for known in list(self._queues.values()):
                for lease in list(known.leases.values()):
                    await self._server.hint(lease.reply, b"+WPI")
                if known.leased_max:
                    await self._look_after_others(known)

    async def _look_after_others(self, known: WorkQueue) -> None:
        try:
            pending = await known.pending()
        except RunError as error:
            log.warning("queue depth not checked", queue=known.name, error=str(error))
            return
        if pending > len(known.leases) + len(known.returned) and known.doubt is None:
            known.doubt = self._clock.now()
            self._announce(known.name)

    async def give_back(self) -> None:
        """End all leases of this node, so that other nodes need not wait for ack_wait."""
        for known in self._queues.values():
            for lease in known.leases.values():
                await self._server.hint(lease.reply, b"-NAK")
            if known.leases:
                await self._hint(known.name)

    async def _queue(self, name: str) -> WorkQueue:
        if name not in self._queues:
            if not NAME.fullmatch(name):
                raise RunError(f"{self._place.where}: {name!r} cannot be the name of a queue there")
            async with self._opening:
                if name not in self._queues:
                    opened = await open_work_queue(name, self._server, self._place, self._clock)
                    self._queues[name] = opened
        return self._queues[name]

    async def _take(
        self, source: WorkQueue, found: Sequence[StreamMessage], to: str, now: float
    ) -> None:
        await (await self._queue(to)).take(source.name, found, now)
        await self._hint(to)

    # --- other nodes ---

    async def _hint(self, queue: str, *, delayed: bool = False) -> None:
        await self._server.hint(f"{self._place.name}-changed.{queue}", _DELAYED if delayed else b"")

    def _announce(self, queue: str) -> None:
        self._changed.add(queue)
        self._heard.set()


_: type[QueueDriver] = NatsQueue
