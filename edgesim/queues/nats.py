"""``nats://host:4222/name?replicas=3``: messages in NATS JetStream, shared by any number of nodes.

Each queue is a stream with work-queue retention and file storage, and one durable pull consumer
that all nodes fetch from.  A message is on one of two subjects: ``ready``, which the consumer is
given, or ``delayed``, whose subjects say until when; whoever looks at the queue moves what is due.

- A lease is a delivery of the consumer's.  Its name is the reply subject of that delivery, good
  from any node.  A node says of its leases that it is still at work on them; when it dies, the
  server gives them to another ``ack_wait`` seconds later (30 unless the URL says so).
- Attempts are the deliveries that the server counts, and those that the message had before it was
  last moved, which it carries along.
- A message is moved (delayed, due, dead, redriven) by publishing its successor and then removing
  it.  The successor's message id is made of the place of the message, so that the server keeps one
  successor if the move is repeated within two minutes.

Roads that were dropped: delays by nak and by the server's message schedules, which run on the
server's clock, so no other node can tell when the next message comes, and virtual time cannot pass;
KV entries for leases, which cost a round trip a message.

What differs from other stores: the order is that of arrival on ``ready``, messages given back
first; ``oldest_ms`` is that of the message that arrived first; attempts that only another node has
seen are not peeked at; a lease that ran out can still ack its message after another node has it.
"""

from __future__ import annotations

import math
import re
from bisect import insort
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, urlsplit

import anyio
import msgspec
import structlog

from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError, first_error
from edgesim.model import ContentType, Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.queues.jetstream import (
    OVERHEAD_BYTES,
    Answer,
    Delivery,
    JetStream,
    KnownError,
    Outgoing,
    Stored,
    StreamConfig,
    connect,
    delivery_of,
)

DETERMINISTIC = False

CONSUMER = "edgesim"
LEASED_MAX = 65_536
DUPLICATE_SECONDS = 120
DELAYED_FRESH_SECONDS = 1.0
"""How old the list of delayed messages may be; hints of other nodes make it read at once."""
PAGE = 100
_DELAYED = b"delayed"
_HEADER = "Edgesim-Message"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = structlog.get_logger()
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Place(msgspec.Struct, frozen=True):
    """What a URL says; ``ack_wait`` in seconds."""

    servers: list[str]
    where: str
    name: str = "edgesim"
    replicas: int = 1
    ack_wait: float = 30.0


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept with a body; times are Unix milliseconds and seconds."""

    id: str
    content_type: ContentType
    timestamp_ms: int
    visible_at: float
    attempts: int = 0


class Lease(msgspec.Struct, frozen=True):
    """A message that this node has leased."""

    message: Stored
    attempts: int
    until: float

    @property
    def reply(self) -> str:
        return self.message.reply


def place_of(url: str) -> Place:
    """Read the URL; ConfigError for one that cannot be."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        _refuse("no user or password in the URL; set EDGESIM_NATS_USER and EDGESIM_NATS_PASSWORD")
    if not parts.netloc:
        _refuse("nats: needs a server, as in nats://127.0.0.1:4222")
    name = parts.path.strip("/") or "edgesim"
    if not _NAME.fullmatch(name):
        _refuse(f"the name {name!r} in the URL is not letters, digits, dashes and underscores")
    scheme, values = "nats", {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "tls" and value in {"true", "false"}:
            scheme = "tls" if value == "true" else "nats"
        elif key in {"replicas", "ack_wait"} and re.fullmatch(r"\d+(\.\d+)?", value):
            values[key] = msgspec.convert(value, float, strict=False)
        else:
            known = "ack_wait=SECONDS, replicas=N, tls=true"
            _refuse(f"cannot read {key}={value} in the URL; known: {known}")
    servers = [f"{scheme}://{server}" for server in parts.netloc.split(",")]
    return Place(
        servers,
        f"nats://{parts.netloc}",
        name,
        int(values.get("replicas", 1)),
        values.get("ack_wait", 30.0),
    )


def _refuse(problem: str) -> NoReturn:
    raise ConfigError("backends", "queues", problem)


@asynccontextmanager
async def open_queues(
    url: str,
    clock: Clock,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> AsyncIterator[QueueDriver]:
    """The store on the server that the URL names; RunError where it cannot be reached."""
    place = place_of(url)
    given = {"user": user, "password": password, "token": token}
    credentials = {key: value for key, value in given.items() if value is not None}
    failure: Exception | None = None
    async with (
        connect(place.servers, place.where, clock, **credentials) as server,
        anyio.create_task_group() as tasks,
    ):
        driver = NatsQueue(server, place, clock)
        await driver.listen()
        tasks.start_soon(driver.keep_leases)
        try:
            yield driver
        except Exception as error:  # noqa: BLE001 (raised below, as itself and not in a group)
            failure = error
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await driver.give_back()
    if failure is not None:
        raise failure


class _Known:
    """What this node knows of one queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.leases: dict[int, Lease] = {}  # by sequence in the stream
        self.returned: dict[int, tuple[int, float]] = {}  # attempts so far, visible since
        self.delayed: list[tuple[float, str]] = []  # visible at, subject; in order
        self.delayed_read_at = -math.inf
        self.delayed_changes = 0
        self.next_new: tuple[int, float] | None = None  # after which delivery, visible since
        self.oldest: tuple[int, int] | None = None  # first sequence, its timestamp
        self.doubt: float | None = None  # since when others may have left something behind
        self.leased_max = 0

    def forget(self) -> None:
        """Other nodes, or we, have changed more than is followed here."""
        self.delayed_read_at = -math.inf
        self.delayed_changes += 1
        self.next_new = None


class NatsQueue:
    """Queues as streams of a JetStream server; see QueueDriver for the contract."""

    def __init__(self, server: JetStream, place: Place, clock: Clock) -> None:
        self._server = server
        self._place = place
        self._clock = clock
        self._queues: dict[str, _Known] = {}
        self._opening = anyio.Lock()
        self._changed: set[str] = set()
        self._heard = anyio.Event()

    # --- the contract ---

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver; an id that the store got within two minutes is refused."""
        known = await self._queue(queue)
        now = self._clock.now()
        outgoing = [
            self._outgoing(
                queue,
                Kept(m.id, m.content_type, m.timestamp_ms, m.visible_at),
                m.body,
                m.id,
                delayed=index if m.visible_at > now else None,
            )
            for index, m in enumerate(sorted(messages, key=lambda each: each.visible_at))
        ]
        await self._server.publish(outgoing)
        self._note_delayed(known, outgoing)
        await self._hint(queue, delayed=any(m.visible_at > now for m in messages))

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        known = await self._queue(queue)
        await self._allow(known, LEASED_MAX if leased_max is None else leased_max)
        await self._end_old_leases(known, now)
        await self._promote(known, now)
        room = await self._room(known, limit)
        stored = await self._server.fetch(self._stream(queue), CONSUMER, room) if room else []
        known.next_new = None
        if len(stored) < limit:
            known.returned.clear()  # whatever is not given now is not there to be given
            known.doubt = None
        leased = []
        for each in stored:
            kept = _kept(each)
            attempts = kept.attempts + _delivery(each.reply).count
            known.returned.pop(each.seq, None)
            known.leases[each.seq] = Lease(each, attempts, until)
            leased.append(_message(kept, each.body, attempts, each.reply))
        return leased

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases = self._held(known, lease_ids)
        await _each(self._settle, [(known, reply, b"+ACK") for reply in leases])
        if known.leased_max != LEASED_MAX:
            await self._hint(queue)  # others may wait for their share of the limit
        return len(leases)

    async def release(self, queue: str, lease_ids: Sequence[str], visible_at: float) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases = self._held(known, lease_ids)
        now = self._clock.now()
        if visible_at <= now:
            await _each(self._return, [(known, reply, now) for reply in leases])
        else:
            await _each(self._delay, [(known, reply, visible_at) for reply in leases])
        await self._hint(queue, delayed=visible_at > now)
        return len(leases)

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        leases = self._held(known, lease_ids)
        found = await self._read_leased(known, leases)
        await self._take(known, found, to, now)
        await _each(self._settle, [(known, reply, b"+ACK") for reply in leases])
        return len(found)

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        moved = 0
        async for page in self._server.pages(self._stream(queue), limit):
            await self._take(known, page, to, now)
            await self._remove(known, page)
            moved += len(page)
        return moved

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        known = await self._queue(queue)
        found = []
        async for page in self._server.pages(self._stream(queue), limit):
            for each in page:
                kept = _kept(each)
                lease, returned = known.leases.get(each.seq), known.returned.get(each.seq)
                seen = lease.attempts if lease else returned[0] if returned else kept.attempts
                found.append(_message(kept, each.body, seen))
        return sorted(found, key=lambda message: message.timestamp_ms)

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""
        known = await self._queue(queue)
        stream = self._stream(queue)
        state = (await self._server.api(f"STREAM.INFO.{stream}")).state
        if state.messages == 0:
            return Depth(0, 0)
        consumer = await self._server.api(f"CONSUMER.INFO.{stream}.{CONSUMER}")
        await self._read_delayed(known)
        times = [visible_at for _, visible_at in known.returned.values()]
        times += [known.delayed[0][0]] if known.delayed else []
        times += [known.doubt] if known.doubt is not None else []
        times += await self._next_new(known, consumer)
        return Depth(
            state.messages,
            max(0, state.bytes - OVERHEAD_BYTES * state.messages),
            await self._oldest_ms(known, state.first_seq),
            min(times, default=None),
        )

    async def purge(self, queue: str) -> int:
        """See QueueDriver."""
        known = await self._queue(queue)
        purged = (await self._server.api(f"STREAM.PURGE.{self._stream(queue)}")).purged
        known.leases.clear()
        known.returned.clear()
        known.forget()
        await self._hint(queue, delayed=True)
        return purged

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver; what another node may have leased is left to that node."""
        known = await self._queue(queue)
        old: list[Stored] = []
        after, more = 0, True
        while more:
            page, more = await self._server.read(self._stream(queue), ">", after, LEASED_MAX)
            found = [each for each in page if _kept(each).timestamp_ms < before_ms]
            old += found
            more = more and bool(found)
            after = page[-1].seq if page else 0
        if not old:
            return 0
        path = f"CONSUMER.INFO.{self._stream(queue)}.{CONSUMER}"
        delivered = (await self._server.api(path)).delivered.stream_seq
        ready = self._subject(queue, "ready", "")
        free = [
            each
            for each in old
            if each.seq not in known.leases
            and (each.seq > delivered or each.seq in known.returned or ready not in each.subject)
        ]
        await self._remove(known, free)
        return len(free)

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

    async def changed_elsewhere(self) -> str:
        """See QueueDriver."""
        while not self._changed:
            self._heard = anyio.Event()
            await self._heard.wait()
        return self._changed.pop()

    # --- life ---

    async def listen(self) -> None:
        """Hear of what other nodes do."""

        def heard(subject: str, body: bytes) -> None:
            name = subject.rpartition(".")[2]
            if name in self._queues:
                if body == _DELAYED:
                    self._queues[name].forget()
                self._tell(name)

        await self._server.listen(f"{self._place.name}-changed.*", heard)

    async def keep_leases(self) -> None:
        """Say of all leases that they are being worked on, and look after those of dead nodes."""
        while True:
            await anyio.sleep(self._place.ack_wait / 3)
            for known in list(self._queues.values()):
                for lease in list(known.leases.values()):
                    await self._server.hint(lease.reply, b"+WPI")
                if known.leased_max:
                    await self._look_after_others(known)

    async def _look_after_others(self, known: _Known) -> None:
        path = f"CONSUMER.INFO.{self._stream(known.name)}.{CONSUMER}"
        try:
            pending = (await self._server.api(path)).num_ack_pending
        except RunError as error:
            log.warning("queue not looked after", queue=known.name, error=str(error))
            return
        if pending > len(known.leases) + len(known.returned) and known.doubt is None:
            known.doubt = self._clock.now()
            self._tell(known.name)

    async def give_back(self) -> None:
        """End all leases of this node, so that others need not wait for ack_wait."""
        for known in self._queues.values():
            for lease in known.leases.values():
                await self._server.hint(lease.reply, b"-NAK")
            if known.leases:
                await self._hint(known.name)

    # --- streams and subjects ---

    def _stream(self, queue: str) -> str:
        return f"{self._place.name}_{queue}"

    def _subject(self, queue: str, *rest: str) -> str:
        return ".".join((self._place.name, queue, *rest))

    async def _queue(self, name: str) -> _Known:
        """What we know of the queue; its stream and consumer are made if need be."""
        if name not in self._queues:
            async with self._opening:
                if name not in self._queues:
                    await self._make(name)
        return self._queues[name]

    async def _make(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise RunError(f"{self._place.where}: {name!r} cannot be the name of a queue there")
        stream = self._stream(name)
        wanted = StreamConfig(
            name=stream,
            subjects=[self._subject(name, ">")],
            retention="workqueue",
            storage="file",
            num_replicas=self._place.replicas,
            duplicate_window=DUPLICATE_SECONDS * 1_000_000_000,
            allow_direct=True,
            allow_atomic=True,
        )
        config = msgspec.to_builtins(wanted)
        found = await self._server.find(f"STREAM.INFO.{stream}") or await self._server.api(
            f"STREAM.CREATE.{stream}", **config
        )
        has = msgspec.json.decode(found.config, type=StreamConfig)
        if has.num_replicas != wanted.num_replicas and has.subjects == wanted.subjects:
            found = await self._server.api(f"STREAM.UPDATE.{stream}", **config)
            has = msgspec.json.decode(found.config, type=StreamConfig)
        if not has.allow_atomic or has.subjects != wanted.subjects:
            raise RunError(
                f"{self._place.where}: the stream {stream} is not one of edgesim's, "
                "or the server is older than 2.12"
            )
        known = _Known(name)
        if await self._server.find(f"CONSUMER.INFO.{stream}.{CONSUMER}") is None:
            await self._allow(known, LEASED_MAX)
        self._queues[name] = known

    async def _allow(self, known: _Known, leased_max: int) -> None:
        """Let the consumer have so many messages leased at a time, over all nodes."""
        if known.leased_max == leased_max:
            return
        config = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(self._place.ack_wait * 1_000_000_000),
            "max_ack_pending": leased_max,
            "filter_subject": self._subject(known.name, "ready", ">"),
        }
        stream = self._stream(known.name)
        await self._server.api(
            f"CONSUMER.DURABLE.CREATE.{stream}.{CONSUMER}", stream_name=stream, config=config
        )
        known.leased_max = leased_max

    # --- leases ---

    def _held(self, known: _Known, lease_ids: Iterable[str]) -> list[str]:
        """Those that are leases of this queue and not known to be superseded."""
        held = []
        for lease_id in lease_ids:
            delivery = delivery_of(lease_id)
            if delivery is None or delivery.stream != self._stream(known.name):
                continue
            ours = known.leases.get(delivery.seq)
            if ours is None or ours.reply == lease_id:
                held.append(lease_id)
        return held

    async def _settle(self, known: _Known, reply: str, kind: bytes) -> None:
        await self._server.confirm(reply, kind)
        seq = _delivery(reply).seq
        known.leases.pop(seq, None)
        known.returned.pop(seq, None)

    async def _return(self, known: _Known, reply: str, now: float) -> None:
        delivery = _delivery(reply)
        lease = known.leases.get(delivery.seq)
        await self._settle(known, reply, b"-NAK")
        known.returned[delivery.seq] = (lease.attempts if lease else delivery.count, now)

    async def _delay(self, known: _Known, reply: str, visible_at: float) -> None:
        """The message's successor, with its attempts and a new time, then its own end."""
        for found in await self._read_leased(known, [reply]):
            kept = _kept(found)
            later = msgspec.structs.replace(
                kept, visible_at=visible_at, attempts=kept.attempts + _delivery(reply).count
            )
            successor = self._successor(known.name, found, later, delayed=0)
            await self._publish([successor])
            self._note_delayed(known, [successor])
        await self._settle(known, reply, b"+ACK")

    async def _room(self, known: _Known, limit: int) -> int:
        """How many messages may be asked for: beyond its limit the server would not answer."""
        if known.leased_max == LEASED_MAX:
            return limit
        path = f"CONSUMER.INFO.{self._stream(known.name)}.{CONSUMER}"
        free = known.leased_max - (await self._server.api(path)).num_ack_pending
        # Messages that were given back are among the pending ones and may be had all the same.
        again = len(known.returned) + (known.doubt is not None)
        return min(limit, max(free, 0) + again)

    async def _end_old_leases(self, known: _Known, now: float) -> None:
        over = [lease.reply for lease in known.leases.values() if lease.until <= now]
        await _each(self._return, [(known, reply, now) for reply in over])

    async def _read_leased(self, known: _Known, replies: Sequence[str]) -> list[Stored]:
        """The messages of the leases, as far as they are still there."""

        async def read(seq: int) -> Stored | None:
            lease = known.leases.get(seq)
            return lease.message if lease else await self._server.at(self._stream(known.name), seq)

        found = await _each(read, [(_delivery(reply).seq,) for reply in replies])
        return [each for each in found if each is not None]

    # --- moving messages ---

    async def _take(self, known: _Known, found: Sequence[Stored], to: str, now: float) -> None:
        """Successors of the messages in another queue, where they start anew."""
        target = await self._queue(to)
        successors = []
        for each in found:
            anew = msgspec.structs.replace(_kept(each), visible_at=now, attempts=0)
            successors.append(self._successor(to, each, anew, source=known.name))
        await self._publish(successors)
        target.next_new = None
        await self._hint(to)

    async def _remove(self, known: _Known, found: Sequence[Stored]) -> None:
        path = f"STREAM.MSG.DELETE.{self._stream(known.name)}"
        await _each(
            lambda seq: self._server.find(path, seq=seq, no_erase=True), [(m.seq,) for m in found]
        )
        for each in found:
            known.leases.pop(each.seq, None)
            known.returned.pop(each.seq, None)
        known.forget()

    async def _promote(self, known: _Known, now: float) -> None:
        """Make delayed messages that are due ready."""
        await self._read_delayed(known)
        due = [subject for visible_at, subject in known.delayed if visible_at <= now]
        for page in _pages(due):
            reads = [(self._stream(known.name), subject, 0) for subject in page]
            found = [each for each in await _each(self._server.first, reads) if each is not None]
            await self._publish([self._successor(known.name, m, _kept(m)) for m in found])
            await self._remove(known, found)
        if due:
            await self._hint(known.name, delayed=True)

    def _successor(
        self, to: str, found: Stored, kept: Kept, *, delayed: int | None = None, source: str = ""
    ) -> Outgoing:
        # One successor a message: if another node makes it too, the server keeps one of them.
        message_id = f"{source or to}.{found.seq}"
        return self._outgoing(to, kept, found.body, message_id, delayed=delayed)

    async def _publish(self, successors: Sequence[Outgoing]) -> None:
        """Make all of them, as far as nobody else has yet."""
        for page in _pages(successors):
            try:
                await self._server.publish(page)
            except KnownError:
                for each in page:
                    with suppress(KnownError):
                        await self._server.publish([each])

    def _outgoing(
        self, queue: str, kept: Kept, body: bytes, message_id: str, *, delayed: int | None
    ) -> Outgoing:
        """``delayed`` is the place among messages that become visible at the same time."""
        when = f"{kept.visible_at:017.6f}".replace(".", "_")
        kind = ("ready",) if delayed is None else ("delayed", when, f"{delayed:03d}")
        subject = self._subject(queue, *kind, kept.id)
        return Outgoing(subject, body, {_HEADER: msgspec.json.encode(kept).decode()}, message_id)

    # --- what waits ---

    async def _read_delayed(self, known: _Known) -> None:
        read_at, changes = self._clock.elapsed(), known.delayed_changes
        if read_at - known.delayed_read_at < DELAYED_FRESH_SECONDS:
            return
        found = await self._list_delayed(known.name)
        if known.delayed_changes != changes:
            # What was read may be older than what we know.  An entry too much is harmless.
            found = sorted({*found, *known.delayed})
        known.delayed, known.delayed_read_at = found, read_at

    async def _list_delayed(self, queue: str) -> list[tuple[float, str]]:
        path, delayed = f"STREAM.INFO.{self._stream(queue)}", self._subject(queue, "delayed", ">")
        found: list[tuple[float, str]] = []
        while True:
            answer = await self._server.api(path, subjects_filter=delayed, offset=len(found))
            found += [(_visible_at(subject), subject) for subject in answer.state.subjects]
            if not answer.state.subjects or len(found) >= answer.total:
                return sorted(found)

    def _note_delayed(self, known: _Known, sent: Sequence[Outgoing]) -> None:
        delayed = self._subject(known.name, "delayed", "")
        for each in sent:
            if each.subject.startswith(delayed):
                insort(known.delayed, (_visible_at(each.subject), each.subject))
                known.delayed_changes += 1

    async def _next_new(self, known: _Known, consumer: Answer) -> list[float]:
        """Since when the first message that nobody ever leased is visible."""
        after = consumer.delivered.stream_seq
        if consumer.num_pending == 0:
            return []
        if known.next_new is None or known.next_new[0] != after:
            ready = self._subject(known.name, "ready", ">")
            found = await self._server.first(self._stream(known.name), ready, after)
            if found is None:
                return []
            known.next_new = (after, _kept(found).visible_at)
        return [known.next_new[1]]

    async def _oldest_ms(self, known: _Known, first_seq: int) -> int | None:
        if known.oldest is None or known.oldest[0] != first_seq:
            found = await self._server.first(self._stream(known.name), ">", 0)
            if found is None:
                return None
            known.oldest = (first_seq, _kept(found).timestamp_ms)
        return known.oldest[1]

    # --- other nodes ---

    async def _hint(self, queue: str, *, delayed: bool = False) -> None:
        await self._server.hint(f"{self._place.name}-changed.{queue}", _DELAYED if delayed else b"")

    def _tell(self, queue: str) -> None:
        self._changed.add(queue)
        self._heard.set()


async def _each(call: Callable[..., Awaitable[_Result]], arguments: Any) -> list[_Result]:
    """The call with each of the arguments, all at once; the results in order, or one error."""
    results: dict[int, _Result] = {}

    async def one(index: int, each: tuple[Any, ...]) -> None:
        results[index] = await call(*each)

    try:
        async with anyio.create_task_group() as group:
            for index, each in enumerate(arguments):
                group.start_soon(one, index, each)
    except BaseExceptionGroup as failures:
        error = first_error(failures)
        if error is None:
            raise
        raise error from failures
    return [results[index] for index in sorted(results)]


def _delivery(reply: str) -> Delivery:
    delivery = delivery_of(reply)
    assert delivery is not None
    return delivery


def _pages(values: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (values[start : start + PAGE] for start in range(0, len(values), PAGE))


def _kept(found: Stored) -> Kept:
    return msgspec.json.decode(found.headers[_HEADER], type=Kept)


def _message(kept: Kept, body: bytes, attempts: int, lease_id: str = "") -> Message:
    return Message(kept.id, body, kept.content_type, kept.timestamp_ms, attempts, lease_id)


def _visible_at(subject: str) -> float:
    return float(subject.split(".")[-3].replace("_", "."))


_: type[QueueDriver] = NatsQueue
